"""The system after the faults have healed: I5 (nothing is stuck), I10 (the broker is empty), I11 (the sweep hid no bug)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from okane.payment import Status
from streams import StreamStats
from torture.history.journals import History
from torture.invariants.violation import Violation

SWEEP_REPAIRS = "okane_sweep_repairs_total"
_REPAIRED_AT_MOST = 1 / 1000


def everything_is_decided(history: History) -> Sequence[Violation]:
    """I5: no payment is open, but those that wait for a human, with a reason."""
    found = []
    for row in history.rows.values():
        if row.status is Status.NEEDS_REVIEW:
            if not (row.reason or "").strip():
                found.append(Violation("I5", row.id, "needs a review without a reason", repr(row)))
        elif row.status is Status.AUTHORIZED and row.open_operation is None:
            pass  # a capture has failed: its money is held until the authorization ends
        elif not row.status.is_terminal:
            what = f"still {row.status} after {history.waited_s:g} s"
            found.append(Violation("I5", row.id, what, f"{row}, {history.events.get(row.id, ())}"))
    return found


def broker_is_at_rest(history: History) -> Sequence[Violation]:
    """I10: streams, pending lists and the delayed set are empty, of payments and of operations, and each group has live
    consumers only."""
    brokers = (history.broker, history.operation_broker)
    return [left for one in brokers if one is not None for left in _restless(one, history.live_consumers)]


def sweep_repairs_little(history: History) -> Sequence[Violation]:
    """I11: without faults the sweep repairs less than one payment in a thousand."""
    repairs = history.total(SWEEP_REPAIRS)
    if history.faults or repairs == 0 or repairs < len(history.rows) * _REPAIRED_AT_MOST:
        return []
    evidence = f"{repairs:g} wake-ups for {len(history.rows)} payments"
    return [Violation("I11", "sweep", "repaired although nothing was broken", evidence)]


def _restless(broker: StreamStats, live: frozenset[str]) -> Iterator[Violation]:
    for lane in broker.lanes:
        if lane.length:
            yield Violation("I10", lane.lane, f"{lane.length} entries are left", repr(lane))
        if lane.pending:
            yield Violation("I10", lane.lane, f"{lane.pending} entries are pending", repr(lane))
    if broker.delayed:
        yield Violation("I10", broker.stream, f"{broker.delayed} wake-ups are delayed", f"next at {broker.next_due_ms}")
    for consumer in broker.consumers:
        if consumer.name not in live:
            yield Violation("I10", consumer.name, "a consumer that is gone is still in the group", repr(consumer))
