"""The schedule of faults, and what keeps order among them while they are made."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from okane.local.data_folder import DataFolder
from okane.local.processes import Child, Stage, spawn
from okane.local.server import Server, StartError
from okane.payment import Status
from okane.store.history import EventRow
from okane.torture.clients import orders
from okane.torture.faults import FAULTS
from okane.torture.faults.fault import Fault
from okane.torture.nemesis import AT_ONCE, Nemesis
from okane.torture.options import TortureOptions
from okane.torture.report import repair_times
from okane.torture.report.logged_errors import logged_errors
from okane.torture.schedule import Card, Step, schedule
from okane.torture.system.cluster import Cluster
from okane.torture.system.crash_points import CrashPoints
from okane.torture.system.plan import SKEW
from okane.torture.system.program import Program
from okane.torture.system.shape import Shape
from okane.torture.system.tally import Death, Tally

SHAPE = Shape(apis=("api-1",), workers=("worker-1", "worker-2"), failpoints=("accept.here", "charge.there"))
CARDS = (
    Card(fault="kill", targets=("a", "b", "c"), weight=3),
    Card(fault="stop", targets=("a", "b"), hold_s=(1, 2)),
    Card(fault="flush", targets=("redis",)),
)
ALL_CARDS = [fault.card(Shape.of(TortureOptions())) for fault in FAULTS.values()]


def steps(seed: int, count: int, cards: Sequence[Card] = CARDS) -> list[Step]:
    return list(itertools.islice(schedule(cards, seed=seed, pause_s=1.0), count))


def test_the_same_seed_makes_the_same_schedule() -> None:
    assert steps(7, 500, ALL_CARDS) == steps(7, 500, ALL_CARDS)
    assert steps(7, 500, ALL_CARDS) != steps(8, 500, ALL_CARDS)


def test_another_process_makes_the_same_schedule() -> None:
    program = """
        from okane.torture.faults import FAULTS
        from okane.torture.options import TortureOptions
        from okane.torture.system.shape import Shape
        from okane.torture.schedule import schedule
        cards = [fault.card(Shape.of(TortureOptions())) for fault in FAULTS.values()]
        for step, _ in zip(schedule(cards, seed=3, pause_s=1.0), range(200)):
            print(step)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [str(step) for step in steps(3, 200, ALL_CARDS)]


def test_every_fault_comes_round_once_a_deck_as_often_as_its_weight() -> None:
    dealt = steps(1, 15)
    for deck in (dealt[:5], dealt[5:10], dealt[10:]):
        assert Counter(step.fault for step in deck) == {"kill": 3, "stop": 1, "flush": 1}


def test_the_targets_of_a_fault_take_turns() -> None:
    targets = [step.target for step in steps(1, 100) if step.fault == "kill"]
    assert len(targets) >= 6
    for at in range(0, len(targets) - 2, 3):
        assert set(targets[at : at + 3]) == {"a", "b", "c"}


def test_faults_are_held_within_their_bounds_and_pauses_vary() -> None:
    found = steps(1, 200)
    assert all(1 <= step.hold_s <= 2 for step in found if step.fault == "stop")
    assert all(step.hold_s == 0 for step in found if step.fault != "stop")
    assert all(0.5 <= step.pause_s <= 1.5 for step in found)
    assert len({step.pause_s for step in found}) > 100


def test_without_targets_there_is_nothing_to_do() -> None:
    assert steps(1, 5, [Card(fault="failpoint", targets=())]) == []


def test_failpoints_are_armed_where_they_are_passed() -> None:
    assert SHAPE.hosts_of("accept.here") == ("api-1",)
    assert SHAPE.hosts_of("charge.there") == ("worker-1", "worker-2")
    assert "api-1>clients" in SHAPE.links
    assert "worker-2>provider" in SHAPE.links
    assert "api-1>provider" not in SHAPE.links


