"""The system under test: programs restart, failpoints are armed, clocks are shifted; all of it ends with the run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from okane.local.data_folder import DataFolder
from okane.local.processes import Child, Stage, spawn
from okane.local.server import Server, StartError
from torture.system.crash_points import CrashPoints
from torture.system.program import Program
from torture.system.program_factory import SKEW
from torture.system.tally import Tally


def crash_points(tally: Tally) -> CrashPoints:
    return CrashPoints(process="worker-1", kind="worker", tally=tally, stopped_s=0.1)


def test_a_crash_point_stays_armed_until_it_strikes() -> None:
    tally = Tally()
    points = crash_points(tally)
    assert points.add("charge.there:kill:1")
    assert points.arm() == {"OKANE_FAILPOINT": "charge.there:kill:1"}
    assert not points.add("settle.next:kill:1")  # it is taken in when the first has struck
    assert points.arm() == {"OKANE_FAILPOINT": "charge.there:kill:1"}  # another signal killed the process
    assert points.on_death(-signal.SIGKILL, alive_s=1.0)
    assert points.arm() == {"OKANE_FAILPOINT": "settle.next:kill:1"}
    assert tally.points == {"charge.there": 1}
    assert tally.kills == {"worker": 1}
    assert [death.process for death in tally.deaths] == ["worker-1"]


def test_a_death_that_no_crash_point_ordered_is_none_of_theirs() -> None:
    tally = Tally()
    points = crash_points(tally)
    assert not points.on_death(-signal.SIGKILL, alive_s=1.0)
    points.add("charge.there:kill:1")
    points.arm()
    assert not points.on_death(1, alive_s=1.0)
    assert tally.kill_count == 0


def test_a_crash_point_that_delays_counts_once_it_is_armed() -> None:
    tally = Tally()
    points = crash_points(tally)
    points.add("charge.there:delay=1.5:1")
    assert points.arm()
    assert tally.points == {"charge.there": 1}
    assert points.arm() == {}
    assert not points.drop()


def test_a_crash_point_that_raises_may_strike_until_the_process_ends() -> None:
    tally = Tally()
    points = crash_points(tally)
    points.add("charge.there:raise:1")
    points.arm()
    [strike] = tally.strikes
    assert strike.until_s == float("inf")
    points.on_death(-signal.SIGKILL, alive_s=1.0, is_killed=True)
    assert strike.since_s <= strike.until_s < float("inf")


def test_a_crash_point_may_still_strike_after_all_were_dropped() -> None:
    tally = Tally()
    points = crash_points(tally)
    points.add("charge.there:kill:1")
    points.arm()
    assert points.drop()
    assert points.on_death(-signal.SIGKILL, alive_s=1.0)
    assert tally.kills == {"worker": 1}
    assert points.arm() == {}


def test_a_skewed_process_believes_another_wall_clock_only(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_bytes(struct.pack("d", -300.0))
    program = """
        import datetime, sys, time
        from okane.payment_id import PaymentId
        moment = datetime.datetime.fromtimestamp(0, datetime.UTC)
        assert isinstance(moment, datetime.datetime)
        print(time.time(), time.time_ns() / 1e9, datetime.datetime.now().timestamp(), time.monotonic(),
              (PaymentId().int >> 80) / 1000)
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
        from torture.system.guardian import guarded
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


STRUCK_AT_ITS_END = """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
print('up', flush=True)
signal.pause()
"""


@contextlib.asynccontextmanager
async def running(
    folder: Path,
    tally: Tally,
    *,
    build: Callable[[], Server] | None = None,
    points: CrashPoints | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Program, asyncio.Task[None]]]:
    server = Sleeper(folder / "log", **options)
    one = Program(
        kind="sleeper",
        build=build or (lambda: server),
        roster=DataFolder(folder).roster,
        tally=tally,
        points=points,
    )
    keeping = asyncio.create_task(one.keep())
    try:
        yield one, keeping
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await one.stop()


async def test_a_killed_program_is_counted_and_comes_back(tmp_path: Path) -> None:
    tally = Tally()
    async with running(tmp_path, tally) as (one, _):
        await one.ready(within_s=20)
        first = one.pid
        await one.kill()
        await one.ready(within_s=20)
        assert one.pid != first
        os.kill(one.pid, signal.SIGTERM)  # an unintended end
        await eventually(lambda: bool(tally.unexpected))
    assert tally.kills == {"sleeper": 1}
    assert tally.unexpected == {"sleeper died (signal 15)": 1}
    assert [(one.process, one.code) for one in tally.endings] == [("sleeper", -9), ("sleeper", -15)]
    assert all(one.alive_s <= one.gone_s for one in tally.endings)


async def test_a_crash_point_that_strikes_a_program_told_to_end_is_counted(tmp_path: Path) -> None:
    """The last results are written after the SIGTERM: what dies there has lost them."""
    tally = Tally()
    points = CrashPoints(process="sleeper", kind="sleeper", tally=tally, stopped_s=0.1)
    points.add("webhooks.before_results:kill:1")

    def build() -> Sleeper:
        points.arm()
        return Sleeper(tmp_path / "log", STRUCK_AT_ITS_END)

    async with running(tmp_path, tally, build=build, points=points) as (one, _):
        await one.ready(within_s=20)
        await one.end_with(signal.SIGTERM)
        await eventually(lambda: bool(tally.strikes))
    assert tally.points == {"webhooks.before_results": 1}
    assert [death.process for death in tally.deaths] == ["sleeper"]
    assert tally.endings[0].code == -signal.SIGKILL
    assert not tally.unexpected


async def test_a_program_that_ends_for_want_of_rights_is_expected_while_they_are_missing(tmp_path: Path) -> None:
    tally = Tally()
    async with running(tmp_path, tally, code="raise SystemExit(2)"):
        with tally.rights_missing():
            await eventually(lambda: len(tally.endings) > 1)
            assert not tally.unexpected
        await eventually(lambda: bool(tally.unexpected))
    assert set(tally.unexpected) == {"sleeper exited with 2"}


async def test_a_program_that_is_held_down_stays_down(tmp_path: Path) -> None:
    async with running(tmp_path, Tally()) as (one, _):
        await one.ready(within_s=20)
        async with one.held_down():
            await asyncio.sleep(0.3)
            assert not one.alive
        await one.ready(within_s=20)


async def test_a_program_that_never_starts_ends_the_run(tmp_path: Path) -> None:
    async with running(tmp_path, Tally(), code="raise SystemExit('broken')") as (_, keeping):
        with pytest.raises(StartError, match="sleeper does not start"):
            async with asyncio.timeout(60):
                await keeping


async def test_a_program_can_be_frozen(tmp_path: Path) -> None:
    async with running(tmp_path, Tally()) as (one, _):
        await one.ready(within_s=20)
        process = psutil.Process(one.pid)
        with one.frozen():
            await eventually(lambda: process.status() == psutil.STATUS_STOPPED)
        await eventually(lambda: process.status() != psutil.STATUS_STOPPED)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)
