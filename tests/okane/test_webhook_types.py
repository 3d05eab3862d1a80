"""The types of events, their patterns, and the changes that they report."""

from __future__ import annotations

import pytest

from okane.payment import Status
from okane.webhooks.types import (
    DEFAULT_TYPES,
    WILDCARDS,
    EventType,
    expand,
    is_pattern,
    matches,
    type_of_change,
)


@pytest.mark.parametrize(
    ("event", "status", "type_"),
    [
        ("success", Status.SUCCESS, EventType.SUCCEEDED),
        ("declined", Status.FAILED_FINAL, EventType.FAILED),
        ("canceled", Status.CANCELED, EventType.CANCELED),
        ("unavailable", Status.FAILED_RETRYABLE, EventType.RETRY_SCHEDULED),
        ("unknown", Status.UNKNOWN, EventType.OUTCOME_UNKNOWN),
        ("requires_action", Status.REQUIRES_ACTION, EventType.ACTION_REQUIRED),
        ("submitted", Status.SUBMITTED, EventType.SUBMITTED),
        ("retried", Status.PENDING, EventType.RETRIED),
        ("late_result", Status.SUCCESS, EventType.LATE_RESULT),
        ("late_result", Status.FAILED_FINAL, EventType.LATE_RESULT),
        ("late_result", Status.NEEDS_REVIEW, EventType.REVIEW_REQUIRED),
        ("resolved", Status.SUCCESS, EventType.SUCCEEDED),
        ("resolved", Status.FAILED_FINAL, EventType.FAILED),
        ("claimed", Status.PROCESSING, None),
        ("authorized", Status.AUTHORIZED, EventType.AUTHORIZED),
        ("capture_requested", Status.AUTHORIZED, None),
        ("capture_failed", Status.AUTHORIZED, EventType.CAPTURE_FAILED),
        ("captured", Status.SUCCESS, EventType.SUCCEEDED),
        ("void_requested", Status.AUTHORIZED, None),
        ("void_failed", Status.AUTHORIZED, None),
        ("voided", Status.CANCELED, EventType.CANCELED),
        ("refund_requested", Status.SUCCESS, None),
        ("refunded", Status.SUCCESS, EventType.REFUND_SUCCEEDED),
        ("refund_failed", Status.SUCCESS, EventType.REFUND_FAILED),
        ("refund_canceled", Status.SUCCESS, None),
        ("dispute_opened", Status.SUCCESS, EventType.DISPUTE_OPENED),
        ("dispute_closed", Status.NEEDS_REVIEW, EventType.DISPUTE_CLOSED),
    ],
)
def test_a_change_has_one_type(event: str, status: Status, type_: EventType | None) -> None:
    assert type_of_change(event, status) == type_


def test_every_status_that_a_settled_payment_can_have_is_reported() -> None:
    reported = {status for status in Status if type_of_change("settled", status) is not None}
    assert set(Status) - reported == {Status.PENDING, Status.PROCESSING}


def test_a_wildcard_receives_its_kind_only() -> None:
    assert matches(["payment.*"], "payment.retried")
    assert not matches(["payment.*"], "webhook_endpoint.failing")
    assert not matches(["payment.succeeded"], "payment.failed")
    assert all(matches(["*"], one) for one in EventType)
    assert not matches([], "payment.succeeded")


def test_a_test_event_needs_no_subscription() -> None:
    assert matches([], EventType.ENDPOINT_TEST)
    assert not is_pattern(EventType.ENDPOINT_TEST)


@pytest.mark.parametrize("pattern", [*WILDCARDS, *DEFAULT_TYPES, "webhook_endpoint.failing"])
def test_patterns_are_taken_and_expand_to_what_they_match(pattern: str) -> None:
    assert is_pattern(pattern)
    assert expand([pattern]) == {one for one in EventType if is_pattern(one) and matches([pattern], one)}


@pytest.mark.parametrize(
    "pattern", ["", "payment", "payment.", "pay*", "**", "payment.succeeded.*", "refund.requested", "PAYMENT.*"]
)
def test_other_texts_are_no_patterns(pattern: str) -> None:
    assert not is_pattern(pattern)
    assert expand([pattern]) == frozenset()
