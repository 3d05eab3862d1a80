"""The answers of the API as values. Members that a later API adds are ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from okane.operation import OperationKind, OperationStatus
from okane.payment import Status

Document = Mapping[str, Any]


_ETAG = re.compile(r'(?:W/)?"([0-9]{1,10})"')  # weak where a proxy has compressed the answer


@dataclass(frozen=True, slots=True)
class NextAction:
    """The customer's part before the provider can decide: open `url`, for a `kind` of `redirect`."""

    kind: str
    url: str

    @classmethod
    def of(cls, document: Document) -> NextAction:
        return cls(document["kind"], document["url"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A payment as it was when the API answered. `version` is the number of its changes, where the API told it (`payment`,
    `at_rest`)."""

    id: UUID
    amount: int
    currency: str
    status: Status
    idempotency_key: str
    attempts: int
    lane: str
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    provider_ref: str | None = None
    decline_code: str | None = None
    last_error: str | None = None
    execute_at: datetime | None = None
    expires_at: datetime | None = None
    retry_at: datetime | None = None
    provider: str | None = None
    payment_method: str | None = None
    return_url: str | None = None
    next_action: NextAction | None = None
    capture_method: str = "automatic"
    capture_before: datetime | None = None
    amount_captured: int | None = None
    amount_refunded: int | None = None
    version: int | None = field(default=None, compare=False)

    @classmethod
    def of(cls, document: Document, *, etag: str = "") -> Payment:
        tag = _ETAG.fullmatch(etag)
        return cls(
            version=None if tag is None else int(tag[1]),
            id=UUID(document["id"]),
            amount=document["amount"],
            currency=document["currency"],
            status=Status(document["status"]),
            idempotency_key=document["idempotency_key"],
            attempts=document["attempts"],
            lane=document["lane"],
            metadata=document["metadata"],
            created_at=datetime.fromisoformat(document["created_at"]),
            updated_at=datetime.fromisoformat(document["updated_at"]),
            provider_ref=document.get("provider_ref"),
            decline_code=document.get("decline_code"),
            last_error=document.get("last_error"),
            execute_at=moment(document.get("execute_at")),
            expires_at=moment(document.get("expires_at")),
            retry_at=moment(document.get("retry_at")),
            provider=document.get("provider"),
            payment_method=document.get("payment_method"),
            return_url=document.get("return_url"),
            next_action=NextAction.of(document["next_action"]) if "next_action" in document else None,
            capture_method=document.get("capture_method", "automatic"),
            capture_before=moment(document.get("capture_before")),
            amount_captured=document.get("amount_captured"),
            amount_refunded=document.get("amount_refunded"),
        )


@dataclass(frozen=True, slots=True)
class Receipt:
    """The result of a request for a payment. `created`: this request created it, not an earlier one with its key."""

    payment: Payment
    created: bool
    enqueued: bool

    @classmethod
    def of(cls, document: Document) -> Receipt:
        return cls(Payment.of(document["payment"]), document["created"], document["enqueued"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A capture, void or refund of the payment `payment_id`, as it was when the API answered. `kind` says which.

    `version` is the number of its changes, where the API told it (`refunds.get`).
    """

    id: UUID
    payment_id: UUID
    kind: OperationKind
    amount: int
    currency: str
    status: OperationStatus
    attempts: int
    provider: str
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    idempotency_key: str | None = None
    reason: str | None = None
    provider_ref: str | None = None
    decline_code: str | None = None
    last_error: str | None = None
    retry_at: datetime | None = None
    version: int | None = field(default=None, compare=False)

    @classmethod
    def of(cls, document: Document, *, etag: str = "") -> Operation:
        tag = _ETAG.fullmatch(etag)
        texts = ("idempotency_key", "reason", "provider_ref", "decline_code", "last_error")
        return cls(
            version=None if tag is None else int(tag[1]),
            id=UUID(document["id"]),
            payment_id=UUID(document["payment"]),
            kind=OperationKind(document["kind"]),
            amount=document["amount"],
            currency=document["currency"],
            status=OperationStatus(document["status"]),
            attempts=document["attempts"],
            provider=document["provider"],
            metadata=document["metadata"],
            created_at=datetime.fromisoformat(document["created_at"]),
            updated_at=datetime.fromisoformat(document["updated_at"]),
            retry_at=moment(document.get("retry_at")),
            **{name: document.get(name) for name in texts},
        )


@dataclass(frozen=True, slots=True)
class OperationReceipt:
    """The result of a request for a capture or refund. `created`: by this request, not by an earlier one with its key."""

    operation: Operation
    created: bool
    enqueued: bool

    @classmethod
    def of(cls, document: Document, name: str = "operation") -> OperationReceipt:
        return cls(Operation.of(document[name]), document["created"], document["enqueued"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change of a payment; `status` is the one after it."""

    version: int
    at: datetime
    event: str
    status: Status
    attempt: int
    actor: str
    provider: str | None = None
    call: str | None = None
    decline_code: str | None = None
    reason: str | None = None
    latency_ms: int | None = None
    operation_id: UUID | None = None

    @classmethod
    def of(cls, document: Document) -> Event:
        return cls(
            operation_id=UUID(document["operation"]) if "operation" in document else None,
            version=document["version"],
            at=datetime.fromisoformat(document["at"]),
            event=document["event"],
            status=Status(document["status"]),
            attempt=document["attempt"],
            actor=document["actor"],
            **_call(document),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at a payment: a claim and its outcome."""

    attempt: int
    began_at: datetime
    ended_at: datetime | None
    outcome: str
    provider: str | None = None
    call: str | None = None
    decline_code: str | None = None
    reason: str | None = None
    latency_ms: int | None = None

    @classmethod
    def of(cls, document: Document) -> Attempt:
        return cls(
            attempt=document["attempt"],
            began_at=datetime.fromisoformat(document["began_at"]),
            ended_at=moment(document.get("ended_at")),
            outcome=document["outcome"],
            **_call(document),
        )


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A payment that was given up. The provider has the charge under `provider_key`."""

    payment: Payment
    dead_at: datetime
    provider_key: str

    @classmethod
    def of(cls, document: Document) -> DeadLetter:
        return cls(
            Payment.of(document["payment"]), datetime.fromisoformat(document["dead_at"]), document["provider_key"]
        )


@dataclass(frozen=True, slots=True)
class Replayed:
    """The payments that are retried, and the named ones that are kept."""

    retried: Sequence[UUID]
    kept: Sequence[UUID]
    has_more: bool

    @classmethod
    def of(cls, document: Document) -> Replayed:
        return cls(
            [UUID(one) for one in document["retried"]], [UUID(one) for one in document["kept"]], document["has_more"]
        )


@dataclass(frozen=True, slots=True)
class Currency:
    """A currency of new payments. `exponent` is the number of decimal digits of its minor units."""

    code: str
    exponent: int
    name: str

    @classmethod
    def of(cls, document: Document) -> Currency:
        return cls(document["code"], document["exponent"], document["name"])


def moment(text: str | None) -> datetime | None:
    """Return the time of a member that may be missing."""
    return None if text is None else datetime.fromisoformat(text)


def _call(document: Document) -> dict[str, Any]:
    return {name: document.get(name) for name in ("provider", "call", "decline_code", "reason", "latency_ms")}
