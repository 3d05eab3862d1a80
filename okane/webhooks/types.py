"""The types of events: their names, the change of a payment that each reports, and the patterns that subscribe to them.

Guarantee: a type never changes its meaning, and an `api_version` only gains members.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final

from okane.payment import Status

API_VERSION: Final = "2026-12-01"  # of the bodies; an endpoint keeps the one it was created with
MAX_PATTERNS: Final = 32  # of one endpoint


class EventType(enum.StrEnum):
    """The `type` of an event."""

    SUCCEEDED = "payment.succeeded"
    FAILED = "payment.failed"
    CANCELED = "payment.canceled"
    REVIEW_REQUIRED = "payment.review_required"
    RETRY_SCHEDULED = "payment.retry_scheduled"
    OUTCOME_UNKNOWN = "payment.outcome_unknown"
    ACTION_REQUIRED = "payment.action_required"
    SUBMITTED = "payment.submitted"
    RETRIED = "payment.retried"
    LATE_RESULT = "payment.late_result"
    AUTHORIZED = "payment.authorized"
    CAPTURE_FAILED = "payment.capture_failed"
    REFUND_SUCCEEDED = "refund.succeeded"
    REFUND_FAILED = "refund.failed"
    DISPUTE_OPENED = "dispute.opened"
    DISPUTE_CLOSED = "dispute.closed"
    ENDPOINT_FAILING = "webhook_endpoint.failing"
    ENDPOINT_DISABLED = "webhook_endpoint.disabled"
    ENDPOINT_TEST = "webhook_endpoint.test"

    @property
    def is_of_endpoint(self) -> bool:
        """True if it reports an endpoint, not a payment."""
        return self in _OF_ENDPOINTS


_OF_ENDPOINTS = frozenset({EventType.ENDPOINT_FAILING, EventType.ENDPOINT_DISABLED, EventType.ENDPOINT_TEST})

# The types of an endpoint that names none: each says that a payment has come to rest.
DEFAULT_TYPES: Final = (EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELED, EventType.REVIEW_REQUIRED)

# The patterns that stand for several types, also for those of later versions.
WILDCARDS: Final = ("*", "payment.*", "refund.*", "dispute.*", "webhook_endpoint.*")

# `webhook_endpoint.test` is sent on request alone, so no pattern subscribes to it.
_SUBSCRIBABLE = tuple(one for one in EventType if one is not EventType.ENDPOINT_TEST)
_PATTERNS = frozenset((*WILDCARDS, *_SUBSCRIBABLE))

# The type of a change by the status after it. A claim is no news: leases are internal.
_BY_STATUS: Mapping[Status, EventType] = {
    Status.SUCCESS: EventType.SUCCEEDED,
    Status.FAILED_FINAL: EventType.FAILED,
    Status.CANCELED: EventType.CANCELED,
    Status.NEEDS_REVIEW: EventType.REVIEW_REQUIRED,
    Status.FAILED_RETRYABLE: EventType.RETRY_SCHEDULED,
    Status.UNKNOWN: EventType.OUTCOME_UNKNOWN,
    Status.REQUIRES_ACTION: EventType.ACTION_REQUIRED,
    Status.SUBMITTED: EventType.SUBMITTED,
    Status.AUTHORIZED: EventType.AUTHORIZED,
}

# The type of a change by its event, where the status does not tell it: an operation that was requested, or that failed,
# leaves the payment as it was. None: it is no news.
_BY_EVENT: Mapping[str, EventType | None] = {
    "claimed": None,
    "retried": EventType.RETRIED,
    "capture_requested": None,
    "void_requested": None,
    "refund_requested": None,
    "refund_canceled": None,
    "void_failed": None,
    "capture_failed": EventType.CAPTURE_FAILED,
    "refunded": EventType.REFUND_SUCCEEDED,
    "refund_failed": EventType.REFUND_FAILED,
    "dispute_opened": EventType.DISPUTE_OPENED,
    "dispute_closed": EventType.DISPUTE_CLOSED,
}


def type_of_change(event: str, status: Status) -> EventType | None:
    """Return the type of a row of `payment_events`, or None if it is not reported.

    The statements of the store repeat this in SQL; a test compares the two. They alone know if a late result changed the
    status to needs_review: one that came when it was that already is a `payment.late_result`, and here a review.
    """
    if event in _BY_EVENT:
        return _BY_EVENT[event]
    if event == "late_result" and status is not Status.NEEDS_REVIEW:
        return EventType.LATE_RESULT
    return _BY_STATUS.get(status)


def is_pattern(text: str) -> bool:
    """Return True for a type that can be subscribed to, and for a wildcard (`payment.*`)."""
    return text in _PATTERNS


def matches(patterns: Iterable[str], type_: str) -> bool:
    """Return True if an endpoint with these patterns receives events of this type."""
    return type_ == EventType.ENDPOINT_TEST or any(_matches_one(pattern, type_) for pattern in patterns)


def expand(patterns: Iterable[str]) -> frozenset[EventType]:
    """Return the types that the patterns stand for, as statements of the store compare them."""
    given = tuple(patterns)
    return frozenset(one for one in _SUBSCRIBABLE if any(_matches_one(pattern, one) for pattern in given))


def _matches_one(pattern: str, type_: str) -> bool:
    return pattern in (type_, "*") or (pattern.endswith(".*") and type_.startswith(pattern[:-1]))
