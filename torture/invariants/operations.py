"""The operations of a payment against the providers' books: I21, I22, I28 to I30 (money), and I31 (the payment's row).

The books tell what moved; the rows of payments and operations must say the same. Shared with the simulation's audit.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from okane.operation import OperationKind, OperationStatus
from okane.payment import Status
from torture.history.journals import Charge, EventRow, History, PaymentRow
from torture.history.operations import Move, OperationRow
from torture.invariants.violation import Violation

_AGAIN = frozenset({"retried", "resolved", "late_result", "unanswered"})
_GAVE_BACK = frozenset({OperationStatus.FAILED_FINAL, OperationStatus.CANCELED})  # their reservation, if they had one

# The events of a payment that tell the request of an operation, and each way in which it can end.
REQUESTED = {kind: f"{kind}_requested" for kind in OperationKind}
SUCCEEDED = {OperationKind.CAPTURE: "captured", OperationKind.VOID: "voided", OperationKind.REFUND: "refunded"}
FAILED = {kind: f"{kind}_failed" for kind in OperationKind}
CANCELED = {kind: f"{kind}_canceled" for kind in OperationKind}


def captured_is_authorized(history: History) -> Sequence[Violation]:
    """I21: a payment is captured once, and for no more than was authorized."""
    found = []
    charges = _charges(history)
    for payment_id, captures in _by_payment(history, OperationKind.CAPTURE).items():
        authorized = sum(charge.amount_minor for charge in charges.get(payment_id, ()))
        captured = sum(move.amount_minor for move in captures)
        if captured > authorized:
            what = f"{captured} were captured of {authorized}"
            found.append(Violation("I21", payment_id, what, repr(captures)))
        elif len({move.made_by for move in captures}) > 1:
            found.append(Violation("I21", payment_id, "captured by two operations", repr(captures)))
    return found


def refunded_is_captured(history: History) -> Sequence[Violation]:
    """I22: the refunds of a payment never exceed what was captured of it."""
    found = []
    charges, captures = _charges(history), _by_payment(history, OperationKind.CAPTURE)
    for payment_id, refunds in _by_payment(history, OperationKind.REFUND).items():
        charged = sum(one.amount_minor for one in charges.get(payment_id, ()) if one.captured)
        by_capture = sum(move.amount_minor for move in captures.get(payment_id, ()))
        captured = min(charged, by_capture) if payment_id in captures else charged
        refunded = sum(move.amount_minor for move in refunds)
        if refunded > captured:
            what = f"{refunded} were given back of {captured}"
            found.append(Violation("I22", payment_id, what, repr(refunds)))
    return found


def one_move_per_operation(history: History) -> Sequence[Violation]:
    """I28: an operation moves money once at most."""
    counts = Counter(move.made_by for move in _moved(history))
    return [
        Violation("I28", operation_id, f"moved money {count} times", repr(_of(history, operation_id)))
        for operation_id, count in counts.items()
        if count > 1
    ]


def success_means_moved(history: History) -> Sequence[Violation]:
    """I29: `success` if and only if the provider's books have it, with that amount; `failed_final` and `canceled` if not."""
    moved: dict[str, list[Move]] = defaultdict(list)
    for move in _moved(history):
        moved[move.made_by].append(move)
    found = [
        Violation("I29", row.id, wrong, f"{row}, {moved.get(row.id)}")
        for row in history.operations.rows.values()
        if (wrong := _wrong_money(row, moved.get(row.id, ()))) is not None
    ]
    found.extend(
        Violation("I29", operation_id, "moved money, and there is no such operation", repr(moves))
        for operation_id, moves in moved.items()
        if operation_id not in history.operations.rows
    )
    return found


def nothing_follows_a_void(history: History) -> Sequence[Violation]:
    """I30: a payment that was voided has not moved money, and moves none. Its refunds are I22's."""
    charged = {one.payment_id for one in history.charges if one.captured}
    captured = charged | _by_payment(history, OperationKind.CAPTURE).keys()
    found = []
    for payment_id, voids in _by_payment(history, OperationKind.VOID).items():
        if payment_id in captured:
            found.append(Violation("I30", payment_id, "money moved beside a void", repr(voids)))
        elif len({move.made_by for move in voids}) > 1:
            found.append(Violation("I30", payment_id, "voided by two operations", repr(voids)))
    return found


def amounts_are_sums(history: History) -> Sequence[Violation]:
    """I31: the amounts in a payment's row are the sums of its operations, and its timeline tells each of them once."""
    operations: dict[str, list[OperationRow]] = defaultdict(list)
    for row in history.operations.rows.values():
        operations[row.payment_id].append(row)
    found = []
    for payment in history.rows.values():
        made = operations.get(payment.id, ())
        again = {
            row.id for row in made if any(line.event in _AGAIN for line in history.operations.events.get(row.id, ()))
        }
        for wrong in _wrong_row(payment, made, history.events.get(payment.id, ()), again):
            found.append(Violation("I31", payment.id, wrong, f"{payment}, {operations.get(payment.id)}"))
    found.extend(
        Violation("I31", payment_id, "operations of no payment", repr(rows))
        for payment_id, rows in operations.items()
        if payment_id not in history.rows
    )
    return found


