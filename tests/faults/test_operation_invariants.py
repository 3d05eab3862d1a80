"""Every way of breaking an invariant of captures, voids and refunds is caught, and named as that invariant alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from okane.operation import OperationKind
from tests.faults.histories import both, with_row
from tests.faults.operation_histories import (
    BY_NAME,
    OPERATIONS,
    Spoil,
    asked,
    good,
    history_of,
    move,
    told,
    with_asked,
    with_moves,
    with_operation,
    with_operation_event,
    with_payment_events,
    without_moves,
)
from torture.history.journals import History
from torture.invariants.verdict import check

ALL, HALF = (BY_NAME[name].row for name in ("all", "half"))
CAPTURE, VOID, REFUND = OperationKind.CAPTURE, OperationKind.VOID, OperationKind.REFUND
OF_OPERATIONS = {"I21", "I22", *(f"I{number}" for number in range(26, 33))}


def test_a_history_full_of_trouble_holds() -> None:
    verdict = check(good())
    assert verdict.violations == []
    assert not OF_OPERATIONS & set(verdict.not_judged)


def test_refunds_in_doubt_stay_reserved() -> None:
    row = good().rows["id-doubted"]
    assert (row.refund_reserved, row.amount_refunded) == (100, None)


def _unasked(history: History) -> History:
    """No client has an answer."""
    return replace(history, operations=replace(history.operations, requests=[]))


BROKEN: dict[str, tuple[str, Spoil]] = {
    # I21
    "captured more than was authorized": (
        "I21",
        lambda _: history_of([*OPERATIONS, told("x", CAPTURE, "x", 1001, "claimed", "success")]),
    ),
    "captured by two operations": (
        "I21",
        lambda _: history_of(
            [*OPERATIONS, told("x", CAPTURE, "part-captured", 1, "claimed", "needs_review", moves=[True])]
        ),
    ),
    # I22
    "refunded more than was charged": (
        "I22",
        lambda _: history_of([*OPERATIONS, told("x", REFUND, "refunded", 1, "claimed", "success")]),
    ),
    "refunded more than was captured": (
        "I22",
        lambda _: history_of([*OPERATIONS, told("x", REFUND, "part-captured", 1, "claimed", "success")]),
    ),
    # I26
    "acknowledged and lost": ("I26", with_asked(asked(ALL, key="k", operation_id="op-nowhere"))),
    "acknowledged without an id": ("I26", with_asked(asked(ALL, operation_id=None))),
    "acknowledged with another amount": ("I26", with_asked(asked(ALL, amount_minor=999))),
    "acknowledged as another kind": ("I26", with_asked(asked(ALL, kind=CAPTURE))),
    "acknowledged for another payment": ("I26", with_asked(asked(ALL, payment_id="id-parts"))),
    "one key for two operations": ("I26", with_asked(asked(ALL), asked(HALF, key=ALL.key))),
    "two rows for one key": ("I26", both(_unasked, with_operation("half", key="k"), with_operation("rest", key="k"))),
    # I27
    "stuck before anything": (
        "I27",
        lambda _: history_of([*OPERATIONS, told("x", REFUND, "x", 10)]),
    ),
    "stuck in doubt": (
        "I27",
        lambda _: history_of([*OPERATIONS, told("x", REFUND, "x", 10, "claimed", "unknown", moves=[True])]),
    ),
    "stuck at the provider": (
        "I27",
        lambda _: history_of([*OPERATIONS, told("x", VOID, "x", 10, "claimed", "pending")]),
    ),
    "a review without a reason": ("I27", with_operation("doubtful", reason=" ")),
    # I28
    "refunded twice by one operation": ("I28", with_moves(move(BY_NAME["doubtful"].row))),
    # I29
    "success without a refund": ("I29", without_moves("all")),
    "success of a refund that was declined": ("I29", both(without_moves("all"), with_moves(move(ALL, moved=False)))),
    "success of another amount": ("I29", both(without_moves("all"), with_moves(move(ALL, amount_minor=999)))),
    "success in another currency": ("I29", both(without_moves("all"), with_moves(move(ALL, currency="EUR")))),
    "success at another payment": ("I29", both(without_moves("half"), with_moves(move(HALF, payment_id="id-doubted")))),
    "failed and refunded": (
        "I29",
        lambda _: history_of([*OPERATIONS, told("x", REFUND, "x", 10, "claimed", "declined", moves=[True])]),
    ),
    "canceled and refunded": (
        "I29",
        lambda _: history_of(
            [*OPERATIONS, told("x", REFUND, "x", 10, "claimed", "unavailable", "canceled", moves=[True])]
        ),
    ),
    "moved by no operation": (
        "I29",
        with_moves(move(ALL, made_by="op-nowhere", amount_minor=1, payment_id="id-doubted")),
    ),
    # I30
    "captured after a void": (
        "I30",
        lambda _: history_of([*OPERATIONS, told("x", CAPTURE, "voided", 9, "claimed", "needs_review", moves=[True])]),
    ),
    "charged beside a void": (
        "I30",
        lambda history: replace(history, charges=[replace(one, captured=True) for one in history.charges]),
    ),
    "voided by two operations": (
        "I30",
        lambda _: history_of([*OPERATIONS, told("x", VOID, "voided", 9, "claimed", "needs_review", moves=[True])]),
    ),
    # I31
    "a refund that is not counted": ("I31", with_row("parts", amount_refunded=500)),
    "a refund that is counted twice": ("I31", with_row("parts", amount_refunded=1300)),
    "a reserve that was not given back": ("I31", with_row("parts", refund_reserved=1200)),
    "a reserve that was given back too early": ("I31", with_row("doubted", refund_reserved=None)),
    "a partial capture that counts as a whole": ("I31", with_row("part-captured", amount_captured=None)),
    "a captured amount without a capture": ("I31", with_row("refunded", amount_captured=400)),
    "an operation that ended and still blocks": ("I31", with_row("voided", open_operation="op-let go")),
    "a request that the timeline leaves out": (
        "I31",
        with_payment_events("refunded", lambda events: [one for one in events if one.event != "refund_requested"]),
    ),
    "an outcome that the timeline leaves out": ("I31", with_payment_events("refunded", lambda events: events[:-1])),
    "an outcome that the timeline tells twice": (
        "I31",
        with_payment_events("refunded", lambda events: [*events, events[-1]]),
    ),
    # I32
    "an operation that was settled without a claim": (
        "I32",
        lambda _: history_of([*OPERATIONS, told("x", REFUND, "x", 10, "declined", moves=[])]),
    ),
    "an operation that was settled twice": ("I32", with_operation_event("half", 2, event="success", status=ALL.status)),
    "settled under a stale attempt": ("I32", with_operation_event("rest", 3, attempt=1)),
    "settled by a worker that did not hold it": ("I32", with_operation_event("all", 2, actor="w2")),
    "an attempt left out": ("I32", with_operation_event("all", 1, attempt=2)),
    "a version is missing": ("I32", with_operation_event("half", 2, version=3)),
    "a change without an event": ("I32", with_operation("all", version=3)),
    "a row that counts more": ("I32", with_operation("all", attempts=2)),
    "called before the claim": ("I32", both(without_moves("all"), with_moves(move(ALL, at_s=0.0)))),
    "called twice under one claim": ("I32", with_moves(move(ALL, moved=False))),
}


@pytest.mark.parametrize(("invariant", "spoil"), BROKEN.values(), ids=BROKEN)
def test_each_way_of_breaking_an_invariant_is_caught_as_that_alone(invariant: str, spoil: Spoil) -> None:
    verdict = check(spoil(good()))
    found = {violation.invariant for violation in verdict.violations if violation.invariant in OF_OPERATIONS}
    assert found == {invariant}, verdict.violations


def test_every_invariant_of_operations_has_a_way_of_being_broken() -> None:
    assert {invariant for invariant, _ in BROKEN.values()} == OF_OPERATIONS
