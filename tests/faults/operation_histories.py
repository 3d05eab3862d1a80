"""Histories of captures, voids and refunds: one good one with every kind of ending, and the means to spoil it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from okane.operation import OperationKind, OperationStatus
from okane.payment import Status
from tests.faults.histories import STARTED_S, story
from torture.history.journals import Charge, EventRow, History, PaymentRow
from torture.history.operations import Move, OperationEventRow, OperationHistory, OperationRequest, OperationRow
from torture.invariants.operations import CANCELED, FAILED, REQUESTED, SUCCEEDED

_STATUS = {
    "claimed": OperationStatus.PROCESSING,
    "success": OperationStatus.SUCCESS,
    "declined": OperationStatus.FAILED_FINAL,
    "failed": OperationStatus.FAILED_FINAL,
    "unknown": OperationStatus.UNKNOWN,
    "pending": OperationStatus.SUBMITTED,
    "unavailable": OperationStatus.FAILED_RETRYABLE,
    "needs_review": OperationStatus.NEEDS_REVIEW,
    "canceled": OperationStatus.CANCELED,
}
_WORDS = {
    OperationStatus.SUCCESS: SUCCEEDED,
    OperationStatus.FAILED_FINAL: FAILED,
    OperationStatus.CANCELED: CANCELED,
}
GAVE_BACK = (OperationStatus.FAILED_FINAL, OperationStatus.CANCELED)


@dataclass(frozen=True, slots=True)
class Told:
    """One operation as Postgres and the provider have it."""

    row: OperationRow
    events: Sequence[OperationEventRow]
    moves: Sequence[Move] = ()


def told(
    name: str, kind: OperationKind, payment: str, amount_minor: int, *words: str, moves: Sequence[bool] | None = None
) -> Told:
    """An operation to which these events happened. `moves`: whether each object at the provider moved money.

    `late_result:failed_final` says where a late result led.
    """
    status, attempt = OperationStatus.PENDING, 0
    events = []
    for version, said in enumerate(words, 1):
        word, _, led_to = said.partition(":")
        attempt += word == "claimed"
        status = OperationStatus(led_to) if led_to else _STATUS[word]
        at_s = STARTED_S + 50 + version
        line = OperationEventRow(
            version=version, at_s=at_s, event=word, status=status, attempt=attempt, actor="w1", provider="http"
        )
        events.append(line)
    row = OperationRow(
        id=f"op-{name}",
        payment_id=f"id-{payment}",
        account_id="default",
        kind=kind,
        key=f"key-op-{name}",
        amount_minor=amount_minor,
        currency="USD",
        status=status,
        version=len(events),
        attempts=attempt,
        provider="http",
        provider_key=f"op-{name}",
        reason="as a human reads" if status is OperationStatus.NEEDS_REVIEW else None,
    )
    happened = [status is OperationStatus.SUCCESS] if moves is None else moves
    return Told(row, events, [move(row, moved=one) for one in happened if attempt])


def move(row: OperationRow, **changes: Any) -> Move:
    """The object that this operation made at its provider."""
    made = Move(
        made_by=row.id,
        payment_id=row.payment_id,
        kind=row.kind,
        amount_minor=row.amount_minor,
        currency=row.currency,
        moved=True,
        at_s=STARTED_S + 60,
    )
    return replace(made, **changes)


_CAPTURE, _VOID, _REFUND = OperationKind.CAPTURE, OperationKind.VOID, OperationKind.REFUND
OPERATIONS: Sequence[Told] = (
    told("all", _REFUND, "refunded", 1000, "claimed", "success"),
    told("half", _REFUND, "parts", 500, "claimed", "unknown", "claimed", "success"),
    told("rest", _REFUND, "parts", 300, "claimed", "claimed", "success"),
    told("refused", _REFUND, "parts", 200, "claimed", "declined", moves=[False]),
    told("withdrawn", _REFUND, "parts", 200, "claimed", "unavailable", "canceled", moves=[]),
    told("sent back", _REFUND, "parts", 200, "claimed", "success", "late_result:failed_final", moves=[False]),
    told("slow", _REFUND, "parts", 200, "claimed", "pending", "claimed", "success"),
    told("doubtful", _REFUND, "doubted", 100, "claimed", "unknown", "claimed", "needs_review", moves=[True]),
    told("whole", _CAPTURE, "captured", 1000, "claimed", "success"),
    told("part", _CAPTURE, "part-captured", 600, "claimed", "success"),
    told("of the part", _REFUND, "part-captured", 600, "claimed", "success"),
    told("let go", _VOID, "voided", 1000, "claimed", "success"),
    told("not captured", _CAPTURE, "voided", 1000, "claimed", "declined", moves=[False]),
    told("own void", _VOID, "ended", 1000, "claimed", "success"),
)
BY_NAME = {one.row.id.removeprefix("op-"): one for one in OPERATIONS}


def good() -> History:
    """A history in which everything holds although much went wrong."""
    return history_of(OPERATIONS)


def history_of(operations: Sequence[Told]) -> History:
    """The history of these operations, and of their payments, whose rows say what they should."""
    of_payment: dict[str, list[Told]] = {}
    for one in operations:
        of_payment.setdefault(one.row.payment_id, []).append(one)
    rows, events, charges = {}, {}, []
    for payment_id, made in of_payment.items():
        rows[payment_id], events[payment_id], charge = _payment(
            payment_id.removeprefix("id-"), [one.row for one in made]
        )
        charges.append(charge)
    return History(
        rows=rows,
        events=events,
        charges=charges,
        operations=OperationHistory(
            requests=[asked(one.row) for one in operations if one.row.id != "op-own void"],
            moves=[each for one in operations for each in one.moves],
            rows={one.row.id: one.row for one in operations},
            events={one.row.id: one.events for one in operations},
        ),
    )


def asked(row: OperationRow, **changes: Any) -> OperationRequest:
    """The POST of this operation, acknowledged unless something else is said."""
    request = OperationRequest(
        key=row.key or "",
        payment_id=row.payment_id,
        kind=row.kind,
        amount_minor=row.amount_minor,
        status=202,
        operation_id=row.id,
    )
    return replace(request, **changes)


def _payment(name: str, operations: Sequence[OperationRow]) -> tuple[PaymentRow, Sequence[EventRow], Charge]:
    """The row, the events and the charge of a payment with these operations."""
    manual = any(one.kind is not OperationKind.REFUND for one in operations)
    one = story(name, "claimed", "authorized" if manual else "success").charged(captured=not manual)
    status, events = one.row.status, list(one.events)
    for operation in operations:
        words = [REQUESTED[operation.kind]]
        if operation.id == "op-sent back":
            words.append(SUCCEEDED[operation.kind])
        if operation.status in _WORDS:
            words.append(_WORDS[operation.status][operation.kind])
        for word in words:
            status = {"captured": Status.SUCCESS, "voided": Status.CANCELED}.get(word, status)
            version = len(events) + 1
            line = EventRow(
                version=version,
                at_s=STARTED_S + version,
                event=word,
                status=status,
                attempt=1,
                actor="w1",
                operation_id=operation.id,
            )
            events.append(line)
    captured = [each for each in operations if each.kind is _CAPTURE and each.status is OperationStatus.SUCCESS]
    refunds = [each for each in operations if each.kind is _REFUND]
    row = replace(
        one.row,
        status=status,
        version=len(events),
        amount_captured=captured[0].amount_minor if captured else None,
        amount_refunded=_sum(each for each in refunds if each.status is OperationStatus.SUCCESS),
        refund_reserved=_sum(each for each in refunds if each.status not in GAVE_BACK),
    )
    return row, events, replace(one.charges[0], held=manual, captured=status is Status.SUCCESS)


def _sum(operations: Any) -> int | None:
    return sum(each.amount_minor for each in operations) or None


Spoil = Callable[[History], History]


def with_operation(name: str, **changes: Any) -> Spoil:
    """Another row for this operation."""

    def spoil(history: History) -> History:
        rows = dict(history.operations.rows)
        rows[f"op-{name}"] = replace(rows[f"op-{name}"], **changes)
        return replace(history, operations=replace(history.operations, rows=rows))

    return spoil


def with_moves(*more: Move) -> Spoil:
    """These objects at the provider, too."""
    return lambda history: _with(history, moves=[*history.operations.moves, *more])


def without_moves(name: str) -> Spoil:
    """The provider knows nothing of this operation."""
    return lambda history: _with(
        history, moves=[each for each in history.operations.moves if each.made_by != f"op-{name}"]
    )


def with_asked(*more: OperationRequest) -> Spoil:
    """These requests, too."""
    return lambda history: _with(history, requests=[*history.operations.requests, *more])


def with_operation_event(name: str, version: int, /, **changes: Any) -> Spoil:
    """Another event in the place of this one."""

    def spoil(history: History) -> History:
        lines = [
            replace(line, **changes) if line.version == version else line
            for line in history.operations.events[f"op-{name}"]
        ]
        events: Mapping[str, Sequence[OperationEventRow]] = {**history.operations.events, f"op-{name}": lines}
        return _with(history, events=events)

    return spoil


def with_payment_events(name: str, change: Callable[[Sequence[EventRow]], Sequence[EventRow]]) -> Spoil:
    """Another timeline of this payment, and the version in its row that goes with it."""

    def spoil(history: History) -> History:
        lines = [replace(line, version=at) for at, line in enumerate(change(history.events[f"id-{name}"]), 1)]
        row = replace(history.rows[f"id-{name}"], version=len(lines))
        return replace(
            history,
            events={**history.events, f"id-{name}": lines},
            rows={**history.rows, f"id-{name}": row},
        )

    return spoil


def _with(history: History, **changes: Any) -> History:
    return replace(history, operations=replace(history.operations, **changes))
