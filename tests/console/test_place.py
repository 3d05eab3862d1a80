"""The present place of a payment: the last line of its timeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from okane.console.place import Place, find_place, may_have_entry, woken_at
from okane.payment import Payment, Status
from okane.store import Event
from okane.store.payment_details import PaymentDetails
from streams import EntrySearch, FoundEntry, PendingEntry

ID = UUID("01a2279d-06ea-7c11-8b52-0c5b0f0f6a01")
START = datetime(2026, 11, 30, 8, tzinfo=UTC)
NOW = START + timedelta(minutes=10)
SOON, EARLIER = NOW + timedelta(seconds=20), NOW - timedelta(seconds=20)
NOT_THERE = EntrySearch(found=None, complete=True)
UNREAD = EntrySearch(found=FoundEntry(id="1764-0", pending=None), complete=True)
READ = EntrySearch(
    found=FoundEntry(
        id="1764-0",
        pending=PendingEntry(id="1764-0", lane="low", consumer="worker-2", idle_ms=3000, deliveries=1, body=ID.bytes),
    ),
    complete=True,
)


def details(
    status: Status, *, events: Sequence[Event] = (), sweep_at: datetime | None = None, **more: Any
) -> PaymentDetails:
    lease_until = more.pop("lease_until", None)
    payment = Payment(ID, "default", "k", 440, "USD", "low", status, 1, 0, 2, str(ID), START, START, {})
    return PaymentDetails(
        payment=replace(payment, **more),
        requested_provider=None,
        pinned=False,
        lease_until=lease_until,
        sweep_at=sweep_at,
        dead_at=None,
        now=NOW,
        events=events,
    )


def event(name: str, at: datetime, actor: str = "worker-2") -> Event:
    return Event(ID, 1, at, name, Status.PENDING, 1, actor, None, None, None)


@pytest.mark.parametrize(
    ("one", "search", "place"),
    [
        (details(Status.SUCCESS), None, None),
        (details(Status.CANCELED, sweep_at=SOON), None, Place(kind="late_look_up", until=SOON)),
        (details(Status.NEEDS_REVIEW), None, Place(kind="review")),
        (details(Status.PENDING, execute_at=SOON), None, Place(kind="scheduled", until=SOON)),
        (details(Status.FAILED_RETRYABLE, retry_at=SOON), None, Place(kind="waits", until=SOON)),
        (details(Status.UNKNOWN, retry_at=SOON), None, Place(kind="waits", until=SOON)),
        (details(Status.REQUIRES_ACTION, retry_at=SOON), None, Place(kind="customer", until=SOON)),
        (details(Status.SUBMITTED, retry_at=SOON), None, Place(kind="provider", until=SOON)),
        (details(Status.AUTHORIZED, capture_before=SOON), UNREAD, Place(kind="client", until=SOON)),
        (details(Status.AUTHORIZED, open_operation=ID), None, Place(kind="operation")),
        (details(Status.PENDING), UNREAD, Place(kind="unread", entry_id="1764-0")),
        (details(Status.PENDING), READ, Place(kind="read", entry_id="1764-0", worker="worker-2", idle_ms=3000)),
        (details(Status.FAILED_RETRYABLE, retry_at=EARLIER), NOT_THERE, Place(kind="no_wake_up")),
        (details(Status.PENDING, sweep_at=SOON), NOT_THERE, Place(kind="no_wake_up", until=SOON)),
        (details(Status.PENDING, sweep_at=EARLIER), NOT_THERE, Place(kind="no_wake_up")),
        (details(Status.PENDING), EntrySearch(found=None, complete=False), Place(kind="not_found")),
        (details(Status.PENDING), None, Place(kind="redis_away")),
        (
            details(Status.PROCESSING, events=[event("claimed", START, "worker-7")], lease_until=SOON),
            READ,
            Place(kind="held", until=SOON, worker="worker-7", entry_id="1764-0", idle_ms=3000),
        ),
        (
            details(Status.PROCESSING, events=[event("claimed", START, "worker-7")], lease_until=SOON),
            None,
            Place(kind="held", until=SOON, worker="worker-7"),
        ),
        (
            details(Status.PROCESSING, events=[event("claimed", START, "worker-7")], lease_until=EARLIER),
            NOT_THERE,
            Place(kind="lease_over", until=EARLIER, worker="worker-7"),
        ),
    ],
)
def test_the_last_line_says_where_the_payment_is(
    one: PaymentDetails, search: EntrySearch | None, place: Place | None
) -> None:
    assert find_place(one, search) == place


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("search", [None, NOT_THERE, UNREAD, READ])
def test_every_open_payment_has_a_place(status: Status, search: EntrySearch | None) -> None:
    assert (find_place(details(status), search) is None) == status.is_terminal


def test_the_stream_is_asked_only_for_payments_that_should_be_on_it() -> None:
    assert may_have_entry(details(Status.PENDING))
    assert may_have_entry(details(Status.PROCESSING))
    assert may_have_entry(details(Status.UNKNOWN, retry_at=EARLIER))
    held = details(Status.AUTHORIZED, sweep_at=SOON)  # its wake-up is sent when the money is about to be let go
    for one in (details(Status.SUCCESS), details(Status.NEEDS_REVIEW), held, details(Status.UNKNOWN, retry_at=SOON)):
        assert not may_have_entry(one)


def test_a_wake_up_is_looked_for_at_its_latest_time() -> None:
    assert woken_at(details(Status.PENDING)) == START
    assert woken_at(details(Status.PENDING, execute_at=EARLIER)) == EARLIER
    assert woken_at(details(Status.FAILED_RETRYABLE, retry_at=EARLIER)) == EARLIER
    assert woken_at(details(Status.FAILED_RETRYABLE, retry_at=SOON)) == START
    retried = [event("retried", START + timedelta(minutes=1)), event("retried", START + timedelta(minutes=2))]
    assert woken_at(details(Status.PENDING, events=retried)) == START + timedelta(minutes=2)
