"""The events of each payment: I6 (allowed changes of status) and I8 (writes under the live claim)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from okane.payment import AWAITING_PROVIDER, CLOSED_UNCHARGED, TERMINAL, TRANSITIONS, Status
from torture.history.journals import EventRow, History, Observation, PaymentRow
from torture.invariants.pins import OF_OPERATIONS
from torture.invariants.violation import Violation

# The words for the outcomes of an attempt, and the status that each leads to.
_OUTCOMES = {
    "success": Status.SUCCESS,
    "declined": Status.FAILED_FINAL,
    "spent": Status.FAILED_FINAL,
    "unavailable": Status.FAILED_RETRYABLE,
    "unknown": Status.UNKNOWN,
    "deferred": Status.FAILED_RETRYABLE,
}

_CLOSES = {("captured", Status.SUCCESS), ("voided", Status.CANCELED)}

Fault = Callable[[Sequence[EventRow], PaymentRow], str | None]


def terminal_statuses_stay(history: History) -> Sequence[Violation]:
    """I6: a terminal status changes by a recorded manual action or a late charge only; every change is allowed and kept."""
    found = _found("I6", history, _wrong_change)
    found.extend(
        Violation("I6", payment_id, "events without a payment", repr(events))
        for payment_id, events in history.events.items()
        if payment_id not in history.rows
    )
    found.extend(
        Violation("I6", seen.payment_id, "a client saw what never was", f"{seen}, {events}")
        for seen in history.observations
        if _never_was(seen, history.rows.get(seen.payment_id), events := history.events.get(seen.payment_id, ()))
    )
    return found


def attempts_fence(history: History) -> Sequence[Violation]:
    """I8: attempts rise by one with every claim, and nothing is written under another than the live claim's."""
    return _found("I8", history, _wrong_attempt)


def _found(invariant: str, history: History, fault: Fault) -> list[Violation]:
    found = []
    for row in history.rows.values():
        events = history.events.get(row.id, ())
        wrong = fault(events, row)
        if wrong is not None:
            found.append(Violation(invariant, row.id, wrong, f"{row}, {events}"))
    return found


def _wrong_change(events: Sequence[EventRow], row: PaymentRow) -> str | None:
    status, version = Status.PENDING, 0
    for line in events:
        if line.version != version + 1:
            return f"version {line.version} comes after {version}"
        if not _allowed(status, line):
            return f"{status} became {line.status} by {line.event!r}"
        status, version = line.status, line.version
    if (row.status, row.version) != (status, version):
        return f"the row is {row.status} at version {row.version}, its events end with {status} at {version}"
    return None


def _allowed(before: Status, line: EventRow) -> bool:
    after = line.status
    match line.event:
        case "claimed":
            return after is Status.PROCESSING and after in TRANSITIONS[before]
        case "late_result":  # only kept, but for money that moved for a payment called failed
            return after is before or (
                before.is_terminal and after in TRANSITIONS[before] and after is Status.NEEDS_REVIEW
            )
        case "retried":
            return after is Status.PENDING and after in TRANSITIONS[before]
        case "needs_review":  # open for too long, or poison
            return after is Status.NEEDS_REVIEW and after in TRANSITIONS[before] and not before.is_terminal
        case "unanswered":  # closed, and the provider does not say whether a charge arrived later
            return after is Status.NEEDS_REVIEW and before in CLOSED_UNCHARGED
        case word if word in OF_OPERATIONS:  # a capture or void closes it; everything else keeps its status
            closes = before is Status.AUTHORIZED and (word, after) in _CLOSES
            return line.operation_id is not None and (after is before or closes)
        case "dispute_opened" | "dispute_closed":
            return after is before
        case "authorized":  # the money is held
            return before is Status.PROCESSING and after is Status.AUTHORIZED
        case "pending":  # the provider decides later
            return before is Status.PROCESSING and after in AWAITING_PROVIDER
        case outcome if outcome in _OUTCOMES:
            return before is Status.PROCESSING and after is _OUTCOMES[outcome]
        case _:  # a decision by a human
            return after in TRANSITIONS[before] and not before.is_terminal


def _wrong_attempt(events: Sequence[EventRow], row: PaymentRow) -> str | None:
    live = 0
    for line in events:
        match line.event:
            case "claimed" if line.attempt != live + 1:
                return f"attempt {line.attempt} was claimed after {live}"
            case "claimed":
                live = line.attempt
            case "late_result" if line.attempt <= live:
                pass
            case _ if line.attempt != live:
                return f"{line.event!r} was written under attempt {line.attempt}, the live one was {live}"
    return None if row.attempts == live else f"the row counts {row.attempts} attempts, its events {live}"


def _never_was(seen: Observation, row: PaymentRow | None, events: Sequence[EventRow]) -> bool:
    """A terminal status in an answer to a client is the payment's, or was once according to its events."""
    if row is None or seen.status not in TERMINAL:
        return False
    return seen.status != row.status and all(line.status != seen.status for line in events)
