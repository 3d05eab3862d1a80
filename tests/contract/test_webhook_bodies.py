"""The bodies that endpoints receive are those of the document's `webhooks` section: no member more, and none unknown."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import pytest

from okane.payment import Status
from okane.store.webhook_events import DisputeSnapshot, EventRow, LoggedEvent, ReportedOperation
from okane.webhooks import payload
from okane.webhooks.types import API_VERSION, EventType, type_of_change
from tests.contract.answers import the_document, validator

AT = datetime(2026, 12, 1, 12, 0, 0, 250_000, tzinfo=UTC)
PAYMENT_ID = UUID("0198c0de-0000-7000-8000-000000000001")
# Those that report an operation, each with the event of the payment's history.
OPERATIONS = {
    EventType.SUCCEEDED: ("capture", "captured"),
    EventType.CAPTURE_FAILED: ("capture", "capture_failed"),
    EventType.REFUND_SUCCEEDED: ("refund", "refunded"),
    EventType.REFUND_FAILED: ("refund", "refund_failed"),
}
STATUSES = {type_of_change("any", status): status for status in Status if type_of_change("any", status) is not None}
OF_PAYMENTS = [one for one in EventType if not one.is_of_endpoint]
OF_ENDPOINTS = [one for one in EventType if one.is_of_endpoint]


@dataclass(frozen=True, slots=True)
class Format:
    payload: Literal["snapshot", "thin"] = "snapshot"
    api_version: str = API_VERSION


def row(type_: EventType, **more: Any) -> EventRow:
    members: dict[str, Any] = {
        "status": STATUSES.get(type_, Status.PENDING).value,
        "attempts": 1,
        "reason": None,
        "decline_code": None,
        "amount_minor": 440,
        "currency": "USD",
        "idempotency_key": "demo-key-1",
        "created_at": AT,
        "metadata": {},
    }
    return EventRow(event=LoggedEvent(7, "acme", PAYMENT_ID, 2, type_.value, AT), **members | more)


def reported(type_: EventType, **more: Any) -> ReportedOperation:
    kind, event = OPERATIONS[type_]
    members: dict[str, Any] = {"idempotency_key": "r-1", "reason": None, "decline_code": "expired", "metadata": {}}
    return ReportedOperation(id=UUID(int=9), kind=kind, event=event, amount_minor=40, created_at=AT, **members | more)


def schema_of(type_: EventType) -> str:
    operation = the_document()["webhooks"][type_.value]["post"]
    return json.dumps(operation["requestBody"]["content"]["application/json"]["schema"])


def check(type_: EventType, body: bytes) -> Any:
    document = json.loads(body)
    validator(schema_of(type_)).validate(document)
    return document


def test_every_type_is_described_and_no_other() -> None:
    assert set(the_document()["webhooks"]) == {one.value for one in EventType}


@pytest.mark.parametrize("type_", OF_PAYMENTS)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"metadata": {"order": "4711", "name": 'ü𝄞 " \\ \u2028'}},
        {"reason": "the provider says no", "decline_code": "stolen_card", "attempts": 0},
        {"metadata": {f"n{number}": "𝄞" * 500 for number in range(50)}},
    ],
)
def test_a_snapshot_is_as_described(type_: EventType, more: dict[str, Any]) -> None:
    document = check(type_, payload.body(row(type_, **more), Format()))
    payment = document["data"]["payment"]
    assert ("metadata" in payment) != ("metadata_omitted" in payment)


@pytest.mark.parametrize("type_", OF_PAYMENTS)
def test_a_thin_body_is_as_described(type_: EventType) -> None:
    document = check(type_, payload.body(row(type_), Format("thin")))
    assert document["data"]["payment"] == {"id": str(PAYMENT_ID), "version": 2}


@pytest.mark.parametrize("type_", OPERATIONS)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"metadata": None, "idempotency_key": None},
        {"metadata": {"name": 'ü𝄞 " \\ \u2028'}, "reason": 'it "broke"'},
    ],
)
def test_the_outcome_of_an_operation_is_as_described(type_: EventType, more: dict[str, Any]) -> None:
    one = row(type_, operation=reported(type_, **more), reason="refused")
    data = check(type_, payload.body(one, Format()))["data"]
    thin = check(type_, payload.body(one, Format("thin")))["data"]
    if type_ is EventType.SUCCEEDED:
        assert data["payment"]["amount_captured"] == 40
        assert set(data) == set(thin) == {"payment"}
        return
    [name] = set(data) - {"payment"}
    assert name == ("capture" if type_ is EventType.CAPTURE_FAILED else "refund")
    assert thin[name] == {"id": str(UUID(int=9))}
    assert data[name]["status"] == ("success" if type_ is EventType.REFUND_SUCCEEDED else "failed_final")
    assert ("metadata" in data[name]) != ("metadata_omitted" in data[name])
    # The payment itself was not declined.
    assert {"reason", "decline_code"}.isdisjoint(data["payment"])
    assert (data[name]["last_error"], data[name]["decline_code"]) == ("refused", "expired")


@pytest.mark.parametrize("kind", ["refund", "capture", "void"])
@pytest.mark.parametrize(
    ("type_", "event", "status"),
    [
        (EventType.LATE_RESULT, "late_result", "needs_review"),
        (EventType.REVIEW_REQUIRED, "late_result", "needs_review"),
        (EventType.REVIEW_REQUIRED, "needs_review", "failed_final"),
    ],
)
def test_a_late_result_of_an_operation_has_the_operation_beside_the_payment(
    type_: EventType, event: str, status: str, kind: str
) -> None:
    operation = replace(reported(EventType.REFUND_SUCCEEDED, decline_code=None), kind=kind, event=event)
    one = row(type_, operation=operation, reason="late success")
    data = check(type_, payload.body(one, Format()))["data"]
    assert set(data) == {"payment", kind}
    assert (data[kind]["id"], data[kind]["status"], data[kind]["amount"]) == (str(UUID(int=9)), status, 40)
    assert data[kind]["last_error"] == data["payment"]["reason"] == "late success"
    thin = check(type_, payload.body(one, Format("thin")))["data"]
    assert thin[kind] == {"id": str(UUID(int=9))}


@pytest.mark.parametrize("type_", [EventType.DISPUTE_OPENED, EventType.DISPUTE_CLOSED])
@pytest.mark.parametrize("more", [{}, {"reason": 'it "broke"', "due_by": AT}])
def test_a_dispute_is_beside_its_payment_as_described(type_: EventType, more: dict[str, Any]) -> None:
    members: dict[str, Any] = {"reason": None, "due_by": None} | more
    snapshot = DisputeSnapshot(
        id=UUID(int=9),
        provider="stripe",
        provider_ref="dp_1",
        status="lost",
        amount_minor=40,
        currency="USD",
        **members,
    )
    one = row(type_, dispute=snapshot, reason="stripe dp_1: lost")
    data = check(type_, payload.body(one, Format()))["data"]
    assert (data["dispute"]["amount"], data["dispute"]["status"], "reason" in data["payment"]) == (40, "lost", False)
    assert set(data["dispute"]) >= set(more)
    assert check(type_, payload.body(one, Format("thin")))["data"]["dispute"] == {"id": str(UUID(int=9))}


@pytest.mark.parametrize("type_", OF_ENDPOINTS)
def test_an_event_of_an_endpoint_is_as_described(type_: EventType) -> None:
    document = check(type_, payload.body(row(type_), Format()))
    assert document["data"] == {"endpoint": {"id": str(PAYMENT_ID), "version": 2}}


def test_a_snapshot_can_have_every_member_that_is_described() -> None:
    """None is described that no body has."""
    some = [
        row(EventType.FAILED, reason="declined", decline_code="stolen_card", metadata={"order": "4711"}),
        row(EventType.FAILED, metadata={f"n{number}": "v" * 2000 for number in range(40)}),
        row(EventType.SUCCEEDED, operation=reported(EventType.SUCCEEDED)),
    ]
    members = {name for one in some for name in json.loads(payload.body(one, Format()))["data"]["payment"]}
    assert members == set(the_document()["components"]["schemas"]["PaymentSnapshot"]["properties"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "payment.failed"},
        {"id": "evt_1"},
        {"timestamp": "yesterday"},
        {"more": 1},
        {"data": {}},
        {"data": {"payment": {"id": str(PAYMENT_ID)}}},
        {"data": {"endpoint": {"id": str(PAYMENT_ID), "version": 2}}},
    ],
)
def test_another_body_is_not_as_described(wrong: dict[str, Any]) -> None:
    document = json.loads(payload.body(row(EventType.SUCCEEDED), Format()))
    assert not validator(schema_of(EventType.SUCCEEDED)).is_valid(document | wrong)