def _wrong_money(row: OperationRow, moves: Sequence[Move]) -> str | None:
    if row.status in _GAVE_BACK:
        return f"{row.kind} is {row.status}, and moved money" if moves else None
    if row.status is OperationStatus.SUCCESS and not moves:
        return f"{row.kind} is a success, and moved nothing"
    for move in moves:
        if (move.payment_id, move.kind) != (row.payment_id, row.kind):
            return f"moved the money of another payment, or as a {move.kind}"
        if (move.amount_minor, move.currency) != (row.amount_minor, row.currency):
            return f"moved {move.amount_minor} {move.currency}, not {row.amount_minor} {row.currency}"
    return None


def _wrong_row(
    payment: PaymentRow, operations: Sequence[OperationRow], events: Sequence[EventRow], again: Container[str]
) -> Iterator[str]:
    """Yield what is wrong with the row of a payment, given its operations; those in `again` may be told of twice."""
    refunds = [one for one in operations if one.kind is OperationKind.REFUND]
    refunded = sum(one.amount_minor for one in refunds if one.status is OperationStatus.SUCCESS)
    reserved = sum(one.amount_minor for one in refunds if one.status not in _GAVE_BACK)
    if (payment.amount_refunded or 0) != refunded:
        yield f"says that {payment.amount_refunded} were refunded, its refunds {refunded}"
    if (payment.refund_reserved or 0) != reserved:
        yield f"says that {payment.refund_reserved} are reserved, its refunds {reserved}"
    yield from _wrong_close(payment, operations)
    told = Counter((line.operation_id, line.event) for line in events if line.operation_id is not None)
    known = {one.id for one in operations}
    for (operation_id, event), count in told.items():
        if operation_id not in known:
            yield f"tells of {event!r} of an operation that it does not have"
        elif count > 1 and event != "late_result" and operation_id not in again:
            yield f"tells of {event!r} of {operation_id} {count} times"
    for one in operations:
        due = [REQUESTED[one.kind], *_last_word(one)]
        missing = [event for event in due if not told[one.id, event]]
        if missing:
            yield f"does not tell of {missing} of {one.id}"


def _wrong_close(payment: PaymentRow, operations: Sequence[OperationRow]) -> Iterator[str]:
    """Yield what is wrong with the status of a payment that was captured or voided."""
    done = {one.kind: one for one in operations if one.status is OperationStatus.SUCCESS}
    capture, void = done.get(OperationKind.CAPTURE), done.get(OperationKind.VOID)
    if capture is not None:
        if payment.status is not Status.SUCCESS:
            yield f"is {payment.status}, and was captured"
        if (payment.amount_captured or payment.amount_minor) != capture.amount_minor:
            yield f"says that {payment.amount_captured} were captured, its capture {capture.amount_minor}"
    elif payment.amount_captured not in (None, payment.amount_minor):
        yield f"says that {payment.amount_captured} were captured, and no capture did it"
    if void is not None and payment.status is not Status.CANCELED:
        yield f"is {payment.status}, and was voided"
    waiting = {one.id for one in operations if not one.status.is_at_rest or one.status is OperationStatus.NEEDS_REVIEW}
    if payment.open_operation is not None and payment.open_operation not in waiting:
        yield f"waits for {payment.open_operation}, which has ended"


def _last_word(operation: OperationRow) -> Sequence[str]:
    """Return the event of a payment that tells how an operation ended."""
    match operation.status:
        case OperationStatus.SUCCESS:
            return [SUCCEEDED[operation.kind]]
        case OperationStatus.FAILED_FINAL:  # okane's own void: a human must look at what is still held
            return ["needs_review" if operation.key is None else FAILED[operation.kind]]
        case OperationStatus.CANCELED:
            return [CANCELED[operation.kind]]
        case _:
            return []


def _moved(history: History) -> Iterable[Move]:
    return (move for move in history.operations.moves if move.moved)


def _of(history: History, operation_id: str) -> Sequence[Move]:
    return [move for move in history.operations.moves if move.made_by == operation_id]


def _by_payment(history: History, kind: OperationKind) -> Mapping[str, Sequence[Move]]:
    found: dict[str, list[Move]] = defaultdict(list)
    for move in _moved(history):
        if move.kind is kind:
            found[move.payment_id].append(move)
    return found


def _charges(history: History) -> Mapping[str, Sequence[Charge]]:
    """The charges that hold or have moved money, by payment."""
    found: dict[str, list[Charge]] = defaultdict(list)
    for charge in history.charges:
        if charge.captured or charge.held:
            found[charge.payment_id].append(charge)
    return found
