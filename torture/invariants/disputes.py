"""Disputes: I37 (okane has those of the gateway), I38 (the timelines of their payments tell of them)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from torture.history.disputes import DisputeRow, DisputeStep
from torture.history.journals import History
from torture.invariants.violation import Violation

_EVENTS = ("dispute_opened", "dispute_closed")


def disputes_are_there_once(history: History) -> Sequence[Violation]:
    """I37: every dispute in the gateway's books is there once, as it is in the books, and no other is."""
    rows: dict[str, list[DisputeRow]] = defaultdict(list)
    for row in history.disputes.rows:
        rows[row.ref].append(row)
    found = []
    for booked in history.disputes.booked:
        there = rows.pop(booked.ref, [])
        if len(there) != 1:
            found.append(Violation("I37", booked.ref, f"is there {len(there)} times", f"{booked}, {there}"))
        elif _about(there[0]) != (booked.payment_id, booked.amount_minor, booked.currency):
            found.append(
                Violation("I37", booked.ref, "is another payment's, or of another amount", f"{booked}, {there}")
            )
        elif there[0].status != booked.status:
            found.append(
                Violation("I37", booked.ref, f"is {there[0].status}, not {booked.status}", f"{booked}, {there}")
            )
    found.extend(Violation("I37", ref, "is not in the gateway's books", repr(there)) for ref, there in rows.items())
    return found


def timelines_tell_of_disputes(history: History) -> Sequence[Violation]:
    """I38: each event about a dispute is that of one dispute; its opening is told once, before its end, and its end once."""
    told = {
        (payment_id, line.version): line.event
        for payment_id, lines in history.events.items()
        for line in lines
        if line.event in _EVENTS
    }
    steps: dict[str, list[DisputeStep]] = defaultdict(list)
    for step in history.disputes.steps:
        steps[step.ref].append(step)
    found: list[Violation] = []
    for row in history.disputes.rows:
        own = sorted(steps.get(row.ref, ()), key=lambda step: step.version)
        events = [told.get((step.payment_id, step.version)) for step in own]
        evidence = f"{row}, {own}, {events}"
        found.extend(Violation("I38", row.ref, wrong, evidence) for wrong in _wrong_story(row, own, events))
    known = Counter((step.payment_id, step.version) for step in history.disputes.steps)
    found.extend(
        Violation(
            "I38", payment_id, f"{event!r} in version {version} is that of {known[payment_id, version]} disputes", ""
        )
        for (payment_id, version), event in told.items()
        if known[payment_id, version] != 1
    )
    return found


def _wrong_story(row: DisputeRow, steps: Sequence[DisputeStep], events: Sequence[str | None]) -> Iterator[str]:
    if any(step.payment_id != row.payment_id for step in steps):
        yield "is told in the timeline of another payment"
    elif list(events) not in _stories(row):
        yield f"is {row.status}, and its payment tells {events}"
    elif any((event == "dispute_closed") is not _is_over(step) for step, event in zip(steps, events, strict=True)):
        yield "is told in a status that it did not have"


def _stories(row: DisputeRow) -> Sequence[list[str | None]]:
    """Return the events that may tell of a dispute. One that was fetched for the first time when it was over never opened."""
    opened, closed = _EVENTS
    return [[opened, closed], [closed]] if row.is_over else [[opened]]


def _is_over(step: DisputeStep) -> bool:
    return step.status in ("won", "lost", "closed")


def _about(row: DisputeRow) -> tuple[str, int, str]:
    return row.payment_id, row.amount_minor, row.currency