def test_all_faults_can_be_dealt_and_name_what_they_touch() -> None:
    shape = Shape.of(TortureOptions())
    assert len(FAULTS) >= 30
    for step in steps(1, 1_000, ALL_CARDS):
        touched = FAULTS[step.fault].touches(step, shape)
        assert touched, step
    assert {card.fault for card in ALL_CARDS} == {step.fault for step in steps(1, 200, ALL_CARDS)}


class Scene:
    """Faults that note who is struck when, and a cluster that is nobody."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.shape = SHAPE
        self.struck: Counter[str] = Counter()
        self.most_at_once = 0
        self.healed = 0
        self.violations: list[str] = []

    def fault(self, name: str, *, hold_s: float = 0.0, fails: bool = False) -> Fault:
        @contextlib.asynccontextmanager
        async def made(_cluster: Cluster, step: Step) -> AsyncIterator[None]:
            if fails:
                raise OSError("no such luck")
            if self.struck[step.target]:
                self.violations.append(f"{step.target} is struck twice")
            self.struck[step.target] += 1
            held = sum(self.struck.values())
            self.most_at_once = max(self.most_at_once, held)
            try:
                yield
            finally:
                self.struck[step.target] -= 1
                self.healed += 1

        return Fault(name=name, meaning="", targets=lambda _shape: (), made=made, hold_s=(hold_s, hold_s))

    async def play(self, *faults: Fault, steps: Sequence[Step], impossible: dict[str, str] | None = None) -> None:
        """Make all of these steps."""
        nemesis = Nemesis(
            cluster=cast("Cluster", self),
            steps=iter(steps),
            impossible=impossible or {},
            faults={fault.name: fault for fault in faults},
        )
        passed = len([step for step in steps if step.fault not in (impossible or {})])
        async with asyncio.timeout(30):
            await nemesis.run(lambda: self.healed + len(self.tally.failed) >= passed)


def held(count: int, targets: Sequence[str], fault: str = "hold") -> list[Step]:
    return [
        Step(number=number, pause_s=0, fault=fault, target=targets[number % len(targets)], hold_s=0.03, roll=0)
        for number in range(count)
    ]


async def test_nobody_is_struck_by_two_faults_at_once() -> None:
    stage = Scene()
    await stage.play(stage.fault("hold", hold_s=0.03), steps=held(20, ("a", "b")))
    assert stage.violations == []
    assert stage.healed == 20
    assert stage.most_at_once == 2


async def test_a_few_faults_are_held_at_once_and_all_are_healed() -> None:
    stage = Scene()
    await stage.play(stage.fault("hold", hold_s=0.03), steps=held(30, [f"t{number}" for number in range(30)]))
    assert 2 <= stage.most_at_once <= AT_ONCE
    assert stage.struck.total() == 0
    assert stage.tally.made == {"hold": 30}
    assert stage.tally.now == {}


async def test_servers_that_everybody_needs_are_struck_one_at_a_time() -> None:
    stage = Scene()
    await stage.play(stage.fault("hold", hold_s=0.03), steps=held(9, ("redis", "postgres", "provider")))
    assert stage.most_at_once == 1


async def test_a_fault_that_goes_wrong_is_told_and_stops_nothing() -> None:
    stage = Scene()
    plan = [*held(1, ("a",), "broken"), *held(3, ("a",))]
    await stage.play(stage.fault("hold", hold_s=0.03), stage.fault("broken", fails=True), steps=plan)
    assert stage.tally.failed == {"broken a": "OSError: no such luck"}
    assert stage.healed == 3


async def test_what_the_machine_cannot_have_is_passed_over() -> None:
    stage = Scene()
    plan = [*held(5, ("a",), "impossible"), *held(2, ("a",))]
    await stage.play(stage.fault("hold", hold_s=0.03), steps=plan, impossible={"impossible": "no root"})
    assert stage.tally.made == {"hold": 2}


def crash_points(tally: Tally) -> CrashPoints:
    return CrashPoints(process="worker-1", kind="worker", tally=tally, stopped_s=0.1)


def test_a_crash_point_stays_armed_until_it_strikes() -> None:
    tally = Tally()
    points = crash_points(tally)
    assert points.add("charge.there:kill:1")
    assert points.arm() == {"OKANE_FAILPOINT": "charge.there:kill:1"}
    assert not points.add("settle.next:kill:1")  # it is taken in when the first has struck
    assert points.arm() == {"OKANE_FAILPOINT": "charge.there:kill:1"}  # somebody else killed the process
    assert points.on_death(-signal.SIGKILL)
    assert points.arm() == {"OKANE_FAILPOINT": "settle.next:kill:1"}
    assert tally.points == {"charge.there": 1}
    assert tally.kills == {"worker": 1}
    assert [death.process for death in tally.deaths] == ["worker-1"]


def test_a_death_that_no_crash_point_ordered_is_none_of_theirs() -> None:
    tally = Tally()
    points = crash_points(tally)
    assert not points.on_death(-signal.SIGKILL)
    points.add("charge.there:kill:1")
    points.arm()
    assert not points.on_death(1)
    assert tally.kill_count == 0


def test_a_crash_point_that_delays_counts_once_it_is_armed() -> None:
    tally = Tally()
    points = crash_points(tally)
    points.add("charge.there:delay=1.5:1")
    assert points.arm()
    assert tally.points == {"charge.there": 1}
    assert points.arm() == {}
    assert not points.drop()


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


def test_orders_are_the_same_for_the_same_seed_and_of_every_kind() -> None:
    made = list(itertools.islice(orders(1), 2_000))
    assert made == list(itertools.islice(orders(1), 2_000))
    assert made != list(itertools.islice(orders(2), 2_000))
    assert {len(str(order.amount_minor)) for order in made} >= {3, 4, 5}
    assert 50 < sum(order.twin for order in made) < 200
    assert 50 < sum(order.repeat_after_s is not None for order in made) < 200
    assert 10 < sum(order.reuse_for_minor is not None for order in made) < 100
    assert sum(bool(order.metadata) for order in made) == 40


def test_like_errors_are_counted_together(tmp_path: Path) -> None:
    lines = [
        '{"event": "sweep_failed", "level": "error", "exception": "Traceback\\n  ...\\nRuntimeError: at 0x55aa"}',
        '{"event": "sweep_failed", "level": "error", "exception": "Traceback\\n  ...\\nRuntimeError: at 0x66bb"}',
        '{"event": "late_result", "level": "warning"}',
        '{"event": "handler failed", "level": "error", "exception": "FailpointRaised: failpoint charge.there"}',
    ]
    (tmp_path / "worker-1.log").write_text("\n".join(lines))
    assert logged_errors(tmp_path) == {"worker: sweep_failed RuntimeError: at #": 2}


def test_options_say_what_is_wrong_with_them() -> None:
    assert (TortureOptions().kills, TortureOptions().payments) == (50, 5_000)
    assert TortureOptions(minutes=1).kills == 0
    assert TortureOptions(settings={"VISIBILITY_TIMEOUT": "500ms"}).lease_s == 0.5
    for wrong, said in (
        ({"workers": 1}, "two workers"),
        ({"rate": 0}, "above 0"),
        ({"kills": -1}, "negative"),
        ({"settings": {"VISIBILITY_TIMEOUT": "soon"}}, "duration"),
        ({"settings": {"lease time": "1s"}}, "named as in the environment"),
    ):
        with pytest.raises(ValueError, match=said):
            TortureOptions(**wrong)


def test_a_skewed_process_believes_another_wall_clock_only(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_bytes(struct.pack("d", -300.0))
    program = """
        import datetime, sys, time
        import uuid_utils.compat as uuids
        moment = datetime.datetime.fromtimestamp(0, datetime.UTC)
        assert isinstance(moment, datetime.datetime)
        print(time.time(), time.time_ns() / 1e9, datetime.datetime.now().timestamp(), time.monotonic(),
              (uuids.uuid7().int >> 80) / 1000)
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": str(SKEW), "OKANE_TORTURE_CLOCK": str(clock)},
        capture_output=True,
        text=True,
        check=True,
    )
    wall, wall_ns, now, monotonic, id_time = map(float, done.stdout.split())
    for skewed in (wall, wall_ns, now, id_time):
        assert skewed == pytest.approx(time.time() - 300, abs=60)
    assert monotonic == pytest.approx(time.monotonic(), abs=60)


