"""Captures, voids and refunds at Stripe: the requests, what each answer proves, and the notices about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import stripe
from hypothesis import given, settings
from hypothesis import strategies as st

from okane.operation import Operation, OperationKind
from okane.payment import Status
from okane.providers.base import (
    Approved,
    Authorized,
    Declined,
    NotFound,
    OperationLookUp,
    OperationResult,
    Pending,
    Unavailable,
    Unknown,
)
from okane.providers.base_url import parse_base_url
from okane.providers.stripe.answers import parse_charge_answer
from okane.providers.stripe.operations import (
    RefundPage,
    parse_operation_answer,
    parse_operation_look_up,
    parse_refund_page,
)
from okane.providers.stripe.provider import StripeProvider
from okane.providers.stripe.requests import StripeRequests, charge_form
from okane.providers.stripe.webhook import StripeNoticeParser
from tests.okane.stripe_answers import CARD_PAYMENT, OURS, failed, intent, listed, response, unpaid
from tests.operations import OPERATION
from tests.payments import NOW

REQUESTS = StripeRequests(parse_base_url("https://api.stripe.com"))
KEY = "Authorization: Bearer sk_test_1\r\n"
MANUAL = replace(CARD_PAYMENT, manual_capture=True)
HELD = replace(MANUAL, status=Status.AUTHORIZED, attempt_ref="pi_1")
PAID = replace(CARD_PAYMENT, status=Status.SUCCESS, provider_ref="pi_1")
CAPTURE, VOID = (replace(OPERATION, kind=kind) for kind in (OperationKind.CAPTURE, OperationKind.VOID))
OURS_TOO = {"payment_id": OURS["payment_id"], "operation_id": str(OPERATION.id), "operation_key": "ok-1"}


def refund(**changes: object) -> dict[str, object]:
    """Return a refund that has succeeded, with these changes."""
    made = {"id": "re_1", "object": "refund", "amount": 440, "currency": "usd", "payment_intent": "pi_1"}
    return made | {"metadata": OURS_TOO, "status": "succeeded"} | changes


def told(kind: OperationKind, document: object, status: int = 200) -> list[OperationLookUp]:
    """Return what the answer says about an operation, to its request and to a look-up."""
    operation = replace(OPERATION, kind=kind)
    payment = PAID if kind is OperationKind.REFUND else HELD
    answer = response(status, document)
    return [
        parse_operation_answer(answer, operation, payment, now=NOW),
        parse_operation_look_up(answer, operation, payment, now=NOW),
    ]


# Requests


@pytest.mark.parametrize(
    ("operation", "path", "body"),
    [
        (CAPTURE, "payment_intents/pi_1/capture", "amount_to_capture=440"),
        (VOID, "payment_intents/pi_1/cancel", ""),
        (
            OPERATION,
            "refunds",
            f"payment_intent=pi_1&amount=440&metadata[payment_id]={OPERATION.payment_id}"
            f"&metadata[operation_id]={OPERATION.id}&metadata[operation_key]=ok-1",
        ),
    ],
)
def test_an_operation_is_one_post_under_its_own_key(operation: Operation, path: str, body: str) -> None:
    raw = REQUESTS.operation(operation, "pi_1", key="ok-1", amount=440, authorization=KEY)
    head, _, sent = raw.decode().partition("\r\n\r\n")
    lines = head.split("\r\n")
    assert lines[0] == f"POST /v1/{path} HTTP/1.1"
    assert {"Idempotency-Key: ok-1", f"Content-Length: {len(body)}", "Authorization: Bearer sk_test_1"} <= set(lines)
    assert sent == body


def test_a_manual_charge_asks_for_the_charge_too_and_an_automatic_one_is_as_it_was() -> None:
    automatic = charge_form(CARD_PAYMENT, amount=440, payment_method="pm_card_visa")
    manual = charge_form(MANUAL, amount=440, payment_method="pm_card_visa")
    assert manual == automatic.replace("=automatic&", "=manual&expand[]=latest_charge&")
    assert "expand" not in automatic
    assert REQUESTS.retrieve("pi_1", with_charge=True).startswith(
        "GET /v1/payment_intents/pi_1?expand[]=latest_charge "
    )


async def test_what_stripe_cannot_express_is_never_sent() -> None:
    provider = StripeProvider("http://127.0.0.1:1", api_key=lambda: "sk_test_1", timeout=timedelta(seconds=1))
    async with provider:
        odd = replace(OPERATION, currency="MGA", amount_minor=101)
        assert isinstance(await provider.operate(odd, PAID), Declined)
        nameless = await provider.operate(OPERATION, CARD_PAYMENT)
        assert nameless == await provider.look_up_operation(OPERATION, CARD_PAYMENT, may_execute=True)
        assert isinstance(nameless, Unknown)
        assert nameless.at_once
        with pytest.raises(ValueError, match="visible ASCII"):
            await provider.operate(replace(OPERATION, provider_key="a b"), PAID)


# An authorization


@pytest.mark.parametrize(
    ("charge", "ends"),
    [
        ({"payment_method_details": {"card": {"capture_before": 1767300000}}}, 1767300000),
        ({"payment_method_details": {"card": {"capture_before": -1}}}, 1767225600 + 7 * 86_400),
        ({"payment_method_details": {"card": {}}}, 1767225600 + 7 * 86_400),
        ("ch_1", 1767225600 + 7 * 86_400),
    ],
)
def test_held_money_is_an_authorization_with_an_end(charge: object, ends: int) -> None:
    held = unpaid("requires_capture", amount_capturable=440, latest_charge=charge)
    assert parse_charge_answer(response(200, held), MANUAL, now=NOW) == Authorized(
        "pi_1", datetime.fromtimestamp(ends, UTC)
    )


@pytest.mark.parametrize("payment", [CARD_PAYMENT, MANUAL])
def test_money_that_is_held_without_being_asked_for_or_in_part_needs_a_review(payment: object) -> None:
    amount = 440 if payment is CARD_PAYMENT else 439
    held = response(200, unpaid("requires_capture", amount_capturable=amount))
    result = parse_charge_answer(held, payment, now=NOW)  # type: ignore[arg-type] # it is one
    assert isinstance(result, Unknown)
    assert result.at_once


# Captures and voids: by the intent's status


def test_a_captured_intent_proves_the_capture_and_declines_the_void() -> None:
    assert told(OperationKind.CAPTURE, intent()) == [Approved("pi_1")] * 2
    for result in told(OperationKind.VOID, intent()):
        assert isinstance(result, Declined)
        assert result.code == "already_captured"


def test_a_canceled_intent_proves_the_void_and_declines_the_capture() -> None:
    canceled = unpaid("canceled", cancellation_reason="automatic")
    assert told(OperationKind.VOID, canceled) == [Approved("pi_1")] * 2
    assert told(OperationKind.CAPTURE, canceled) == [Declined("authorization_ended", "automatic")] * 2


@pytest.mark.parametrize("kind", [OperationKind.CAPTURE, OperationKind.VOID])
def test_an_intent_that_still_holds_the_money_was_neither(kind: OperationKind) -> None:
    answered, looked_up = told(kind, unpaid("requires_capture", amount_capturable=440))
    assert isinstance(answered, Unknown)
    assert looked_up == NotFound()


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_received": 439},
        {"amount_received": True},
        {"amount_received": None},
        {"id": "pi_2"},
        {"currency": "eur"},
        {"metadata": {"payment_id": "another"}},
        {"metadata": None},
        {"object": "charge"},
        {"status": "canceled"},
    ],
)
def test_another_capture_than_ours_needs_a_review(changes: Mapping[str, object]) -> None:
    for result in told(OperationKind.CAPTURE, intent(**changes)):
        assert isinstance(result, Unknown)
        assert result.at_once


@pytest.mark.parametrize("kind", [OperationKind.CAPTURE, OperationKind.VOID])
def test_an_unexpected_state_is_what_its_intent_says(kind: OperationKind) -> None:
    error = failed(code="payment_intent_unexpected_state", payment_intent=intent())
    result = told(kind, error, 400)[0]
    assert isinstance(result, Approved if kind is OperationKind.CAPTURE else Declined)
    held = failed(code="payment_intent_unexpected_state", payment_intent=unpaid("requires_capture"))
    assert isinstance(told(kind, held, 400)[0], Unknown)
    assert isinstance(told(kind, failed(code="payment_intent_unexpected_state"), 400)[0], Unknown)


# Refunds: by the refund with our operation in its metadata


@pytest.mark.parametrize(
    ("status", "result"),
    [
        ("succeeded", Approved("re_1")),
        ("pending", Pending("re_1")),
        ("requires_action", Pending("re_1")),
        ("failed", Declined("lost_or_stolen_card", "refund failed", "re_1")),
        ("canceled", Declined("lost_or_stolen_card", "refund canceled", "re_1")),
    ],
)
def test_a_refund_is_what_its_status_says(status: str, result: OperationResult) -> None:
    made = refund(status=status, failure_reason="lost_or_stolen_card")
    assert told(OperationKind.REFUND, made) == [result] * 2
    page = parse_refund_page(response(200, listed(refund(metadata={}), made)), OPERATION, PAID, now=NOW)
    assert page == RefundPage(result, None)


@pytest.mark.parametrize(
    "changes",
    [{"amount": 439}, {"amount": 440.0}, {"currency": "eur"}, {"payment_intent": "pi_2"}, {"metadata": {}}, {"id": ""}],
)
def test_another_refund_than_ours_needs_a_review(changes: Mapping[str, object]) -> None:
    for result in told(OperationKind.REFUND, refund(**changes)):
        assert isinstance(result, Unknown)
        assert result.at_once


@pytest.mark.parametrize(
    ("earlier", "found"),
    [
        ("failed", Approved("re_1")),
        ("canceled", Approved("re_1")),
        ("succeeded", None),
        ("pending", None),
        (None, None),
    ],
)
def test_a_refund_from_before_a_manual_retry_counts_only_if_it_may_move_money(
    earlier: str | None, found: Approved | None
) -> None:
    before = refund(id="re_0", status=earlier, metadata=OURS_TOO | {"operation_key": "ok-0"})
    for refunds in ([refund(), before], [before, refund()]):
        page = parse_refund_page(response(200, listed(*refunds)), OPERATION, PAID, now=NOW)
        assert isinstance(page, RefundPage)
        if found is not None:
            assert page.found == found
        else:
            assert isinstance(page.found, Unknown)
            assert page.found.at_once
    dead = parse_refund_page(response(200, listed(before | {"status": "failed"})), OPERATION, PAID, now=NOW)
    assert dead == RefundPage(None, None)


def test_only_a_list_of_refunds_read_to_its_end_says_not_here() -> None:
    def page(document: object, status: int = 200) -> object:
        return parse_refund_page(response(status, document), OPERATION, PAID, now=NOW)

    other = refund(metadata={})
    assert page(listed()) == RefundPage(None, None)
    assert page(listed(other)) == RefundPage(None, None)
    assert page(listed(other, has_more=True)) == RefundPage(None, "re_1")
    twice = page(listed(refund(), refund(id="re_2")))
    assert isinstance(twice, RefundPage)
    assert isinstance(twice.found, Unknown)
    wrong: list[object] = [listed(intent()), {"object": "list"}, listed(has_more=True), []]
    for unreadable in wrong:
        assert isinstance(page(unreadable), Unknown)
    assert isinstance(page(failed(), 401), Unavailable)
    assert isinstance(page(failed(), 404), Unavailable)
    assert isinstance(page(failed(), 500), Unknown)
    for status in (400, 404):  # the circuit breaker must not open for the payments of this account
        missing = page(failed(code="resource_missing"), status)
        assert missing == Unknown(f"HTTP {status} invalid_request_error resource_missing", is_neutral=True)


@pytest.mark.parametrize(
    ("status", "error", "result"),
    [
        (400, {"code": "charge_already_refunded"}, Declined("invalid_request:charge_already_refunded", "No.")),
        (
            400,
            {"code": "charge_already_captured"},
            Unknown("HTTP 400 invalid_request_error charge_already_captured", is_neutral=True),
        ),
        (400, {"code": "amount_too_large"}, Declined("invalid_request:amount_too_large", "No.")),
        (402, {"type": "card_error", "code": "expired_card"}, Declined("expired_card", "No.")),
        (
            400,
            {"code": "account_invalid"},
            Unavailable("HTTP 400 invalid_request_error account_invalid", None, "config"),
        ),
        (401, {}, Unavailable("HTTP 401 invalid_request_error", None, "config")),
        (429, {}, Unavailable("HTTP 429 invalid_request_error", None, "limit")),
        (
            404,
            {"code": "resource_missing"},
            Unknown("HTTP 404 invalid_request_error resource_missing", is_neutral=True),
        ),
        (409, {}, Unknown("HTTP 409 invalid_request_error", is_neutral=True)),
        (500, {}, Unknown("HTTP 500 invalid_request_error")),
        (402, {}, Unknown("HTTP 402 invalid_request_error")),
    ],
)
def test_an_error_decides_only_by_the_table(status: int, error: Mapping[str, object], result: OperationLookUp) -> None:
    assert told(OperationKind.REFUND, failed(**error), status)[0] == result


def test_a_key_with_other_parameters_needs_a_review() -> None:
    result = told(OperationKind.REFUND, failed(type="idempotency_error"), 400)[0]
    assert isinstance(result, Unknown)
    assert result.at_once


VALUES: st.SearchStrategy[object] = (
    st.none() | st.booleans() | st.integers(-1, 500) | st.sampled_from(["pi_1", "re_1", "usd", "x", ""]) | st.just({})
)
STATES = st.sampled_from(["requires_capture", "succeeded", "canceled", "processing", "failed", "pending"])
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "object": st.sampled_from(["payment_intent", "refund"]) | VALUES,
        "id": st.sampled_from(["pi_1", "re_1"]) | VALUES,
        "status": STATES | VALUES,
        "amount": st.just(440) | VALUES,
        "amount_received": st.sampled_from([0, 440]) | VALUES,
        "currency": st.just("usd") | VALUES,
        "payment_intent": st.just("pi_1") | VALUES,
        "metadata": st.just(OURS_TOO) | VALUES,
    },
)


@given(kind=st.sampled_from(OperationKind), status=st.just(200) | st.integers(200, 599), document=OBJECTS)
@settings(max_examples=400, deadline=None)
def test_nothing_but_our_own_object_decides_anything(
    kind: OperationKind, status: int, document: Mapping[str, object]
) -> None:
    for result in told(kind, document, status):
        if not isinstance(result, Approved | Pending | Declined | NotFound):
            continue
        assert status == 200
        metadata = document["metadata"]
        assert isinstance(metadata, dict)
        assert metadata["payment_id"] == OURS["payment_id"]
        assert document["currency"] == "usd"
        if isinstance(result, Approved) and kind is OperationKind.REFUND:
            assert (document["object"], document["status"], document["amount"]) == ("refund", "succeeded", 440)
        elif isinstance(result, Approved) and kind is OperationKind.CAPTURE:
            assert (document["status"], document["amount_received"]) == ("succeeded", 440)
        elif isinstance(result, Approved):
            assert document["status"] == "canceled"
            assert not document.get("amount_received")


# Notices


@pytest.mark.parametrize(
    ("kind", "status", "is_refusal"),
    [
        ("refund.created", "succeeded", False),
        ("refund.created", "pending", False),
        ("refund.updated", "failed", True),
        ("refund.failed", "failed", True),
        ("charge.refund.updated", "canceled", True),
    ],
)
def test_a_notice_about_a_refund_names_its_operation_and_says_if_no_money_moved(
    kind: str, status: str, is_refusal: bool
) -> None:
    body = json.dumps({"id": "evt_1", "object": "event", "type": kind, "data": {"object": refund(status=status)}})
    at = datetime(2026, 1, 1, 12, tzinfo=UTC)
    header = stripe.WebhookSignature.generate_signature_header(body, "whsec_1", int(at.timestamp()))
    [notice] = StripeNoticeParser(lambda: ["whsec_1"])({"stripe-signature": str(header)}, body.encode(), now=at)
    assert (notice.payment_id, notice.operation_id) == (OPERATION.payment_id, OPERATION.id)
    assert (notice.provider_ref, notice.is_refusal) == ("pi_1", is_refusal)
