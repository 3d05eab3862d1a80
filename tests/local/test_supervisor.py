from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from okane.local.processes import Child, Roster, Stage, spawn
from okane.local.server import Server, StartError
from okane.local.supervisor import Supervisor

SLEEPER = "import signal; print('up', flush=True); signal.pause()"
FAILING = "print('no such table'); raise SystemExit(3)"


class Program(Server):
    """A Python one-liner, ready once it has printed."""

    name = "worker-1"

    def __init__(self, folder: Path, code: str) -> None:
        super().__init__()
        self.code = code
        self._log = folder / "program.log"

    def _spawn(self) -> Child:
        self._log.unlink(missing_ok=True)
        command = [sys.executable, "-c", self.code]
        return spawn(name=self.name, command=command, log=self._log, stages=(Stage(signal.SIGTERM, 5),))

    def ready(self) -> bool:
        return "up" in self._log.read_text()


@contextlib.asynccontextmanager
async def running(work: asyncio.Future[None]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_a_killed_program_comes_back_with_a_line_about_it(tmp_path: Path) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    roster = Roster(tmp_path / "children.json")
    supervisor = Supervisor(
        server=Program(tmp_path, SLEEPER),
        roster=roster,
        report=said.put_nowait,
        consequence="; its payments are taken over",
        delays_s=(0.01,),
    )
    await supervisor.start()
    first = supervisor.pid
    async with running(asyncio.ensure_future(supervisor.supervise())):
        os.kill(first, signal.SIGKILL)
        assert await said.get() == "worker-1 died (signal 9), restarting in 0.01 s; its payments are taken over"
        assert await said.get() == f"worker-1 is back (pid {supervisor.pid})"
        assert supervisor.pid != first
        assert [record.pid for record in roster.load()] == [supervisor.pid]
    await supervisor.stop(threading.Event())
    assert roster.load() == []


async def test_a_program_that_keeps_dying_ends_it_with_its_last_words(tmp_path: Path) -> None:
    program = Program(tmp_path, SLEEPER)
    supervisor = Supervisor(
        server=program, roster=Roster(tmp_path / "c.json"), report=lambda _: None, delays_s=(0.01, 0.01, 0.01, 0.01)
    )
    await supervisor.start()
    program.code = FAILING
    os.kill(supervisor.pid, signal.SIGKILL)
    with pytest.raises(StartError, match=r"(?s)worker-1 died 5 times in a row.*no such table"):
        await supervisor.supervise()


async def test_a_program_that_cannot_start_at_all_fails_at_once(tmp_path: Path) -> None:
    supervisor = Supervisor(
        server=Program(tmp_path, FAILING), roster=Roster(tmp_path / "c.json"), report=lambda _: None
    )
    with pytest.raises(StartError, match=r"(?s)worker-1 exited with 3.*no such table"):
        await supervisor.start()


async def test_hurry_cuts_the_patience_short(tmp_path: Path) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"

    class Stubborn(Program):
        def _spawn(self) -> Child:
            command = [sys.executable, "-c", self.code]
            return spawn(name=self.name, command=command, log=self._log, stages=(Stage(signal.SIGTERM, 600),))

    supervisor = Supervisor(
        server=Stubborn(tmp_path, stubborn), roster=Roster(tmp_path / "c.json"), report=lambda _: None
    )
    await supervisor.start()
    hurry = threading.Event()
    stopping = asyncio.ensure_future(supervisor.stop(hurry))
    await asyncio.sleep(0)
    hurry.set()
    await asyncio.wait_for(stopping, 10)
