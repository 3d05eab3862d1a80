"""PayU's answers, row by row, and that nothing unclear becomes an outcome."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from okane.http.connection import HttpResponse
from okane.payment import NextAction
from okane.providers.base import Approved, ChargeResult, Declined, Pending, Unavailable, Unknown
from okane.providers.payu.answers import (
    AccessToken,
    existing_order,
    parse_charge_answer,
    parse_look_up_answer,
    parse_token_answer,
)
from tests.okane.payu_orders import ORDER, PAGE_URL, PAYU_PAYMENT, SECRET, failure, made, order, response
from tests.payments import NOW

HTML = b"<html><body>Bad gateway</body></html>"
UNIQUE = failure("ERROR_ORDER_NOT_UNIQUE", code="110", codeLiteral="ORDER_NOT_UNIQUE")
EXPIRED = failure("ERROR_INTERNAL", codeLiteral="CARD_CARD_EXPIRED")
PENDING = Pending(ORDER, NextAction(PAGE_URL))


def charged(answer: HttpResponse) -> ChargeResult:
    return parse_charge_answer(answer, PAYU_PAYMENT, is_repeat=False, now=NOW)


def repeated(answer: HttpResponse) -> ChargeResult:
    return parse_charge_answer(answer, PAYU_PAYMENT, is_repeat=True, now=NOW)


def looked_up(answer: HttpResponse) -> ChargeResult:
    return parse_look_up_answer(answer, PAYU_PAYMENT, ORDER, now=NOW)


# Charges


@pytest.mark.parametrize("status", [200, 201, 302])
@pytest.mark.parametrize(
    "code", ["SUCCESS", "WARNING_CONTINUE_REDIRECT", "WARNING_CONTINUE_3DS", "WARNING_CONTINUE_CVV"]
)
def test_an_order_with_a_page_waits_for_the_customer(status: int, code: str) -> None:
    answer = response(status, made(status={"statusCode": code}))
    assert charged(answer) == repeated(answer) == PENDING


def test_an_order_without_a_page_waits_for_payu() -> None:
    document = made()
    del document["redirectUri"]
    assert charged(response(201, document)) == Pending(ORDER)


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "/pay", "https://", "https://h/\r\nX: y", "https://h/" + "x" * 2048, 7, None, "http://[/"],
)
def test_a_page_that_no_customer_can_open_is_left_out(url: object) -> None:
    assert charged(response(302, made(redirectUri=url))) == Pending(ORDER)


@pytest.mark.parametrize("order_id", [None, "", 7, "a/b", "a\x00", "x" * 65])
def test_an_order_without_a_usable_id_is_unknown(order_id: object) -> None:
    assert charged(response(302, made(orderId=order_id))) == Unknown("302 without a usable orderId")


def test_an_order_for_another_payment_is_unknown() -> None:
    assert charged(response(302, made(extOrderId="another"))) == Unknown("302 for another extOrderId")


def test_an_order_that_exists_already_is_unknown() -> None:
    unknown = Unknown("PayU has an order with this extOrderId: its id comes with the notice", is_neutral=True)
    assert charged(response(400, UNIQUE)) == repeated(response(400, UNIQUE)) == unknown


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (EXPIRED, "expired_card"),
        (failure("BUSINESS_ERROR", statusDesc="Order was rejected by antifraud system"), "fraudulent"),
    ],
)
def test_a_refused_card_is_declined_but_not_by_the_answer_to_a_repeat(document: object, code: str) -> None:
    declined = charged(response(400, document))
    assert isinstance(declined, Declined)
    assert declined.code == code
    assert isinstance(repeated(response(400, document)), Unknown)


@pytest.mark.parametrize("status", [401, 403])
def test_a_401_and_a_403_are_our_configuration(status: int) -> None:
    answer = response(status, failure("ERROR_VALUE_INVALID", codeLiteral="INVALID_AUTH_FOR_THIS_ORDER"))
    unavailable = Unavailable(f"HTTP {status} ERROR_VALUE_INVALID INVALID_AUTH_FOR_THIS_ORDER", fault="config")
    assert charged(answer) == repeated(answer) == looked_up(answer) == unavailable


@pytest.mark.parametrize("status", [401, 403])
def test_a_page_of_something_before_payu_is_unknown(status: int) -> None:
    assert charged(response(status, HTML)) == Unknown(f"HTTP {status}")


@pytest.mark.parametrize("body", [b"", b"{}", HTML])
def test_a_429_is_a_limit(body: bytes) -> None:
    limited = HttpResponse(429, body, "7")
    assert charged(limited) == looked_up(limited) == Unavailable("HTTP 429", timedelta(seconds=7), "limit")


@pytest.mark.parametrize("code", ["ERROR_SYNTAX", "ERROR_VALUE_INVALID", "ERROR_VALUE_MISSING", "BUSINESS_ERROR"])
def test_any_other_400_is_unknown_and_names_its_code(code: str) -> None:
    assert charged(response(400, failure(code))) == Unknown(f"HTTP 400 {code}", is_neutral=True)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize(
    "document",
    [b"", HTML, EXPIRED, failure("SERVICE_NOT_AVAILABLE"), failure("SUCCESS"), made(), order("CANCELED"), UNIQUE],
)
def test_a_5xx_is_unknown_whatever_its_body_says(status: int, document: object) -> None:
    answer = response(status, document)
    assert {type(parse(answer)) for parse in (charged, repeated, looked_up)} == {Unknown}


@pytest.mark.parametrize("status", [204, 301, 303, 307, 404, 405, 408, 409, 415, 422])
@pytest.mark.parametrize("document", [b"", HTML, made(), failure("TIMEOUT")])
def test_any_other_status_of_a_charge_is_unknown(status: int, document: object) -> None:
    assert isinstance(charged(response(status, document)), Unknown)


@pytest.mark.parametrize("document", [b"", HTML, b"[]", {}, {"status": {}}])
def test_a_400_or_404_without_payus_code_counts_against_it(document: object) -> None:
    for status in (400, 404):
        assert charged(response(status, document)) == looked_up(response(status, document)) == Unknown(f"HTTP {status}")


@pytest.mark.parametrize("status", [200, 201, 302])
@pytest.mark.parametrize(
    "document", [b"", HTML, b"[]", {}, {"status": "SUCCESS", "orderId": ORDER}, failure("WARNING")]
)
def test_an_unreadable_success_is_unknown(status: int, document: object) -> None:
    assert isinstance(charged(response(status, document)), Unknown)


def test_the_existing_order_of_a_repeat_is_read() -> None:
    assert existing_order(response(400, UNIQUE | {"orderId": ORDER})) == ORDER


@pytest.mark.parametrize(
    "answer",
    [
        response(400, UNIQUE),
        response(400, UNIQUE | {"orderId": "../x"}),
        response(500, UNIQUE | {"orderId": ORDER}),
        response(400, failure("ERROR_VALUE_INVALID") | {"orderId": ORDER}),
        response(302, made()),
        response(400, HTML),
    ],
)
def test_no_other_answer_names_an_existing_order(answer: HttpResponse) -> None:
    assert existing_order(answer) is None


@pytest.mark.parametrize("code", [SECRET, "x" * 65, "", "A B", "A\x00"])
def test_a_code_that_is_none_is_not_repeated(code: str) -> None:
    assert charged(response(403, failure(code, codeLiteral=code))) == Unavailable("HTTP 403", fault="config")


# Look-ups


def test_a_completed_order_is_approved() -> None:
    assert looked_up(response(200, order("COMPLETED"))) == Approved(ORDER)


def test_a_canceled_order_is_declined() -> None:
    assert looked_up(response(200, order("CANCELED"))) == Declined("canceled", provider_ref=ORDER)


@pytest.mark.parametrize("status", ["NEW", "PENDING"])
def test_an_open_order_keeps_the_page_of_its_first_answer(status: str) -> None:
    answer = response(200, order(status))
    with_page = replace(PAYU_PAYMENT, next_action=NextAction(PAGE_URL))
    assert parse_look_up_answer(answer, with_page, ORDER, now=NOW) == PENDING
    assert looked_up(answer) == Pending(ORDER)


def test_an_order_that_waits_for_its_capture_needs_nothing_of_the_customer() -> None:
    with_page = replace(PAYU_PAYMENT, next_action=NextAction(PAGE_URL))
    answer = response(200, order("WAITING_FOR_CONFIRMATION"))
    assert parse_look_up_answer(answer, with_page, ORDER, now=NOW) == Pending(ORDER)


@pytest.mark.parametrize("status", ["COMPLETED", "CANCELED", "PENDING"])
@pytest.mark.parametrize("more", [{"totalAmount": "441"}, {"totalAmount": "0440"}, {"currencyCode": "EUR"}])
def test_another_amount_or_currency_needs_a_review_at_once(status: str, more: dict[str, object]) -> None:
    result = looked_up(response(200, order(status, **more)))
    assert isinstance(result, Unknown)
    assert result.at_once
    assert "not 440 PLN" in result.reason


@pytest.mark.parametrize("more", [{"totalAmount": 440}, {"totalAmount": None}, {"currencyCode": None}])
def test_an_order_without_a_readable_amount_is_looked_up_again(more: dict[str, object]) -> None:
    assert looked_up(response(200, order("COMPLETED", **more))) == Unknown(
        "order without a readable amount and currency"
    )


def test_the_order_of_another_key_needs_a_review_at_once() -> None:
    answer = response(200, order("COMPLETED", extOrderId="another"))
    assert looked_up(answer) == Unknown("the order has another extOrderId", at_once=True)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        HTML,
        {},
        order("REJECTED"),
        order("COMPLETED", orderId="another"),
        order("COMPLETED", extOrderId=None),
        order("COMPLETED") | {"status": {"statusCode": "WARNING"}},
        order("COMPLETED") | {"orders": []},
        order("COMPLETED") | {"orders": {}},
        order("COMPLETED") | {"orders": [{}, {}]},
        made(),
    ],
)
def test_any_other_200_to_a_look_up_is_unknown(document: object) -> None:
    assert isinstance(looked_up(response(200, document)), Unknown)


@pytest.mark.parametrize("status", [201, 302, 400, 404, 408, 410])
def test_any_other_status_of_a_look_up_is_unknown(status: int) -> None:
    for document in (order("COMPLETED"), failure("DATA_NOT_FOUND"), b""):
        assert isinstance(looked_up(response(status, document)), Unknown)


# Tokens


def test_a_token_is_read_with_its_lifetime() -> None:
    answer = response(200, {"access_token": "t", "expires_in": 43199})
    assert parse_token_answer(answer, now=NOW) == AccessToken("t", 43199.0)


@pytest.mark.parametrize(
    ("expires_in", "lifetime_s"),
    [(None, 300.0), ("43199", 300.0), (0, 300.0), (-1, 300.0), (True, 300.0), (10**12, 86400.0)],
)
def test_a_lifetime_that_cannot_be_is_replaced(expires_in: object, lifetime_s: float) -> None:
    answer = response(200, {"access_token": "t", "expires_in": expires_in})
    assert parse_token_answer(answer, now=NOW) == AccessToken("t", lifetime_s)


@pytest.mark.parametrize("token", [None, "", "a b", "a\r\nX: y", "\u017c", "x" * 2049, 7])
def test_a_token_that_fits_into_no_header_is_none(token: object) -> None:
    answer = response(200, {"access_token": token, "expires_in": 1})
    assert parse_token_answer(answer, now=NOW) == Unavailable("no access token: HTTP 200")


@pytest.mark.parametrize(
    ("status", "fault"),
    [(400, "config"), (401, "config"), (403, "config"), (429, "limit"), (500, "provider"), (302, "provider")],
)
def test_a_refused_token_says_whose_fault_it_is_and_repeats_nothing_of_the_answer(status: int, fault: str) -> None:
    result = parse_token_answer(response(status, {"error": "invalid_client", "error_description": SECRET}), now=NOW)
    assert isinstance(result, Unavailable)
    assert (result.reason, result.fault) == (f"no access token: HTTP {status}", fault)


def test_a_token_is_not_in_its_representation() -> None:
    assert "t0ken" not in repr(AccessToken("t0ken", 1.0))


# Whatever PayU answers

_SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
_WORDS = st.sampled_from(
    [
        "SUCCESS",
        "WARNING_CONTINUE_3DS",
        "ERROR_ORDER_NOT_UNIQUE",
        "ERROR_INTERNAL",
        "BUSINESS_ERROR",
        "CARD_CARD_EXPIRED",
        "COMPLETED",
        "CANCELED",
        "PENDING",
        ORDER,
        PAYU_PAYMENT.provider_key,
        "440",
        "PLN",
        PAGE_URL,
    ]
)
_STATUS_NAMES = ["status", "statusCode", "codeLiteral", "statusDesc"]
_ORDER_NAMES = ["orders", "orderId", "extOrderId", "totalAmount", "currencyCode", "redirectUri"]
_NAMES = st.sampled_from(_STATUS_NAMES + _ORDER_NAMES)
_JSON = st.recursive(
    _SCALARS | _WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_NAMES | st.text(max_size=4), inner, max_size=6),
    max_leaves=25,
)
_DOCUMENTS = st.one_of(
    _JSON,
    st.dictionaries(_NAMES, _JSON, max_size=3).map(lambda more: made() | more),
    st.dictionaries(_NAMES, _SCALARS | _WORDS, max_size=3).map(lambda more: order("COMPLETED") | more),
    st.dictionaries(_NAMES, _SCALARS | _WORDS, max_size=3).map(
        lambda more: order("COMPLETED", **{name: text for name, text in more.items() if name != "status"})
    ),
)
_BODIES = _DOCUMENTS.map(lambda document: json.dumps(document).encode()) | st.binary(max_size=40)
_STATUSES = st.integers(200, 599) | st.sampled_from([200, 201, 302, 400, 401, 403, 429, 500, 503])


def _status_of(document: object, name: str) -> object:
    status = document.get("status") if isinstance(document, dict) else None
    return status.get(name) if isinstance(status, dict) else None


def _read(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None


@given(status=_STATUSES, body=_BODIES, is_repeat=st.booleans())
@example(status=302, body=json.dumps(made()).encode(), is_repeat=False)
def test_no_answer_to_a_charge_means_more_than_it_says(status: int, body: bytes, is_repeat: bool) -> None:
    result = parse_charge_answer(HttpResponse(status, body, None), PAYU_PAYMENT, is_repeat=is_repeat, now=NOW)
    document = _read(body)
    match result:
        case Pending():
            assert status in (200, 201, 302)
            assert isinstance(document, dict)
            assert result.provider_ref == document["orderId"]
            assert document.get("extOrderId") in (None, PAYU_PAYMENT.provider_key)
            assert _status_of(document, "statusCode") in ("SUCCESS", "WARNING_CONTINUE_3DS")
        case Unavailable():
            assert status == 429 or (status in (401, 403) and isinstance(document, dict))
            assert result.fault in ("limit", "config")
        case Declined():
            assert (status, is_repeat) == (400, False)
            literal = _status_of(document, "codeLiteral")
            assert literal == "CARD_CARD_EXPIRED" or _status_of(document, "statusCode") == "BUSINESS_ERROR"
        case _:
            assert isinstance(result, Unknown)
            assert result.reason.isprintable()
            assert len(result.reason) <= 255


@given(status=_STATUSES, body=_BODIES)
@example(status=200, body=json.dumps(order("COMPLETED")).encode())
@example(status=200, body=json.dumps(order("CANCELED")).encode())
def test_no_answer_to_a_look_up_means_more_than_it_says(status: int, body: bytes) -> None:
    result = looked_up(HttpResponse(status, body, None))
    document = _read(body)
    match result:
        case Approved() | Declined() | Pending():
            assert status == 200
            assert isinstance(document, dict)
            [told] = document["orders"]
            assert (told["orderId"], told["extOrderId"]) == (ORDER, PAYU_PAYMENT.provider_key)
            assert (told["totalAmount"], told["currencyCode"]) == ("440", "PLN")
            if not isinstance(result, Pending):
                assert told["status"] == ("COMPLETED" if isinstance(result, Approved) else "CANCELED")
        case Unavailable():
            assert status == 429 or (status in (401, 403) and isinstance(document, dict))
        case _:
            assert isinstance(result, Unknown)
            assert result.reason.isprintable()
            assert len(result.reason) <= 255