def test_a_killed_torture_leaves_nothing_behind_not_even_what_is_stopped(tmp_path: Path) -> None:
    program = """
        import os, signal, sys, time
        from pathlib import Path
        from okane.local.data_folder import DataFolder
        from okane.local.processes import Stage, spawn
        from okane.torture.system.guardian import guarded
        folder = DataFolder(Path(sys.argv[1]))
        with guarded(folder):
            command = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]
            child = spawn(name="child", command=command, log=folder.path / "log", stages=(Stage(signal.SIGTERM, 5),))
            folder.roster.add(child.record)
            while "up" not in (folder.path / "log").read_text():
                time.sleep(0.01)
            os.kill(child.pid, signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (record,) = DataFolder(tmp_path).roster.load()
    until(lambda: record.find() is None)


def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    """For facts of other processes, which send no event."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, psutil.pids()
        time.sleep(0.02)


class Sleeper(Server):
    """A program that does nothing, or ends at once."""

    name = "sleeper"

    def __init__(self, log: Path, code: str = "import signal; print('up', flush=True); signal.pause()") -> None:
        super().__init__()
        self._log = log
        self._code = code

    def _spawn(self) -> Child:
        command = [sys.executable, "-I", "-S", "-c", self._code]
        return spawn(name=self.name, command=command, log=self._log, stages=(Stage(signal.SIGTERM, 5),))

    def ready(self) -> bool:
        return self._child is not None and "up" in self._child.last_lines(1).partition("\n")[2]


