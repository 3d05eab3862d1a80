"""The decisions of people: I33 (each applied once, as it was meant), I34 (no other changes of what is at rest)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from okane.operation import AT_REST, OperationStatus
from okane.payment import Status
from torture.history.decisions import ACTIONS, Decision
from torture.history.journals import EventRow, History
from torture.history.operations import OperationEventRow
from torture.invariants.violation import Violation

# Money that moved late, or whose look-up has no answer: what was closed needs a human.
_LATE = frozenset({"late_result", "unanswered"})

Line = EventRow | OperationEventRow


def decisions_are_applied_once(history: History) -> Sequence[Violation]:
    """I33: a decision is applied once at most, to what the person saw, under the person's name; an answer tells the truth."""
    found = [
        Violation("I33", one.subject, wrong, f"{one}, {_lines(history, one)}")
        for one in history.decisions or ()
        if (wrong := _wrong_application(one, _lines(history, one))) is not None
    ]
    tries: Counter[tuple[str, str, str]] = Counter()
    for one in history.decisions or ():
        if one.seen is None:
            tries[one.subject, one.action, one.actor] += sum(answer != "refused" for answer in one.answers)
    for (subject, action, actor), count in tries.items():
        lines = _timeline(history, subject)
        applied = sum((line.event, line.actor) == (action, actor) for line in lines)
        if applied > count:
            found.append(Violation("I33", subject, f"{action} {applied} times by {count} requests", repr(lines)))
    return found


def only_people_decide(history: History) -> Sequence[Violation]:
    """I34: every decision in the history was made by a person; nothing else changes what is at rest, but a late result."""
    if history.decisions is None:
        return []
    made: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for one in history.decisions:
        made[one.subject].add((one.action, one.actor))
    return [
        Violation("I34", subject, wrong, repr(lines))
        for subject, lines in _timelines(history)
        for wrong in _unmade(lines, made.get(subject, set()))
    ]


def count_decided(history: History) -> int:
    """Return the number of events that decisions have written."""
    if history.decisions is None:
        return 0
    return sum(line.event in ACTIONS for _, lines in _timelines(history) for line in lines)


def _wrong_application(one: Decision, lines: Sequence[Line]) -> str | None:
    own = [line for line in lines if line.actor == one.actor and line.event in ACTIONS]
    meant = [line for line in lines if (line.event, line.status) == (one.action, one.outcome)]
    if "known" in one.answers and not meant:
        return f"was answered as {one.action} already, and is not"
    if one.is_done and not any(line.actor == one.actor for line in meant):
        return f"was acknowledged as {one.action}, and is not"
    if one.seen is None:
        return None  # its name is that of others, too
    if one.is_refused and own:
        return f"was refused, and is {own[0].event}"
    if len(own) > 1:
        return f"was applied {len(own)} times"
    for line in own:
        if (line.event, line.status) != (one.action, one.outcome):
            return f"was to be {one.action} to {one.outcome}, and is {line.event} to {line.status}"
        if line.version != one.seen + 1:
            return f"was decided by version {one.seen}, and changed in version {line.version}"
    return None


def _unmade(lines: Sequence[Line], made: set[tuple[str, str]]) -> Iterator[str]:
    before: Status | OperationStatus = Status.PENDING
    for line in lines:
        if line.event in ACTIONS:
            if (line.event, line.actor) not in made:
                yield f"{line.event} by {line.actor}, who has not decided that"
        elif _is_at_rest(before) and line.status is not before and line.event not in _LATE:
            yield f"{before} became {line.status} by {line.event!r}, without a decision"
        before = line.status


def _is_at_rest(status: Status | OperationStatus) -> bool:
    return status in AT_REST if isinstance(status, OperationStatus) else status.is_at_rest


def _lines(history: History, one: Decision) -> Sequence[Line]:
    return _timeline(history, one.subject)


def _timeline(history: History, subject: str) -> Sequence[Line]:
    """Return the events of a payment without those that tell of its operations, or of an operation."""
    if subject in history.events:
        return _of_payment(history.events[subject])
    return history.operations.events.get(subject, ())


def _timelines(history: History) -> Iterator[tuple[str, Sequence[Line]]]:
    for payment_id, lines in history.events.items():
        yield payment_id, _of_payment(lines)
    operations: Mapping[str, Sequence[Line]] = history.operations.events
    yield from operations.items()


def _of_payment(lines: Sequence[EventRow]) -> Sequence[EventRow]:
    return [line for line in lines if line.operation_id is None]
