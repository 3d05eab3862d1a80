"""What goes into the payment store and what comes out of it. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from okane.payment import Payment, Status
from streams.values import value

Call = Literal["charge", "look_up"]

# Who stands in a payment's history beside the workers: whoever asks over HTTP, the name of the key behind it where keys are
# asked for, and whoever has the command line.
API, OPERATOR = "api", "operator"


@value
class AcceptedRow:
    """`created` is False for the repeat of an earlier request."""

    payment: Payment
    created: bool


@value
class Claim:
    """The right to call the provider for `payment` until `valid_until_s` (time.monotonic(), counted from before the claim).

    `look_up_first`: the outcome of an earlier call is open. `since_call_s` is the age of the last call that may have
    reached the provider, `open_s` how long the outcome has been open, `look_ups` how often it was looked up. `expired`: no
    charge may be begun any more.
    """

    payment: Payment
    look_up_first: bool
    look_ups: int
    since_call_s: float
    open_s: float
    valid_until_s: float
    expired: bool = False


@dataclass(frozen=True, slots=True)
class ClaimRefusal:
    """The claim was not given. `status` is None if there is no such payment; `wait` says when to ask again.

    `spent` is the reason if the payment has used up its retries; `expired` says that it is to be canceled; `look_up_late`
    that the sweep sent it to be looked up although it is closed.
    """

    status: Status | None
    wait: timedelta
    spent: str | None = None
    expired: bool = False
    look_up_late: bool = False


@dataclass(frozen=True, slots=True)
class LateLookUp:
    """A closed payment that is to be looked up. `open_s` is since when such a look-up of it has gone without an answer;
    `begun_at` is the database's time."""

    payment: Payment
    open_s: float
    begun_at: datetime


@value
class Settlement:
    """The outcome of one attempt, as it is written. `delay` is set where the payment is to be looked at again.

    `event` is the word for the timeline; `call` is the provider's call that it comes from, if one was made.
    """

    payment_id: UUID
    attempt: int
    status: Status
    event: str
    call: Call | None
    provider: str
    latency: timedelta
    provider_ref: str | None = None
    decline_code: str | None = None
    reason: str | None = None
    delay: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a payment's timeline."""

    payment_id: UUID
    version: int
    at: datetime
    event: str
    status: Status
    attempt: int
    actor: str
    reason: str | None
    provider: str | None
    latency_ms: int | None
    call: str | None = None
    decline_code: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim of a payment and what came of it. Without an `outcome` nobody has heard of one."""

    number: int
    began_at: datetime
    ended_at: datetime | None = None
    outcome: str | None = None
    call: str | None = None
    provider: str | None = None
    decline_code: str | None = None
    reason: str | None = None
    latency_ms: int | None = None
