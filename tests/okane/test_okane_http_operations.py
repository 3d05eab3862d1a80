"""Operations in okane's own protocol: the requests, and what each answer proves."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okane.http.connection import HttpResponse
from okane.operation import OperationKind
from okane.payment import Status
from okane.providers.base import (
    Approved,
    Authorized,
    Capability,
    Declined,
    NotFound,
    OperationLookUp,
    Pending,
    Unavailable,
    Unknown,
)
from okane.providers.okane_http.answer_parser import parse_charge_answer, parse_look_up_answer
from okane.providers.okane_http.operation_answers import parse_operation_answer, parse_operation_look_up
from okane.providers.okane_http.provider import OkaneHttpProvider
from tests.okane.provider_server import answer, client, raw_server
from tests.operations import OPERATION
from tests.payments import NOW, PAYMENT

MANUAL = replace(PAYMENT, manual_capture=True)
SUCCEEDED = {"kind": "refund", "provider_ref": "re_1", "status": "succeeded", "amount": 440, "currency": "USD"}
ENDS = "2026-01-08T00:00:00+01:00"


def response(status: int, body: object) -> HttpResponse:
    return HttpResponse(status, json.dumps(body).encode(), None)


async def test_an_operation_is_one_post_under_its_own_key() -> None:
    told = answer(200, json.dumps(SUCCEEDED).encode())
    async with raw_server(told) as server, client(server.base_url + "/v2/") as provider:
        assert await provider.operate(OPERATION, PAYMENT) == Approved("re_1")
        assert await provider.look_up_operation(OPERATION, PAYMENT, may_execute=True) == Approved("re_1")
    sent, look_up = server.requests
    head, _, body = sent.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v2/operations HTTP/1.1\r\n")
    assert b"\r\nIdempotency-Key: ok-1\r\n" in head + b"\r\n"
    assert json.loads(body) == {
        "kind": "refund",
        "charge": "pk-1",
        "operation_id": str(OPERATION.id),
        "payment_id": str(PAYMENT.id),
        "amount": 440,
        "currency": "USD",
    }
    assert look_up.startswith(b"GET /v2/operations/ok-1 HTTP/1.1\r\n")


async def test_a_manual_charge_says_so_and_an_automatic_one_is_as_it_was() -> None:
    held = json.dumps({"provider_ref": "ch_1", "status": "authorized"}).encode()
    async with raw_server(answer(200, held)) as server, client(server.base_url) as provider:
        assert await provider.charge(MANUAL) == Authorized("ch_1")
        assert isinstance(await provider.charge(PAYMENT), Unknown)
    manual, automatic = (json.loads(one.partition(b"\r\n\r\n")[2]) for one in server.requests)
    assert manual == automatic | {"capture": "manual"}


@pytest.mark.parametrize(
    ("kind", "amount", "lacks"),
    [
        (OperationKind.CAPTURE, 440, "manual_capture"),
        (OperationKind.CAPTURE, 439, "partial_capture"),
        (OperationKind.VOID, 440, "void"),
        (OperationKind.REFUND, 440, "refund"),
        (OperationKind.REFUND, 1, "partial_refund"),
    ],
)
async def test_what_a_provider_cannot_do_is_declined_without_a_call(
    kind: OperationKind, amount: int, lacks: Capability
) -> None:
    every: frozenset[Capability] = frozenset({"manual_capture", "partial_capture", "void", "refund", "partial_refund"})
    provider = OkaneHttpProvider("http://127.0.0.1:1", timeout=timedelta(seconds=1), capabilities=every - {lacks})
    async with provider:
        result = await provider.operate(
            replace(OPERATION, kind=kind, amount_minor=amount), replace(PAYMENT, status=Status.SUCCESS)
        )
        assert isinstance(result, Declined)
        assert (result.code, lacks in result.message) == ("unsupported_operation", True)
        if lacks == "manual_capture":
            assert isinstance(await provider.charge(MANUAL), Declined)


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (200, SUCCEEDED, Approved("re_1")),
        (200, SUCCEEDED | {"status": "pending"}, Pending("re_1")),
        (200, SUCCEEDED | {"status": "failed", "code": "no_account"}, Declined("no_account")),
        (200, SUCCEEDED | {"amount": 439}, Unknown("the provider answered for 439, not 440", at_once=True)),
        (200, SUCCEEDED | {"amount": True}, Unknown("the provider answered for another operation", at_once=True)),
        (200, SUCCEEDED | {"currency": "EUR"}, Unknown("the provider answered for another operation", at_once=True)),
        (200, SUCCEEDED | {"kind": "void"}, Unknown("the provider answered for another operation", at_once=True)),
        (200, SUCCEEDED | {"provider_ref": ""}, Unknown("200 without a usable provider_ref")),
        (200, {"status": "succeeded"}, Unknown("unreadable 200 about an operation")),
        (200, [], Unknown("unreadable 200 about an operation")),
        (429, {}, Unavailable("HTTP 429", fault="limit")),
        (503, {}, Unavailable("HTTP 503")),
        (500, {}, Unknown("HTTP 500")),
        (405, {}, Unknown("HTTP 405")),
    ],
)
def test_an_answer_about_an_operation_proves_only_what_it_says(
    status: int, body: object, result: OperationLookUp
) -> None:
    assert parse_operation_answer(response(status, body), OPERATION, now=NOW) == result
    assert parse_operation_look_up(response(status, body), OPERATION, now=NOW) == result


def test_a_refusal_declines_and_only_the_contracts_404_says_not_found() -> None:
    refused = response(422, {"code": "refund_exceeds_captured", "message": "no"})
    assert parse_operation_answer(refused, OPERATION, now=NOW) == Declined("refund_exceeds_captured", "no")
    absent = response(404, {"code": "operation_not_found"})
    assert parse_operation_look_up(absent, OPERATION, now=NOW) == NotFound()
    for body in (b"<html>", b'{"code": "route_not_found"}'):
        assert isinstance(parse_operation_look_up(HttpResponse(404, body, None), OPERATION, now=NOW), Unknown)
        assert isinstance(parse_operation_answer(HttpResponse(404, body, None), OPERATION, now=NOW), Unknown)
    no_charge = parse_operation_answer(response(404, {"code": "charge_not_found"}), OPERATION, now=NOW)
    assert isinstance(no_charge, Declined)


@pytest.mark.parametrize(
    ("told", "ends"),
    [
        (ENDS, datetime(2026, 1, 7, 23, tzinfo=UTC)),
        ("2026-01-08T00:00:00", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("soon", None),
        (7, None),
        (None, None),
    ],
)
def test_the_end_of_an_authorization_is_taken_if_it_is_a_time(told: object, ends: datetime | None) -> None:
    body = {"provider_ref": "ch_1", "status": "authorized", "amount": 440, "currency": "USD", "capture_before": told}
    assert parse_charge_answer(response(200, body), MANUAL, now=NOW) == Authorized("ch_1", ends)
    assert parse_look_up_answer(response(200, body), MANUAL, now=NOW) == Authorized("ch_1", ends)


def test_an_authorization_that_is_gone_declines_the_charge_that_is_looked_up() -> None:
    body = {"provider_ref": "ch_1", "status": "voided", "amount": 440, "currency": "USD"}
    found = parse_look_up_answer(response(200, body), MANUAL, now=NOW)
    assert isinstance(found, Declined)
    assert found.code == "voided"
    part = body | {"status": "captured", "amount_captured": 100}
    assert isinstance(parse_look_up_answer(response(200, part), MANUAL, now=NOW), Unknown)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=8), one, max_size=3),
    max_leaves=8,
)
LIKE_AN_ANSWER = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(["refund", "void"]) | JSON,
        "status": st.sampled_from(["succeeded", "pending", "failed"]) | JSON,
        "amount": st.sampled_from([440, 439]) | JSON,
        "currency": st.sampled_from(["USD", "EUR"]) | JSON,
        "provider_ref": st.just("re_1") | JSON,
        "code": JSON,
    },
)


@given(status=st.sampled_from([200, 404, 422, 503]) | st.integers(200, 599), body=LIKE_AN_ANSWER | JSON)
def test_nothing_but_the_operation_itself_is_approved(status: int, body: object) -> None:
    for result in (
        parse_operation_answer(response(status, body), OPERATION, now=NOW),
        parse_operation_look_up(response(status, body), OPERATION, now=NOW),
    ):
        if isinstance(result, Approved | Pending):
            assert isinstance(body, dict)
            assert (status, body["kind"], body["amount"], body["currency"]) == (200, "refund", 440, "USD")
