"""Where a payment is at present: the last line of its timeline. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from okane.payment import AWAITING_PROVIDER, Status
from okane.store.payment_details import PaymentDetails
from streams import EntrySearch

PlaceKind = Literal[
    "review",  # a human decides
    "late_look_up",  # closed, and looked up once more
    "held",  # a worker has it
    "lease_over",  # its worker has not renewed the lease: another takes it
    "scheduled",
    "customer",  # the customer acts
    "client",  # its money is held, until the client captures it or lets it go
    "operation",  # its capture or void is under way
    "provider",  # the provider decides
    "waits",  # for a retry or a look-up
    "unread",  # in its lane
    "read",  # a worker has its wake-up, and has not claimed it yet
    "no_wake_up",  # the sweep finds it
    "not_found",  # its wake-up may be among more entries than were read
    "redis_away",
]

# An entry is found by its time: its id begins with the millisecond at which it was added.
BEFORE, BEHIND = timedelta(seconds=1), timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The place. `until`: when it ends (a lease, a wait, the next sweep). `worker` has the payment, or its entry `entry_id`;
    `idle_ms` is the time since it read the entry or renewed its lease."""

    kind: PlaceKind
    until: datetime | None = None
    worker: str | None = None
    entry_id: str | None = None
    idle_ms: int | None = None


def may_have_entry(details: PaymentDetails) -> bool:
    """Tell whether a wake-up of the payment should be on the stream now."""
    status = details.payment.status
    if status.is_at_rest or status in (Status.PROCESSING, Status.AUTHORIZED):
        return status is Status.PROCESSING
    return not _is_waiting(details)


def woken_at(details: PaymentDetails) -> datetime:
    """Return about when the latest wake-up of a payment was sent: at its acceptance, its time, or the last manual retry."""
    payment = details.payment
    moments = [payment.created_at, payment.execute_at, payment.retry_at]
    moments += [event.at for event in details.events if event.event == "retried"]
    return max(one for one in moments if (one is not None and one <= details.now) or one == payment.created_at)


def find_place(details: PaymentDetails, search: EntrySearch | None) -> Place | None:
    """Return the place of a payment; None for one that is closed for good. `search`: its entry on the stream, None if Redis
    did not answer, or was not asked."""
    payment, now = details.payment, details.now
    match payment.status:
        case Status.NEEDS_REVIEW:
            return Place(kind="review")
        case status if status.is_terminal:
            return None if details.sweep_at is None else Place(kind="late_look_up", until=details.sweep_at)
        case Status.PROCESSING:
            return _held(details, search)
        case Status.AUTHORIZED:
            return Place(kind="client" if payment.open_operation is None else "operation", until=payment.capture_before)
        case status if _is_waiting(details):
            if status is Status.PENDING:
                return Place(kind="scheduled", until=payment.execute_at)
            kind: PlaceKind = "waits"
            if status in AWAITING_PROVIDER:
                kind = "customer" if status is Status.REQUIRES_ACTION else "provider"
            return Place(kind=kind, until=payment.retry_at)
    if search is None:
        return Place(kind="redis_away")
    if search.found is None:
        sweep_at = details.sweep_at if details.sweep_at is not None and details.sweep_at > now else None
        return Place(kind="no_wake_up" if search.complete else "not_found", until=sweep_at)
    pending = search.found.pending
    if pending is None:
        return Place(kind="unread", entry_id=search.found.id)
    return Place(kind="read", entry_id=search.found.id, worker=pending.consumer, idle_ms=pending.idle_ms)


def _held(details: PaymentDetails, search: EntrySearch | None) -> Place:
    claims = [event for event in details.events if event.event == "claimed"]
    worker = claims[-1].actor if claims else None
    found = None if search is None else search.found
    entry_id = None if found is None else found.id
    over = details.lease_until is None or details.lease_until <= details.now
    if over:
        return Place(kind="lease_over", until=details.lease_until, worker=worker, entry_id=entry_id)
    pending = None if found is None else found.pending
    return Place(
        kind="held",
        until=details.lease_until,
        worker=worker,
        entry_id=entry_id,
        idle_ms=None if pending is None else pending.idle_ms,
    )


def _is_waiting(details: PaymentDetails) -> bool:
    """Tell whether an open payment that no worker has is due later."""
    payment = details.payment
    due = payment.execute_at if payment.status is Status.PENDING else payment.retry_at
    return due is not None and due > details.now
