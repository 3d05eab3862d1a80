"""Captures, voids and refunds at PayU: what each answer proves, and what is refused before any call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from okane.http.connection import HttpResponse
from okane.operation import OperationKind
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
from okane.providers.payu.answers import parse_look_up_answer
from okane.providers.payu.operation_answers import (
    parse_order_change,
    parse_order_state,
    parse_refund_answer,
    parse_refund_list,
)
from okane.providers.payu.provider import PayuProvider
from okane.providers.payu.requests import refund_body
from tests.okane.payu_orders import act, failure, payu, token_act
from tests.okane.provider_server import raw_server
from tests.operations import OPERATION
from tests.payments import NOW, PAYMENT

ORDER_ID = "WZHF5FFDRJ140731GUEST000P01"
HELD = replace(PAYMENT, currency="PLN", manual_capture=True, status=Status.AUTHORIZED, attempt_ref=ORDER_ID)
REFUND = replace(OPERATION, currency="PLN")
CAPTURE, VOID = (replace(REFUND, kind=kind) for kind in (OperationKind.CAPTURE, OperationKind.VOID))
SUCCESS = {"statusCode": "SUCCESS"}


def response(status: int, body: object) -> HttpResponse:
    return HttpResponse(status, json.dumps(body).encode(), None)


def order(**changes: object) -> dict[str, object]:
    shown = {"orderId": ORDER_ID, "extOrderId": PAYMENT.provider_key, "totalAmount": "440", "currencyCode": "PLN"}
    return {"status": SUCCESS, "orders": [shown | {"status": "COMPLETED"} | changes]}


def refund(**changes: object) -> dict[str, object]:
    made = {"refundId": "5000000142", "extRefundId": "ok-1", "amount": "440", "currencyCode": "PLN"}
    return made | {"status": "FINALIZED"} | changes


def made(**changes: object) -> dict[str, object]:
    return {"orderId": ORDER_ID, "status": SUCCESS, "refund": refund(**changes)}


def test_a_paid_order_that_waits_is_an_authorization_only_where_one_was_asked_for() -> None:
    waiting = response(200, order(status="WAITING_FOR_CONFIRMATION"))
    assert parse_look_up_answer(waiting, HELD, ORDER_ID, now=NOW) == Authorized(ORDER_ID)
    automatic = replace(HELD, manual_capture=None)
    assert parse_look_up_answer(waiting, automatic, ORDER_ID, now=NOW) == Pending(ORDER_ID)


@pytest.mark.parametrize(
    ("status", "captured", "voided"),
    [
        ("COMPLETED", Approved, Declined),
        ("CANCELED", Declined, Approved),
        ("WAITING_FOR_CONFIRMATION", NotFound, NotFound),
        ("PENDING", Unknown, Unknown),
        (None, Unknown, Unknown),
    ],
)
def test_a_capture_or_void_is_what_the_order_says(status: object, captured: type, voided: type) -> None:
    answer = response(200, order(status=status))
    assert isinstance(parse_order_state(answer, CAPTURE, HELD, ORDER_ID, now=NOW), captured)
    assert isinstance(parse_order_state(answer, VOID, HELD, ORDER_ID, now=NOW), voided)


@pytest.mark.parametrize(
    "changes", [{"totalAmount": "439"}, {"currencyCode": "EUR"}, {"extOrderId": "x"}, {"orderId": "x"}]
)
def test_another_order_proves_nothing(changes: Mapping[str, object]) -> None:
    answer = response(200, order(**changes))
    for operation in (CAPTURE, VOID):
        assert isinstance(parse_order_state(answer, operation, HELD, ORDER_ID, now=NOW), Unknown)


def test_an_order_is_captured_as_a_whole_or_not_at_all() -> None:
    part = replace(CAPTURE, amount_minor=439)
    found = parse_order_state(response(200, order()), part, HELD, ORDER_ID, now=NOW)
    assert isinstance(found, Unknown)
    assert found.at_once


@pytest.mark.parametrize(
    ("status", "result"),
    [
        ("FINALIZED", Approved("5000000142")),
        ("PENDING", Pending("5000000142")),
        ("CANCELED", Declined("canceled", "PayU canceled the refund", "5000000142")),
        ("NEW", Unknown("refund with status 'NEW'")),
    ],
)
def test_a_refund_is_what_its_status_says(status: str, result: OperationResult) -> None:
    assert parse_refund_answer(response(200, made(status=status)), REFUND, now=NOW) == result
    listed = response(200, {"refunds": [refund(extRefundId="other"), refund(status=status, amount=440)]})
    assert parse_refund_list(listed, REFUND, now=NOW) == result


@pytest.mark.parametrize(
    "changes", [{"amount": "439"}, {"amount": 440.0}, {"currencyCode": "EUR"}, {"extRefundId": "x"}]
)
def test_another_refund_is_never_approved(changes: Mapping[str, object]) -> None:
    assert isinstance(parse_refund_answer(response(200, made(**changes)), REFUND, now=NOW), Unknown)


def test_only_a_whole_list_says_that_there_is_no_refund() -> None:
    def listed(body: object, status: int = 200) -> OperationLookUp:
        return parse_refund_list(response(status, body), REFUND, now=NOW)

    assert listed({"refunds": []}) == NotFound()
    assert listed({"refunds": [refund(extRefundId=None)]}) == NotFound()
    for unreadable in ({}, {"refunds": None}, {"refunds": [1]}):
        assert isinstance(listed(unreadable), Unknown)
    twice = listed({"refunds": [refund(), refund(refundId="2")]})
    assert isinstance(twice, Unknown)
    assert twice.at_once
    assert isinstance(listed({}, 500), Unknown)
    assert isinstance(listed({}, 401), Unavailable)


@pytest.mark.parametrize(("status", "is_found"), [("CANCELED", True), ("FINALIZED", False), ("PENDING", False)])
def test_a_refund_from_before_a_manual_retry_counts_only_if_it_may_move_money(status: str, is_found: bool) -> None:
    retried = replace(REFUND, provider_key=f"{REFUND.id}:7")
    before = refund(refundId="1", extRefundId=str(REFUND.id), status=status)
    body = {"refunds": [refund(extRefundId=retried.provider_key), before]}
    found = parse_refund_list(response(200, body), retried, now=NOW)
    if is_found:
        assert found == Approved("5000000142")
    else:
        assert isinstance(found, Unknown)
        assert found.at_once


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (400, {"status": {"statusCode": "ERROR_X"}}, Declined("refused:ERROR_X", "PayU refused the refund")),
        (400, {}, Unknown("HTTP 400")),
        (404, {"status": {"statusCode": "DATA_NOT_FOUND"}}, Unknown("HTTP 404 DATA_NOT_FOUND", is_neutral=True)),
        (401, {"status": {"statusCode": "UNAUTHORIZED"}}, Unavailable("HTTP 401 UNAUTHORIZED", fault="config")),
        (429, {}, Unavailable("HTTP 429", fault="limit")),
        (500, {}, Unknown("HTTP 500")),
        (200, {}, Unknown("unreadable 200 to a refund")),
    ],
)
def test_an_error_decides_only_by_the_table(status: int, body: object, result: OperationResult) -> None:
    assert parse_refund_answer(response(status, body), REFUND, now=NOW) == result


@pytest.mark.parametrize(
    ("status", "code", "result"),
    [
        (200, "SUCCESS", Pending),
        (200, "ERROR_VALUE_INVALID", Declined),
        (500, "SUCCESS", Unknown),
        (429, "X", Unavailable),
    ],
)
def test_an_answer_to_a_capture_is_only_a_first_word(status: int, code: str, result: type) -> None:
    answer = response(status, {"status": {"statusCode": code}})
    assert isinstance(parse_order_change(answer, CAPTURE, ORDER_ID, now=NOW), result)


def test_a_refund_names_its_key_and_its_amount() -> None:
    assert json.loads(refund_body(REFUND)) == {
        "refund": {
            "description": f"Refund {REFUND.id}",
            "amount": "440",
            "currencyCode": "PLN",
            "extRefundId": "ok-1",
        }
    }


async def test_what_a_shop_cannot_do_is_declined_without_a_call() -> None:
    def shop(*, automatic: bool) -> PayuProvider:
        return PayuProvider(
            pos_id="1",
            client_id="1",
            client_secret=lambda: "s",
            base_url="http://127.0.0.1:1",
            timeout=timedelta(seconds=1),
            automatic_collection=automatic,
        )

    async with shop(automatic=True) as provider:
        assert isinstance(await provider.charge(HELD), Declined)
        assert isinstance(await provider.operate(CAPTURE, HELD), Declined)
        assert isinstance(await provider.operate(VOID, HELD), Declined)
        paid = replace(HELD, status=Status.SUCCESS, provider_ref=ORDER_ID)
        assert isinstance(await provider.operate(REFUND, paid), Unavailable)
    async with shop(automatic=False) as provider:
        assert isinstance(await provider.charge(replace(HELD, manual_capture=None)), Declined)
        for amount in (439, 441):
            assert isinstance(await provider.operate(replace(CAPTURE, amount_minor=amount), HELD), Declined)
        assert isinstance(await provider.operate(CAPTURE, HELD), Unavailable)
        nameless = await provider.look_up_operation(REFUND, PAYMENT, may_execute=True)
        assert isinstance(nameless, Unknown)
        assert nameless.at_once


@pytest.mark.parametrize(
    ("listed", "status", "result"),
    [
        ([], 200, Declined("refused:ERROR_X", "PayU refused the refund")),
        ([refund()], 200, Approved("5000000142")),  # the first one arrived after all
        ([refund(status="PENDING")], 200, Pending("5000000142")),
        ([], 500, Unknown("HTTP 500 SUCCESS")),
        ([], 429, Unknown("declined, and not looked up: HTTP 429")),
    ],
)
async def test_a_refund_that_is_refused_may_have_been_executed_before(
    listed: object, status: int, result: OperationResult
) -> None:
    acts = (token_act(), act(400, failure("ERROR_X")), act(status, {"status": SUCCESS, "refunds": listed}))
    paid = replace(HELD, status=Status.SUCCESS, provider_ref=ORDER_ID)
    async with raw_server(*acts) as server, payu(server.base_url) as provider:
        assert await provider.operate(REFUND, paid) == result
    assert len(server.requests) == 3


VALUES: st.SearchStrategy[object] = st.none() | st.integers(0, 500) | st.sampled_from(["440", "PLN", "ok-1", "x"])
REFUNDS = st.fixed_dictionaries(
    {},
    optional={
        "refundId": st.just("1") | VALUES,
        "extRefundId": st.just("ok-1") | VALUES,
        "amount": st.sampled_from(["440", 440]) | VALUES,
        "currencyCode": st.just("PLN") | VALUES,
        "status": st.sampled_from(["FINALIZED", "PENDING", "CANCELED"]) | VALUES,
    },
)


@given(status=st.just(200) | st.integers(200, 599), found=REFUNDS)
@settings(max_examples=200, deadline=None)
def test_nothing_but_our_own_refund_decides_anything(status: int, found: Mapping[str, object]) -> None:
    for result in (
        parse_refund_answer(response(status, {"status": SUCCESS, "refund": found}), REFUND, now=NOW),
        parse_refund_list(response(status, {"status": SUCCESS, "refunds": [found]}), REFUND, now=NOW),
    ):
        if isinstance(result, Approved | Pending):
            assert status in (200, 201)
            assert (found["extRefundId"], str(found["amount"]), found["currencyCode"]) == ("ok-1", "440", "PLN")
