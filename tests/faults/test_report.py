"""The report of a run is derived from events and logs."""

from __future__ import annotations

from pathlib import Path

from okane.payment import Status
from okane.store.history import EventRow
from torture.report import repair_times
from torture.report.logged_errors import logged_errors
from torture.system.tally import Death


def event(version: int, at_s: float, name: str, status: Status, actor: str, attempt: int) -> EventRow:
    return EventRow(version=version, at_s=at_s, event=name, status=status, attempt=attempt, actor=actor)


def test_repairs_are_measured_from_the_death_of_who_held_the_claim() -> None:
    orphan = [
        event(1, 10.0, "claimed", Status.PROCESSING, "worker-1", 1),
        event(2, 14.0, "claimed", Status.PROCESSING, "worker-2", 2),
        event(3, 14.5, "success", Status.SUCCESS, "worker-2", 2),
    ]
    lucky = [
        event(1, 10.0, "claimed", Status.PROCESSING, "worker-1", 1),
        event(2, 10.5, "success", Status.SUCCESS, "worker-1", 1),
    ]
    found = repair_times.orphans_settled({"a": orphan, "b": lucky}, [Death("worker-1", 11.0), Death("worker-1", 30.0)])
    assert found is not None
    assert (found.count, found.max) == (1, 3500.0)
    back = repair_times.first_settlements({"a": orphan, "b": lucky}, [10.1, 12.0, 20.0])
    assert back is not None
    assert (back.count, back.p50, back.max) == (2, 400.0, 2500.0)
    assert repair_times.orphans_settled({"b": lucky}, [Death("worker-1", 11.0)]) is None
    later = [
        event(1, 11.0, "claimed", Status.PROCESSING, "worker-2", 1),
        event(2, 13.0, "success", Status.SUCCESS, "w", 1),
    ]
    found = repair_times.later_ones_settled({"a": orphan, "b": lucky, "c": later}, [9.5, 10.2, 12.0])
    assert found is not None
    assert (found.count, found.p50, found.max) == (2, 1000.0, 2800.0)


def test_like_errors_are_counted_together(tmp_path: Path) -> None:
    lines = [
        '{"event": "sweep_failed", "level": "error", "exception": "Traceback\\n  ...\\nRuntimeError: at 0x55aa"}',
        '{"event": "sweep_failed", "level": "error", "exception": "Traceback\\n  ...\\nRuntimeError: at 0x66bb"}',
        '{"event": "late_result", "level": "warning"}',
        '{"event": "handler failed", "level": "error", "exception": "FailpointRaised: failpoint charge.there"}',
    ]
    (tmp_path / "worker-1.log").write_text("\n".join(lines))
    assert logged_errors(tmp_path) == {"worker: sweep_failed RuntimeError: at #": 2}
