"""Stripe's answers: one test per row of the table of outcomes, and no answer outside of it that decides anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from okane.currencies import NEW_PAYMENTS
from okane.http.connection import HttpResponse
from okane.payment import NextAction
from okane.providers.base import Approved, Declined, LookUpResult, NotFound, Pending, Unavailable, Unknown
from okane.providers.stripe.amounts import stripe_amount
from okane.providers.stripe.answers import Page, parse_charge_answer, parse_page, parse_retrieved
from okane.providers.stripe.decline_codes import SOFT_DECLINES
from tests.okane.stripe_answers import CARD_ERROR, CARD_PAYMENT, OURS, failed, intent, listed, response, unpaid
from tests.payments import NOW

PAGE = b"<html><body>Bad gateway</body></html>"
ACTION = {
    "type": "redirect_to_url",
    "redirect_to_url": {"url": "https://hooks.stripe.com/3ds", "return_url": "https://x"},
}


def charged(status: int, document: object = None, **more: str | None) -> LookUpResult:
    return parse_charge_answer(response(status, document, **more), CARD_PAYMENT, now=NOW)  # type: ignore[arg-type] # retry_after alone


# 200: by the intent's status


def test_a_succeeded_intent_is_approved() -> None:
    assert charged(200, intent()) == Approved("pi_1")


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 441, "amount_received": 441},
        {"amount_received": 439},
        {"amount_received": 0},
        {"amount_received": "440"},
        {"amount_received": True},
        {"amount": None},
        {"amount": 440.0},
        {"currency": "eur"},
        {"currency": "USD"},
    ],
)
def test_success_with_another_amount_or_currency_is_unknown_and_needs_a_review(changes: dict[str, object]) -> None:
    result = charged(200, intent(**changes))
    assert isinstance(result, Unknown)
    assert result.at_once


def test_an_intent_that_requires_an_action_is_pending_with_the_page_to_open() -> None:
    result = charged(200, unpaid("requires_action", next_action=ACTION))
    assert result == Pending("pi_1", NextAction("https://hooks.stripe.com/3ds"))


def test_a_voucher_is_a_page_to_open_too() -> None:
    details = {"number": "1", "hosted_voucher_url": "https://payments.stripe.com/boleto/voucher/1"}
    result = charged(
        200,
        unpaid("requires_action", next_action={"type": "boleto_display_details", "boleto_display_details": details}),
    )
    assert result == Pending("pi_1", NextAction("https://payments.stripe.com/boleto/voucher/1"))


@pytest.mark.parametrize(
    "action",
    [
        None,
        {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect"}},
        {"type": "redirect_to_url", "redirect_to_url": {"url": "javascript:alert(1)"}},
        {"type": "redirect_to_url", "redirect_to_url": {"url": "https://[bad"}},
        {"type": "redirect_to_url", "redirect_to_url": {"url": "https://x/" + "y" * 2048}},
        {"type": "redirect_to_url", "redirect_to_url": {"url": "https://x/\n"}},
        {"type": "redirect_to_url", "redirect_to_url": {"url": "https:///x"}},
        {"type": "redirect_to_url", "redirect_to_url": {"url": "https://:443/x"}},
        {"type": "redirect_to_url", "redirect_to_url": {"url": "https://x/ y"}},
        {"type": "redirect_to_url", "redirect_to_url": "https://x"},
        {"type": ["redirect_to_url"]},
    ],
)
def test_an_action_without_a_page_is_pending_without_one(action: object) -> None:
    assert charged(200, unpaid("requires_action", next_action=action)) == Pending("pi_1")


def test_a_processing_intent_is_pending() -> None:
    assert charged(200, unpaid("processing")) == Pending("pi_1")


def test_an_intent_whose_payment_method_failed_is_declined() -> None:
    error = CARD_ERROR | {"decline_code": "insufficient_funds", "message": "no funds"}
    result = charged(200, unpaid("requires_payment_method", last_payment_error=error))
    assert result == Declined("insufficient_funds", "no funds", "pi_1", soft=True)


def test_an_intent_that_requires_a_payment_method_without_an_error_is_unknown() -> None:
    assert isinstance(charged(200, unpaid("requires_payment_method")), Unknown)


def test_a_canceled_intent_is_declined() -> None:
    assert charged(200, unpaid("canceled", cancellation_reason="abandoned")) == Declined(
        "canceled", "abandoned", "pi_1"
    )
    error = {"type": "invalid_request_error", "code": "payment_intent_authentication_failure", "message": "no"}
    assert charged(200, unpaid("canceled", last_payment_error=error)) == Declined(
        "payment_intent_authentication_failure", "no", "pi_1"
    )


def test_a_canceled_intent_that_received_money_is_unknown_and_needs_a_review() -> None:
    assert charged(200, intent(status="canceled")) == Unknown(
        "pi_1 was canceled after it had received money", at_once=True, is_neutral=True
    )


def test_funds_that_are_held_need_a_review() -> None:
    assert charged(200, unpaid("requires_capture")) == Unknown("pi_1 requires a capture", at_once=True, is_neutral=True)


@pytest.mark.parametrize(
    "status", ["requires_confirmation", "requires_source", "Succeeded", "", None, 1, ["succeeded"]]
)
def test_any_other_status_of_an_intent_is_unknown(status: object) -> None:
    assert isinstance(charged(200, intent(status=status)), Unknown)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        OURS | {"payment_id": str(uuid4())},
        OURS | {"attempt_key": "another"},
        {"payment_id": OURS["payment_id"]},
    ],
)
def test_the_intent_of_another_payment_or_key_is_unknown_and_needs_a_review(metadata: object) -> None:
    result = charged(200, intent(metadata=metadata))
    assert isinstance(result, Unknown)
    assert result.at_once


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        PAGE,
        b"[]",
        b"null",
        b"\xff",
        b"[" * 60_000,
        {},
        intent(object="charge"),
        intent(id=None),
        intent(id="ch_1"),
    ],
)
def test_an_unreadable_200_is_unknown(document: object) -> None:
    assert isinstance(charged(200, document), Unknown)


def test_an_id_that_no_row_can_store_is_unknown() -> None:
    for ref in ("pi_\x00", "pi_" + "x" * 255, "pi_\ud800"):
        assert isinstance(charged(200, intent(id=ref)), Unknown)


# 402: declines


def test_a_card_error_is_declined_with_its_decline_code_and_reference() -> None:
    document = failed(**CARD_ERROR, decline_code="lost_card", payment_intent=unpaid("requires_payment_method"))
    assert charged(402, document) == Declined("lost_card", "Your card was declined.", "pi_1")


def test_a_card_error_without_a_decline_code_is_declined_with_its_code() -> None:
    assert charged(402, failed(**CARD_ERROR | {"code": "expired_card"})) == Declined(
        "expired_card", "Your card was declined."
    )


@pytest.mark.parametrize("code", sorted(SOFT_DECLINES))
def test_a_decline_for_a_time_is_soft(code: str) -> None:
    result = charged(402, failed(**CARD_ERROR, decline_code=code))
    assert isinstance(result, Declined)
    assert result.soft


@pytest.mark.parametrize(
    "code",
    [
        "lost_card",
        "stolen_card",
        "pickup_card",
        "fraudulent",
        "expired_card",
        "authentication_required",
        "incorrect_cvc",
        "revocation_of_authorization",
        "do_not_try_again",
        "a_code_of_tomorrow",
    ],
)
def test_a_decline_for_good_is_hard(code: str) -> None:
    result = charged(402, failed(**CARD_ERROR, decline_code=code))
    assert isinstance(result, Declined)
    assert not result.soft


@pytest.mark.parametrize(
    ("code", "advice", "soft"),
    [("lost_card", "try_again_later", True), ("insufficient_funds", "do_not_try_again", False)],
)
def test_the_advice_of_the_card_network_takes_precedence(code: str, advice: str, soft: bool) -> None:
    result = charged(402, failed(**CARD_ERROR, decline_code=code, advice_code=advice))
    assert isinstance(result, Declined)
    assert result.soft is soft


@pytest.mark.parametrize("status", ["succeeded", "processing", "requires_action", "requires_capture"])
@pytest.mark.parametrize(("http", "kind"), [(402, "card_error"), (400, "invalid_request_error")])
def test_an_error_with_an_intent_that_may_move_money_is_unknown(http: int, kind: str, status: str) -> None:
    assert isinstance(charged(http, failed(type=kind, payment_intent=intent(status=status))), Unknown)


def test_an_error_with_the_intent_of_another_payment_is_unknown() -> None:
    other = unpaid("requires_payment_method", metadata={"payment_id": str(uuid4())})
    assert isinstance(charged(402, failed(**CARD_ERROR, payment_intent=other)), Unknown)


@pytest.mark.parametrize(
    "document", [b"", PAGE, {}, {"error": "card_error"}, failed(type="api_error"), failed(type=None)]
)
def test_a_402_without_a_card_error_is_unknown(document: object) -> None:
    assert isinstance(charged(402, document), Unknown)


def test_text_of_a_decline_is_made_fit_for_a_row() -> None:
    result = charged(402, failed(**CARD_ERROR | {"message": "\ud800" + "x" * 1000}, decline_code="bad\x00code"))
    assert result == Declined("bad?code", "?" + "x" * 254)


# 400


def test_a_key_that_was_used_with_other_parameters_is_unknown_and_needs_a_review() -> None:
    result = charged(400, failed(type="idempotency_error"))
    assert result == Unknown(
        "HTTP 400 idempotency_error: the key was used with other parameters", at_once=True, is_neutral=True
    )


def test_an_invalid_request_is_declined_with_its_code() -> None:
    document = failed(code="resource_missing", param="payment_method", message="No such PaymentMethod: 'pm_1'")
    assert charged(400, document) == Declined("invalid_request:resource_missing", "No such PaymentMethod: 'pm_1'")
    assert charged(400, failed()) == Declined("invalid_request", "No.")


def test_an_invalid_request_that_left_an_intent_behind_names_it() -> None:
    document = failed(code="parameter_missing", payment_intent=unpaid("requires_confirmation"))
    assert charged(400, document) == Declined("invalid_request:parameter_missing", "No.", "pi_1")


@pytest.mark.parametrize("code", ["testmode_charges_only", "livemode_mismatch", "account_invalid", "api_key_expired"])
def test_an_error_about_our_account_declines_no_payment(code: str) -> None:
    result = charged(400, failed(code=code))
    assert result == Unavailable(f"HTTP 400 invalid_request_error {code}", fault="config")


@pytest.mark.parametrize("document", [b"", PAGE, {}, failed(type="api_error"), failed(type="card_error")])
def test_any_other_400_is_unknown(document: object) -> None:
    assert isinstance(charged(400, document), Unknown)


# Nothing happened


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("document", [b"", PAGE, failed(message="Invalid API Key provided: sk_test_canary")])
def test_a_wrong_key_is_our_configuration_and_is_not_repeated_in_the_reason(status: int, document: object) -> None:
    result = charged(status, document)
    assert isinstance(result, Unavailable)
    assert result.fault == "config"
    assert result.reason.startswith(f"HTTP {status}")
    assert "canary" not in result.reason


@pytest.mark.parametrize("code", ["rate_limit", "lock_timeout", None])
def test_a_429_is_a_limit(code: str | None) -> None:
    result = charged(429, failed(code=code), retry_after="7")
    assert isinstance(result, Unavailable)
    assert (result.fault, result.retry_after) == ("limit", timedelta(seconds=7))


# Unknown


def test_a_key_in_use_is_unknown_because_the_first_call_is_still_running() -> None:
    result = charged(409, failed(type="idempotency_error", code="idempotency_key_in_use"))
    assert result == Unknown("HTTP 409 idempotency_error idempotency_key_in_use", is_neutral=True)


@pytest.mark.parametrize("status", [424, 500, 502, 503, 504, 529])
@pytest.mark.parametrize("document", [b"", PAGE, failed(type="api_error"), failed(**CARD_ERROR), intent()])
@pytest.mark.parametrize("advice", ["true", "false"])
def test_a_5xx_is_unknown_whatever_its_body_and_its_headers_say(status: int, document: object, advice: str) -> None:
    answer = response(status, document, retry_after="1", headers={"stripe-should-retry": advice})
    result = parse_charge_answer(answer, CARD_PAYMENT, now=NOW)
    assert isinstance(result, Unknown)
    assert (result.at_once, result.is_neutral) == (False, False)


@pytest.mark.parametrize("status", [100, 201, 202, 204, 301, 302, 307, 405, 408, 410, 413, 418, 422, 451])
@pytest.mark.parametrize("document", [b"", intent(), failed(**CARD_ERROR)])
def test_every_other_status_is_unknown(status: int, document: object) -> None:
    assert isinstance(charged(status, document), Unknown)


def test_a_reason_names_the_request_at_stripe_and_nothing_that_could_be_a_key() -> None:
    answer = response(500, failed(type="api_error"), headers={"request-id": "req_1aZ"})
    assert parse_charge_answer(answer, CARD_PAYMENT, now=NOW) == Unknown("HTTP 500 api_error (req_1aZ)")
    answer = response(500, failed(type="sk_test_1", code="sk_live_2"), headers={"request-id": "req_1\x07"})
    assert parse_charge_answer(answer, CARD_PAYMENT, now=NOW) == Unknown("HTTP 500")


# Look-ups


def retrieved(status: int, document: object = None) -> LookUpResult | None:
    return parse_retrieved(response(status, document), CARD_PAYMENT, now=NOW)


def test_a_retrieved_intent_counts_as_in_a_charge() -> None:
    assert retrieved(200, intent()) == Approved("pi_1")
    assert retrieved(200, unpaid("requires_action", next_action=ACTION)) == Pending(
        "pi_1", NextAction("https://hooks.stripe.com/3ds")
    )


@pytest.mark.parametrize("status", [400, 402, 409, 422, 424, 500, 503])
def test_an_error_to_a_retrieval_declines_nothing(status: int) -> None:
    for document in (failed(), failed(**CARD_ERROR), failed(type="idempotency_error"), PAGE):
        assert isinstance(retrieved(status, document), Unknown)


def test_an_intent_that_this_account_does_not_have_is_unknown_and_opens_no_circuit() -> None:
    result = retrieved(404, failed(code="resource_missing"))
    assert result == Unknown("HTTP 404 invalid_request_error resource_missing", is_neutral=True)


def test_a_reference_to_the_intent_of_another_payment_needs_a_review() -> None:
    result = retrieved(200, intent(metadata=OURS | {"payment_id": str(uuid4())}))
    assert isinstance(result, Unknown)
    assert result.at_once


EARLIER = OURS | {"attempt_key": "pk-0"}


@pytest.mark.parametrize("status", ["requires_payment_method", "canceled", "requires_confirmation"])
def test_an_earlier_attempt_without_money_says_nothing_about_the_present_key(status: str) -> None:
    assert retrieved(200, unpaid(status, metadata=EARLIER)) is None
    assert paged(listed(unpaid(status, metadata=EARLIER))) == Page(None, None)


@pytest.mark.parametrize("status", ["succeeded", "processing", "requires_action", "requires_capture"])
def test_an_earlier_attempt_that_may_move_money_needs_a_review(status: str) -> None:
    found = intent(status=status, metadata=EARLIER)
    expected = Unknown(f"pi_1 of an earlier key of this payment has the status {status}", at_once=True, is_neutral=True)
    assert retrieved(200, found) == expected
    assert paged(listed(found)) == Page(expected, None)


def paged(document: object, status: int = 200) -> Page | Unavailable | Unknown:
    return parse_page(response(status, document), CARD_PAYMENT, now=NOW)


def test_a_page_is_matched_by_payment_and_key() -> None:
    others = [intent(id=f"pi_{number}", metadata={}) for number in range(3)]
    assert paged(listed(*others, intent())) == Page(Approved("pi_1"), None)
    assert paged(listed(*others)) == Page(None, None)
    assert paged(listed(*others, has_more=True)) == Page(None, "pi_2")
    assert paged(listed()) == Page(None, None)


def test_two_intents_of_one_payment_need_a_review() -> None:
    assert paged(listed(intent(), intent(id="pi_2"))) == Page(
        Unknown("Stripe has 2 PaymentIntents of this payment", at_once=True, is_neutral=True), None
    )


@pytest.mark.parametrize(
    "document",
    [
        b"",
        PAGE,
        {},
        listed(has_more=True),
        listed(None),
        listed({"object": "charge", "id": "ch_1"}),
        listed(intent(id="pi_\x00")),
        listed() | {"object": "charge"},
        listed() | {"has_more": None},
        listed() | {"data": {}},
    ],
)
def test_an_unreadable_page_does_not_say_that_there_is_no_charge(document: object) -> None:
    assert isinstance(paged(document), Unknown)


@pytest.mark.parametrize("status", [201, 400, 402, 409, 500])
def test_an_error_to_a_list_is_unknown(status: int) -> None:
    assert isinstance(paged(listed(), status), Unknown)


@pytest.mark.parametrize(("status", "fault"), [(401, "config"), (403, "config"), (404, "config"), (429, "limit")])
def test_a_list_that_is_not_taken_is_unavailable(status: int, fault: str) -> None:
    result = paged(failed(), status)
    assert isinstance(result, Unavailable)
    assert result.fault == fault


# Amounts


def test_amounts_differ_from_iso_4217_in_three_currencies_only() -> None:
    zero_decimal = set(re.findall(r"\w+", "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF"))
    three_decimal = {"BHD", "JOD", "KWD", "OMR", "TND"}
    for code, currency in NEW_PAYMENTS.items():
        digits = 0 if code in zero_decimal else 3 if code in three_decimal else 2
        if digits == currency.exponent or code in ("CLF", "IQD", "LYD", "UYI", "UYW"):  # Stripe charges none of these
            assert stripe_amount(500, code) == 500
        else:
            assert code in ("ISK", "UGX", "MGA")
    assert (stripe_amount(5, "ISK"), stripe_amount(5, "UGX")) == (500, 500)
    assert (stripe_amount(500, "MGA"), stripe_amount(501, "MGA")) == (5, None)


def test_an_answer_is_compared_in_stripes_own_units() -> None:
    krona = replace(CARD_PAYMENT, amount_minor=5, currency="ISK")
    answered = response(200, intent(amount=500, amount_received=500, currency="isk"))
    assert parse_charge_answer(answered, krona, now=NOW) == Approved("pi_1")
    assert isinstance(parse_charge_answer(response(200, intent(currency="isk")), krona, now=NOW), Unknown)


# Any answer

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 600) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
STATUSES = st.sampled_from([200, 400, 401, 402, 403, 404, 409, 424, 429, 500, 503]) | st.integers(100, 599)
INTENT_STATUSES = [
    "succeeded",
    "processing",
    "requires_action",
    "requires_capture",
    "requires_payment_method",
    "requires_confirmation",
    "canceled",
]
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(INTENT_STATUSES) | JSON,
        "amount": st.sampled_from([440, 441]) | JSON,
        "amount_received": st.sampled_from([440, 0]) | JSON,
        "currency": st.sampled_from(["usd", "eur"]) | JSON,
        "metadata": st.sampled_from([OURS, EARLIER, {}]) | JSON,
        "last_payment_error": st.just(CARD_ERROR) | JSON,
        "next_action": st.just(ACTION) | JSON,
        "object": st.sampled_from(["payment_intent", "charge"]) | JSON,
        "id": st.sampled_from(["pi_1", "ch_1"]) | JSON,
    },
)
INTENTS = CHANGES.map(lambda changes: intent(**changes))
ERRORS = st.fixed_dictionaries(
    {"type": st.sampled_from(["card_error", "invalid_request_error", "idempotency_error", "api_error"]) | JSON},
    optional={
        "code": st.sampled_from(["card_declined", "rate_limit", "account_invalid"]) | JSON,
        "decline_code": st.just("lost_card") | JSON,
        "payment_intent": INTENTS | JSON,
        "message": JSON,
    },
).map(lambda error: {"error": error})
LISTS = st.fixed_dictionaries(
    {
        "object": st.just("list") | JSON,
        "has_more": st.booleans() | JSON,
        "data": st.lists(INTENTS | JSON, max_size=3) | JSON,
    }
)
DOCUMENTS = INTENTS | ERRORS | LISTS | JSON | st.binary(max_size=20)
ANSWERS = st.builds(response, STATUSES, DOCUMENTS)


def _in(document: object, *path: str) -> object:
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    return document


@given(STATUSES, DOCUMENTS)
@settings(max_examples=400, deadline=None)
def test_no_answer_to_a_charge_decides_anything_but_by_the_table(status: int, document: object) -> None:
    result = parse_charge_answer(response(status, document), CARD_PAYMENT, now=NOW)
    at, error = _in(document, "status"), _in(document, "error", "type")
    ours = _in(document, "metadata") == OURS and _in(document, "currency") == "usd"
    match result:
        case Approved():
            assert (status, at, ours) == (200, "succeeded", True)
            assert _in(document, "amount") == _in(document, "amount_received") == 440
        case Pending():
            assert (status, ours) == (200, True)
            assert at in ("requires_action", "processing")
        case Declined():
            if status == 200:
                assert ours
                assert at == "canceled" or (at == "requires_payment_method" and _in(document, "last_payment_error"))
            else:
                assert (status, error) in {(402, "card_error"), (400, "invalid_request_error")}
                assert _in(document, "error", "payment_intent", "status") not in INTENT_STATUSES[:4]
        case Unavailable():
            assert status in (401, 403, 404, 429) or (
                (status, error, _in(document, "error", "code")) == (400, "invalid_request_error", "account_invalid")
            )
        case Unknown():
            assert result.reason


@given(ANSWERS)
@settings(max_examples=400, deadline=None)
def test_no_answer_to_a_look_up_decides_anything_but_by_an_intent_of_ours(answer: HttpResponse) -> None:
    for result in (parse_retrieved(answer, CARD_PAYMENT, now=NOW), parse_page(answer, CARD_PAYMENT, now=NOW)):
        decided = result.found if isinstance(result, Page) else result
        assert not isinstance(decided, NotFound)
        if isinstance(decided, Approved | Pending | Declined) or isinstance(result, Page):
            assert answer.status == 200
        if isinstance(decided, Unavailable):
            assert answer.status in (401, 403, 404, 429)
