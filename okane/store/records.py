"""The values that the payment store takes and returns."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from okane.payment import NextAction, Payment, Status
from streams.values import value

Call = Literal["charge", "look_up"]

# The actors in a payment's history beside workers: the API and the console, with the name of the key if keys are required,
# and the commands. No process may have a name that begins with one of these words.
API, OPERATOR, CONSOLE = "api", "operator", "console"
_KINDS = {API: API, OPERATOR: OPERATOR, CONSOLE: OPERATOR}


def actor_kind(name: str) -> str:
    """Map an actor to `api`, `operator` or `worker`, by its first word."""
    return _KINDS.get(name.partition(" ")[0], "worker")


def is_reserved_name(name: str) -> bool:
    """Tell whether a process of this name would be taken for another kind of actor."""
    return actor_kind(" ".join(name.split())) != "worker"


@value
class AcceptedRow:
    """`created` is False for the repeat of an earlier request."""

    payment: Payment
    created: bool


@value
class UsableProvider:
    """A provider that a worker can call now. With `is_default` it may charge payments that name none."""

    name: str
    is_default: bool = True


@value
class Claim:
    """The sole right to call `payment.provider` until `valid_until_s` (time.monotonic(), from before the claim).

    `look_up_first`: the outcome of an earlier call is open. `since_call_s`: the age of the last call that may have reached
    the provider. `open_s`: how long the outcome has been open. `look_ups`: how often it was looked up. `expired`: no charge
    may begin any more. `pending_s`: how long the provider has had the charge without a decision, None if it does not.
    `key_age_s`: how long ago the first call under this provider key may have begun. `may_charge` is False while an operator
    has drained the provider: look-ups only.
    """

    payment: Payment
    look_up_first: bool
    look_ups: int
    since_call_s: float
    open_s: float
    valid_until_s: float
    expired: bool = False
    pending_s: float | None = None
    key_age_s: float = 0.0
    may_charge: bool = True


@dataclass(frozen=True, slots=True)
class ClaimRefusal:
    """The refusal of a claim. `status` is None if there is no such payment; `wait` is the time to the next possible claim.

    `spent`: the reason if all retries are spent. `expired`: the payment must be canceled. `look_up_late`: the payment is
    closed or authorized, and the sweep sent it for a look-up. `no_provider`: it is due, but no provider can take it now.
    """

    status: Status | None
    wait: timedelta
    spent: str | None = None
    expired: bool = False
    look_up_late: bool = False
    no_provider: bool = False


@dataclass(frozen=True, slots=True)
class LateLookUp:
    """The look-up of a closed payment. `open_s`: how long its late look-ups have had no result. `begun_at` is the database's
    time."""

    payment: Payment
    open_s: float
    begun_at: datetime


@value
class Settlement:
    """The outcome of one attempt, to be written. `delay`: when a retry or look-up is due.

    `event` is its name in the history; `call` is the provider call behind it, if there was one.
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
    attempt_ref: str | None = None
    next_action: NextAction | None = None
    capture_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One event in the history of a payment."""

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
    operation_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim of a payment and its outcome, None if none was written."""

    number: int
    began_at: datetime
    ended_at: datetime | None = None
    outcome: str | None = None
    call: str | None = None
    provider: str | None = None
    decline_code: str | None = None
    reason: str | None = None
    latency_ms: int | None = None