@contextlib.asynccontextmanager
async def kept(folder: Path, tally: Tally, **options: Any) -> AsyncIterator[tuple[Program, asyncio.Task[None]]]:
    server = Sleeper(folder / "log", **options)
    one = Program(kind="sleeper", build=lambda: server, roster=DataFolder(folder).roster, tally=tally)
    keeping = asyncio.create_task(one.keep())
    try:
        yield one, keeping
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await one.stop()


async def test_a_killed_program_is_counted_and_comes_back(tmp_path: Path) -> None:
    tally = Tally()
    async with kept(tmp_path, tally) as (one, _):
        await one.ready(within_s=20)
        first = one.pid
        await one.kill()
        await one.ready(within_s=20)
        assert one.pid != first
        os.kill(one.pid, signal.SIGTERM)  # nobody ordered this
        await eventually(lambda: bool(tally.unexpected))
    assert tally.kills == {"sleeper": 1}
    assert tally.unexpected == {"sleeper died (signal 15)": 1}


async def test_a_program_that_is_held_down_stays_down(tmp_path: Path) -> None:
    async with kept(tmp_path, Tally()) as (one, _):
        await one.ready(within_s=20)
        async with one.held_down():
            await one.kill()
            await asyncio.sleep(0.3)
            assert not one.alive
        await one.ready(within_s=20)


async def test_a_program_that_never_starts_ends_the_run(tmp_path: Path) -> None:
    async with kept(tmp_path, Tally(), code="raise SystemExit('broken')") as (_, keeping):
        with pytest.raises(StartError, match="sleeper does not start"):
            async with asyncio.timeout(60):
                await keeping


async def test_a_program_can_be_frozen(tmp_path: Path) -> None:
    async with kept(tmp_path, Tally()) as (one, _):
        await one.ready(within_s=20)
        process = psutil.Process(one.pid)
        with one.frozen():
            await eventually(lambda: process.status() == psutil.STATUS_STOPPED)
        await eventually(lambda: process.status() != psutil.STATUS_STOPPED)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)
