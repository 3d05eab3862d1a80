"""The payment and the transitions of its status. Pure: no clock, no database, no network.

The statements in `okane/store` repeat the table of transitions in SQL; a test compares the two.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from streams.values import value


class Status(enum.StrEnum):
    """The status of a payment. A terminal one changes only by a manual action or a late charge (see `TRANSITIONS`)."""

    PENDING = "pending"
    PROCESSING = "processing"
    SUCCESS = "success"
    FAILED_RETRYABLE = "failed_retryable"
    FAILED_FINAL = "failed_final"
    UNKNOWN = "unknown"
    CANCELED = "canceled"
    NEEDS_REVIEW = "needs_review"
    REQUIRES_ACTION = "requires_action"
    SUBMITTED = "submitted"
    AUTHORIZED = "authorized"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL

    @property
    def is_at_rest(self) -> bool:
        """True if only a human changes it."""
        return self in TERMINAL or self is Status.NEEDS_REVIEW


TERMINAL = frozenset({Status.SUCCESS, Status.FAILED_FINAL, Status.CANCELED})

# Few payments have these at any time: an index finds them.
RARE_STATUSES = frozenset(
    {
        Status.FAILED_RETRYABLE,
        Status.FAILED_FINAL,
        Status.UNKNOWN,
        Status.CANCELED,
        Status.NEEDS_REVIEW,
        Status.REQUIRES_ACTION,
        Status.SUBMITTED,
        Status.AUTHORIZED,
    }
)

# The provider has the charge and decides later; with `requires_action` after an action of the customer.
AWAITING_PROVIDER = frozenset({Status.REQUIRES_ACTION, Status.SUBMITTED})

# Closed without a charge.
CLOSED_UNCHARGED = frozenset({Status.FAILED_FINAL, Status.CANCELED})

LEGACY_PROVIDER = "http"  # charged the payments of before version 4, whose rows name no provider

# The late look-ups of a payment that was closed without a charge while a call might still have been on its way: delays from
# its close, in rising order.
LATE_LOOK_UPS = (timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1), timedelta(hours=24))

MAX_SCHEDULE_AHEAD = timedelta(days=366)  # how far ahead a payment may be scheduled

MAX_REASON = 500  # characters of the reason for a decision

# No worker is charging it, and no outcome is open.
CANCELABLE = frozenset({Status.PENDING, Status.FAILED_RETRYABLE})

# An operator may have another attempt made at once, unless a charge is known.
RETRYABLE = frozenset({Status.FAILED_FINAL, Status.FAILED_RETRYABLE})

# from -> to. `needs_review` is at rest but not terminal: a human decides. The two ways out of a terminal status are the
# manual retry of a failed payment, and a late charge: money that moved for a payment that we had reported as not charged.
TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.PROCESSING, Status.CANCELED, Status.NEEDS_REVIEW}),
    Status.PROCESSING: frozenset(
        {
            Status.PROCESSING,  # the lease expired: another worker claims it and looks it up
            Status.SUCCESS,
            Status.FAILED_RETRYABLE,
            Status.FAILED_FINAL,
            Status.UNKNOWN,
            Status.REQUIRES_ACTION,
            Status.SUBMITTED,
            Status.AUTHORIZED,
            Status.NEEDS_REVIEW,
        }
    ),
    Status.FAILED_RETRYABLE: frozenset({Status.PROCESSING, Status.PENDING, Status.CANCELED, Status.NEEDS_REVIEW}),
    Status.UNKNOWN: frozenset({Status.PROCESSING, Status.NEEDS_REVIEW}),
    Status.REQUIRES_ACTION: frozenset({Status.PROCESSING, Status.NEEDS_REVIEW}),
    Status.SUBMITTED: frozenset({Status.PROCESSING, Status.NEEDS_REVIEW}),
    # By a capture or a void that succeeded.
    Status.AUTHORIZED: frozenset({Status.SUCCESS, Status.CANCELED, Status.NEEDS_REVIEW}),
    Status.SUCCESS: frozenset(),
    Status.FAILED_FINAL: frozenset({Status.PENDING, Status.NEEDS_REVIEW}),
    Status.CANCELED: frozenset({Status.NEEDS_REVIEW}),
    Status.NEEDS_REVIEW: frozenset({Status.SUCCESS, Status.FAILED_FINAL}),
}


@dataclass(frozen=True, slots=True)
class NextAction:
    """The customer's part before the provider can decide: open `url` (`redirect`, for 3-D Secure or a bank's page)."""

    url: str
    kind: Literal["redirect"] = "redirect"


@value
class Payment:
    """One row of `payments`, for every layer.

    `amount_minor` is in minor units of `currency` (ISO 4217). `attempts` counts claims and is the fence: a result is
    written only under the attempt that produced it. `retries` counts the attempts that ended without a charge.
    `provider_key` is the idempotency key at the provider. `version` rises by one with every transition.
    Nothing is charged before `execute_at`, and no claim to charge is granted from `expires_at` on.
    `provider` is None until the first claim. `attempt_ref` is the provider's name for the attempt under this key while no
    money has moved; once it has, `provider_ref` is. `payment_method` is the provider's token for the customer's card or
    account, and `return_url` where the customer goes after `next_action`.
    """

    id: UUID
    account_id: str
    idempotency_key: str
    amount_minor: int
    currency: str
    lane: str
    status: Status
    attempts: int
    retries: int
    version: int
    provider_key: str
    created_at: datetime
    updated_at: datetime
    metadata: Mapping[str, str]
    provider_ref: str | None = None
    decline_code: str | None = None
    last_error: str | None = None
    retry_at: datetime | None = None
    execute_at: datetime | None = None
    expires_at: datetime | None = None
    provider: str | None = None
    attempt_ref: str | None = None
    next_action: NextAction | None = None
    payment_method: str | None = None
    return_url: str | None = None
    manual_capture: bool | None = None
    capture_before: datetime | None = None
    amount_captured: int | None = None
    amount_refunded: int | None = None
    refund_reserved: int | None = None
    open_operation: UUID | None = None
    candidates: Sequence[str] | None = None
    soft_fallback: bool | None = None

    @property
    def called_provider(self) -> str | None:
        """The provider that was called, or is called now; None before the first call."""
        return self.provider or (LEGACY_PROVIDER if self.attempts else None)

    @property
    def captured_minor(self) -> int:
        """The amount that was captured: money that has moved, before refunds."""
        if self.status is not Status.SUCCESS:
            return 0
        return self.amount_minor if self.amount_captured is None else self.amount_captured

    @property
    def refundable_minor(self) -> int:
        """The most that a new refund may take: the captured amount without refunds that are open or succeeded."""
        return self.captured_minor - (self.refund_reserved or 0)


@value
class NewPayment:
    """The part of a payment that comes with the request, validated. `fingerprint` is the SHA-256 of its meaning.

    `candidates` are the providers that a route has chosen, the first first; None: the default ones.
    """

    account_id: str
    idempotency_key: str
    fingerprint: bytes
    amount_minor: int
    currency: str
    lane: str
    metadata: Mapping[str, str]
    execute_at: datetime | None = None
    expires_at: datetime | None = None
    payment_method: str | None = None
    return_url: str | None = None
    requested_provider: str | None = None
    manual_capture: bool | None = None
    candidates: Sequence[str] | None = None
    soft_fallback: bool | None = None


def pending_payment(new: NewPayment, payment_id: UUID, created_at: datetime) -> Payment:
    """Return the payment that inserting `new` has made: all but the time is known without reading the row back."""
    return Payment(
        payment_id,
        new.account_id,
        new.idempotency_key,
        new.amount_minor,
        new.currency,
        new.lane,
        Status.PENDING,
        0,
        0,
        0,
        str(payment_id),
        created_at,
        created_at,
        dict(new.metadata),
        execute_at=new.execute_at,
        expires_at=new.expires_at,
        payment_method=new.payment_method,
        return_url=new.return_url,
        manual_capture=new.manual_capture,
        candidates=new.candidates,
        soft_fallback=new.soft_fallback,
    )
