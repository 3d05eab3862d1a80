"""The values that the store of operations takes and returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from okane.operation import Operation, OperationCall, OperationKind, OperationStatus
from okane.payment import Payment
from streams.values import value


@dataclass(frozen=True, slots=True)
class RequestedOperation:
    """`created` is False for the repeat of an earlier request."""

    operation: Operation
    created: bool


@value
class OperationClaim:
    """The sole right to call the operation's provider until `valid_until_s`. The other fields: see `Claim` of payments."""

    operation: Operation
    payment: Payment
    look_up_first: bool
    look_ups: int
    since_call_s: float
    open_s: float
    valid_until_s: float
    pending_s: float | None = None
    key_age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class OperationRefusal:
    """The refusal of a claim. `status` is None if there is no such operation; `wait` is the time to the next possible claim.

    `spent`: the reason if all retries are spent. `look_up_late`: it is closed, and a late look-up is due. `no_provider`: it
    is due, but its provider is switched off, unknown here, or behind an open circuit.
    """

    status: OperationStatus | None
    wait: timedelta
    spent: str | None = None
    look_up_late: bool = False
    no_provider: bool = False


@value
class OperationSettlement:
    """The outcome of one attempt, to be written. `delay`: until a retry or look-up is due. `event`: its name."""

    operation_id: UUID
    attempt: int
    status: OperationStatus
    event: str
    call: OperationCall | None
    provider: str
    latency: timedelta
    provider_ref: str | None = None
    decline_code: str | None = None
    reason: str | None = None
    delay: timedelta | None = None


@dataclass(frozen=True, slots=True)
class OperationWakeUp:
    """An operation to add to its lane's stream. `scheduled`: for a late look-up, not a lost wake-up."""

    operation_id: UUID
    lane: str
    scheduled: bool = False

    @property
    def body(self) -> bytes:
        """The body of its entry."""
        return self.operation_id.bytes


@dataclass(frozen=True, slots=True)
class LateOperationLookUp:
    """The look-up of a closed operation. `open_s`: how long its late look-ups have had no result. `begun_at` is the
    database's time."""

    operation: Operation
    payment: Payment
    open_s: float
    begun_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationFilter:
    """A filter of an account's operations; the default is all. `from` is inclusive, `before` exclusive.

    A list begins with the newest, or with `ascending` with the oldest.
    """

    ascending: bool = False
    kinds: frozenset[OperationKind] = frozenset()
    statuses: frozenset[OperationStatus] = frozenset()
    payment_id: UUID | None = None
    currency: str | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class OperationPage:
    """A page of operations. `after` is the id where the next page begins, None after the last page."""

    operations: Sequence[Operation]
    after: UUID | None


@dataclass(frozen=True, slots=True)
class OperationEvent:
    """One event in the history of an operation."""

    operation_id: UUID
    version: int
    at: datetime
    event: str
    status: OperationStatus
    attempt: int
    actor: str
    reason: str | None
    provider: str | None
    latency_ms: int | None
    call: str | None = None
    decline_code: str | None = None
