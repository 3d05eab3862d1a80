"""The interface of a payment provider, and the closed set of its results.

A call that may have been executed is `Unknown`, never `Unavailable`: the difference decides whether a payment may be
charged again, or an operation executed again, or has to be looked up first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol, runtime_checkable
from uuid import UUID

from okane.dispute import DisputeStatus
from okane.operation import Operation
from okane.payment import NextAction, Payment
from streams.values import value

# The cause of a call that did nothing: the provider, its rate limit, or our own configuration (a wrong API key).
Fault = Literal["provider", "limit", "config"]

# What a provider can do beyond a charge that captures at once. The partial ones: for less than the whole amount.
Capability = Literal["manual_capture", "partial_capture", "void", "refund", "partial_refund"]


@value
class Approved:
    """The money moved, or a void let it go. `provider_ref` is the provider's name for the charge or the operation."""

    provider_ref: str


@dataclass(frozen=True, slots=True)
class Authorized:
    """The money is held for a capture, and has not moved. `provider_ref` is the provider's name for the authorization.

    It ends at `capture_before`; None: the provider does not tell when.
    """

    provider_ref: str
    capture_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """The provider has the charge or operation and decides later, after `next_action` of the customer if there is one."""

    provider_ref: str
    next_action: NextAction | None = None


@dataclass(frozen=True, slots=True)
class Declined:
    """The provider refused the charge or operation for good under this key; nothing moved.

    `provider_ref` is its name for the refused attempt. `soft`: the same card may pass later, or at another provider.
    """

    code: str
    message: str = ""
    provider_ref: str | None = None
    soft: bool = False


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The provider did not take the request; nothing moved. Its `retry_after` takes precedence over our backoff.

    Only the provider's own `fault` uses up a retry.
    """

    reason: str
    retry_after: timedelta | None = None
    fault: Fault = "provider"


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request may have been executed. Only a look-up can decide; with `at_once` only a human can.

    `is_neutral`: the provider works, or was not called. Its circuit breaker does not count the result.
    """

    reason: str
    at_once: bool = False
    is_neutral: bool = False


@dataclass(frozen=True, slots=True)
class NotFound:
    """A look-up found no charge or operation under this key. It counts only after the provider's consistency lag."""


ChargeResult = Approved | Authorized | Pending | Declined | Unavailable | Unknown
LookUpResult = ChargeResult | NotFound

OperationResult = Approved | Pending | Declined | Unavailable | Unknown
OperationLookUp = OperationResult | NotFound

POLL_DELAYS = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """The properties of a provider that decide how its outcomes are handled.

    `timeout` is the deadline of one call. Until `consistency_lag` after a call its "not found" proves nothing. An outcome
    that stays open for `unknown_deadline` needs a review. A repeat under one key within `key_lifetime` makes no second
    charge; None: it never does. A pending payment is looked up after each of `poll_delays` in turn, the last one again and
    again, and needs a review after `pending_deadline`. An operation without its capability is declined before any call.
    """

    timeout: timedelta
    consistency_lag: timedelta
    unknown_deadline: timedelta
    key_lifetime: timedelta | None = None
    pending_deadline: timedelta = timedelta(days=30)
    poll_delays: Sequence[timedelta] = POLL_DELAYS
    capabilities: frozenset[Capability] = frozenset()


class Provider(Protocol):
    """A payment provider. Its calls are safe to repeat: they carry the `provider_key` of the payment or operation."""

    @property
    def name(self) -> str: ...

    @property
    def traits(self) -> Traits: ...

    async def charge(self, payment: Payment) -> ChargeResult: ...

    async def look_up(self, payment: Payment, *, may_execute: bool) -> LookUpResult:
        """Return the outcome of the last charge. With `may_execute` the look-up may make a charge that never arrived."""
        ...

    async def release(self, payment: Payment, declined: Declined) -> LookUpResult:
        """Close a charge that was declined softly, so that it can move no money any more; another provider may charge then.

        `Declined` only once it is closed. `Unknown` with `at_once`: it cannot be closed here.
        """
        ...

    async def operate(self, operation: Operation, payment: Payment) -> OperationResult:
        """Execute a capture, void or refund of the payment. `Approved` only for exactly the operation's amount."""
        ...

    async def look_up_operation(self, operation: Operation, payment: Payment, *, may_execute: bool) -> OperationLookUp:
        """Return the outcome of the operation. With `may_execute` the look-up may execute one that never arrived."""
        ...

    async def aclose(self) -> None: ...


@value
class ReportedDispute:
    """A dispute as its provider reports it: `amount_minor` is in minor units of `currency`, and `due_by` the end of the time
    for evidence. `payment_id` is None for a charge that okane did not make."""

    provider_ref: str
    payment_id: UUID | None
    amount_minor: int
    currency: str
    status: DisputeStatus
    reason: str | None = None
    due_by: datetime | None = None


@runtime_checkable
class DisputeSource(Protocol):
    """A provider whose disputes can be fetched."""

    async def fetch_dispute(self, ref: str) -> ReportedDispute | NotFound | Unavailable | Unknown:
        """Return a dispute as it is now. No failure of the provider or the network raises."""
        ...


@dataclass(frozen=True, slots=True)
class Notice:
    """A verified webhook of a provider: a hint that something has changed, never an outcome.

    `event_id` is the provider's name for the event, or the SHA-256 of the body in hexadecimal digits. `provider_key` is the
    idempotency key of the charge, if the event names it: without it, `provider_ref` is taken for that of the first key.
    `is_refusal`: the event says that no money moved. For a payment that is closed without a charge that is no news.
    `operation_id` is the capture, void or refund that the event is about, if it names one, and `dispute_ref` the provider's
    name for the dispute.
    """

    event_id: str
    kind: str
    payment_id: UUID | None
    provider_ref: str | None
    provider_key: str | None = None
    is_refusal: bool = False
    operation_id: UUID | None = None
    dispute_ref: str | None = None


class InvalidNotice(Exception):
    """A webhook with a wrong signature, from too long ago, or unreadable."""


class NoticeParser(Protocol):
    """The verification of one provider's webhooks. Pure; the names of `headers` are in lower case."""

    def __call__(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> Sequence[Notice]:
        """Return the notices in a webhook. Raises InvalidNotice."""
        ...
