"""The interface of a payment provider, and the closed set of its results.

A call that may have been executed is `Unknown`, never `Unavailable`: the difference decides whether a payment may be
charged again or has to be looked up first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol
from uuid import UUID

from okane.payment import NextAction, Payment
from streams.values import value

# The cause of a call that did nothing: the provider, its rate limit, or our own configuration (a wrong API key).
Fault = Literal["provider", "limit", "config"]


@value
class Approved:
    """The money moved. `provider_ref` is the provider's name for the charge."""

    provider_ref: str


@dataclass(frozen=True, slots=True)
class Pending:
    """The provider has the charge and decides later, after `next_action` of the customer if there is one."""

    provider_ref: str
    next_action: NextAction | None = None


@dataclass(frozen=True, slots=True)
class Declined:
    """The provider refused the charge for good under this key; nothing moved.

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
    """A look-up found no charge under this key. It counts only after the provider's consistency lag."""


ChargeResult = Approved | Pending | Declined | Unavailable | Unknown
LookUpResult = ChargeResult | NotFound

POLL_DELAYS = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """The properties of a provider that decide how its outcomes are handled.

    `timeout` is the deadline of one call. Until `consistency_lag` after a call its "not found" proves nothing. An outcome
    that stays open for `unknown_deadline` needs a review. A repeat under one key within `key_lifetime` makes no second
    charge; None: it never does. A pending payment is looked up after each of `poll_delays` in turn, the last one again and
    again, and needs a review after `pending_deadline`.
    """

    timeout: timedelta
    consistency_lag: timedelta
    unknown_deadline: timedelta
    key_lifetime: timedelta | None = None
    pending_deadline: timedelta = timedelta(days=30)
    poll_delays: Sequence[timedelta] = POLL_DELAYS


class Provider(Protocol):
    """A payment provider. Both calls are safe to repeat: they carry `payment.provider_key`."""

    @property
    def name(self) -> str: ...

    @property
    def traits(self) -> Traits: ...

    async def charge(self, payment: Payment) -> ChargeResult: ...

    async def look_up(self, payment: Payment, *, may_execute: bool) -> LookUpResult:
        """Return the outcome of the last charge. With `may_execute` the look-up may make a charge that never arrived."""
        ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Notice:
    """A verified webhook of a provider: a hint that something has changed, never an outcome.

    `event_id` is the provider's name for the event, or the SHA-256 of the body in hexadecimal digits. `provider_key` is the
    idempotency key of the charge, if the event names it: without it, `provider_ref` is taken for that of the first key.
    `is_refusal`: the event says that no money moved. For a payment that is closed without a charge that is no news.
    """

    event_id: str
    kind: str
    payment_id: UUID | None
    provider_ref: str | None
    provider_key: str | None = None
    is_refusal: bool = False


class InvalidNotice(Exception):
    """A webhook with a wrong signature, from too long ago, or unreadable."""


class NoticeParser(Protocol):
    """The verification of one provider's webhooks. Pure; the names of `headers` are in lower case."""

    def __call__(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> Sequence[Notice]:
        """Return the notices in a webhook. Raises InvalidNotice."""
        ...
