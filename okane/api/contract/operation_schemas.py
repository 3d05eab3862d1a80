"""The documents of captures, voids and refunds, as types. `operation_json` writes them; tests compare the two."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, NotRequired
from uuid import UUID

from pydantic import Field, with_config
from typing_extensions import TypedDict  # pydantic does not take the older one of typing

from okane.api.contract.schemas import PAYMENT, After, Currency, Payment, shown
from okane.operation import OperationKind, OperationStatus

OPERATION = {
    "id": "0198c0de-0000-7000-8000-000000000002",
    "payment": "0198c0de-0000-7000-8000-000000000001",
    "kind": "refund",
    "amount": 40,
    "currency": "USD",
    "status": "success",
    "attempts": 1,
    "provider": "stripe",
    "created_at": "2026-03-02T12:00:00.000000Z",
    "updated_at": "2026-03-02T12:00:00.250000Z",
    "idempotency_key": "demo-refund-1",
    "reason": "one of two books came back",
    "provider_ref": "re_1a2b3c",
    "metadata": {"order": "4711"},
}
REFUND = {"payment": OPERATION["payment"], "amount": 40, "idempotency_key": "demo-refund-1", "reason": "returned"}
_REQUESTED = {name: value for name, value in OPERATION.items() if name != "provider_ref"} | {
    "status": "pending",
    "attempts": 0,
    "updated_at": "2026-03-02T12:00:00.000000Z",
}
_CAPTURE = {name: value for name, value in _REQUESTED.items() if name != "reason"} | {
    "kind": "capture",
    "amount": 440,
    "idempotency_key": "demo-capture-1",
}
_HELD = {name: value for name, value in PAYMENT.items() if name != "payment_method"} | {
    "status": "authorized",
    "capture_method": "manual",
    "capture_before": "2026-03-08T12:00:00.000000Z",
}

Created = Annotated[bool, Field(description="whether this request created it")]
Enqueued = Annotated[
    bool, Field(description="whether a wake-up was sent; if not, the sweep sends it later: this is not an error")
]


@with_config(shown(OPERATION))
class OperationDocument(TypedDict):
    """A capture, a void or a refund as it is now. Members without a value are left out."""

    id: UUID
    payment: UUID
    kind: OperationKind
    amount: Annotated[int, Field(gt=0, description="in minor units of the currency")]
    currency: Currency
    status: OperationStatus
    attempts: Annotated[int, Field(ge=0, description="how often a worker has claimed it, to call the provider")]
    provider: Annotated[str, Field(description="that of the payment")]
    metadata: dict[str, str]
    created_at: datetime
    updated_at: datetime
    idempotency_key: NotRequired[Annotated[str, Field(description="left out where okane itself lets the money go")]]
    reason: NotRequired[Annotated[str, Field(description="of the request")]]
    provider_ref: NotRequired[Annotated[str, Field(description="the provider's id of it")]]
    decline_code: NotRequired[Annotated[str, Field(description="why the provider declined, in its words")]]
    last_error: NotRequired[Annotated[str, Field(description="why the last attempt failed")]]
    retry_at: NotRequired[Annotated[datetime, Field(description="when it is retried, or looked up")]]


@with_config(shown({"refund": OPERATION}))
class RefundAnswer(TypedDict):
    """One refund."""

    refund: OperationDocument


@with_config(shown({"refund": _REQUESTED, "created": True, "enqueued": True}))
class RefundReceipt(TypedDict):
    """The result of a request for a refund."""

    refund: OperationDocument
    created: Created
    enqueued: Enqueued


@with_config(shown({"operation": _CAPTURE, "created": True, "enqueued": True}))
class OperationReceipt(TypedDict):
    """The result of a request for a capture."""

    operation: OperationDocument
    created: Created
    enqueued: Enqueued


@with_config(
    shown({"payment": _HELD, "operation": _CAPTURE | {"kind": "void"}, "created": True, "enqueued": True}),
)
class VoidReceipt(TypedDict):
    """The result of the cancel of a payment whose money is held: the void that lets it go."""

    payment: Payment
    operation: OperationDocument
    created: Created
    enqueued: Enqueued


class OperationPage(TypedDict):
    """A page of the operations of a payment, oldest first."""

    operations: list[OperationDocument]
    has_more: bool
    after: After


class RefundPage(TypedDict):
    """A page of refunds, newest first unless `order` is `ascending`.

    A page may be empty although there are more: go on until `has_more` is false.
    """

    refunds: list[OperationDocument]
    has_more: bool
    after: After
