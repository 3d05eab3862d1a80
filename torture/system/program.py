"""One program under torture: killed by faults, and started again at once, unless a fault holds it down.

Unlike `okane.local.supervisor` it neither waits between restarts nor gives up early: dying is what its programs are here for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Protocol

import psutil

from okane.local.processes import Child, Roster
from okane.local.server import Server, StartError, describe_exit
from torture.system.tally import Ending, Tally

_POLL_S = 0.03
_READY_TIMEOUT_S = 60.0
_PAUSE_S = 0.2  # before a program that did not get ready is tried again
_TRIES = 100  # a disk that is full for seconds is sat out; a program that never starts is not
_FIRST_TRIES = 5  # nothing is broken yet: what does not start now never will
_HELPED_AFTER = 15  # failed starts: about when an operator would step in
_GONE_S = 10.0
_CANNOT_RUN = 2  # the exit code of a process whose settings or rights have to be corrected first


class Points(Protocol):
    """The failpoints of a program (see crash_points.py). These do nothing."""

    def on_death(self, code: int, *, alive_s: float, is_killed: bool = False) -> bool:
        """Return True if a failpoint caused this end. It was last seen alive at `alive_s`; `is_killed`: from here."""
        return False

    def look(self, child: Child) -> None:
        """Called all the time while it lives."""


class Program:
    """One program. `build` makes it anew for every start; `kind` is what its kills are counted under.

    `help_` is what an operator does about a program that does not start any more by itself.
    """

    def __init__(
        self,
        *,
        kind: str,
        build: Callable[[], Server],
        roster: Roster,
        tally: Tally,
        points: Points | None = None,
        help_: Callable[[], None] | None = None,
    ) -> None:
        self.kind = kind
        self.server = build()
        self.name = self.server.name
        self._build = build
        self._roster = roster
        self._tally = tally
        self._points = points
        self._help = help_
        self._ready = asyncio.Event()
        self._down = asyncio.Event()
        self._holders = 0
        self._frozen = False
        self._was_ready = False
        self._ordered: signal.Signals | None = None  # its next end is our doing
        self._born_at_s = 0.0
        self._alive_s = 0.0  # when it was last seen alive, since the epoch

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self.server.child is not None and self._child.exit_code() is None

    @property
    def age_s(self) -> float:
        """Return the seconds since its start; 0 when it is not running."""
        return time.monotonic() - self._born_at_s if self.alive else 0.0

    async def keep(self) -> None:
        """Run it until cancelled. Raises StartError when it cannot be started at all."""
        failures = 0
        while True:
            if self._holders:
                await asyncio.sleep(_POLL_S)
                continue
            self._launch()
            failures = 0 if await self._until_ready() else failures + 1
            if failures == _HELPED_AFTER and self._help is not None:
                self._tally.helped[self.kind] += 1
                await asyncio.to_thread(self._help)
            if failures > (_TRIES if self._was_ready else _FIRST_TRIES):
                raise StartError(f"{self.name} does not start.\n{self.server.last_lines()}")
            code = await self._exit()
            self._ready.clear()
            self._down.set()
            self._tally.endings.append(Ending(process=self.name, alive_s=self._alive_s, gone_s=time.time(), code=code))
            if self._was_ordered(code):
                failures = 0
            elif not self._lacks_rights(code):
                self._tally.unexpected[f"{self.kind} {describe_exit(code)}"] += 1
            if failures:
                await asyncio.sleep(_PAUSE_S)

    async def ready(self, *, within_s: float = _READY_TIMEOUT_S) -> None:
        """Wait until it answers. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            await self._ready.wait()

    @contextlib.asynccontextmanager
    async def held_down(self) -> AsyncIterator[None]:
        """kill -9, and not started again inside the block."""
        self._holders += 1
        try:
            await self.kill()
            yield
        finally:
            self._holders -= 1

    async def kill(self) -> None:
        """kill -9, and the wait until it is gone. It may have died by itself just before: that does not count."""
        if self.alive:
            self._tally.killed(self.kind, self.name)
            await self.end_with(signal.SIGKILL)

    async def end_with(self, number: signal.Signals) -> None:
        """Send it a signal that ends it, and wait until it is gone. Does nothing if it is."""
        if not self.alive:
            return
        self._ordered = number
        self._down.clear()
        family = _descendants(self.pid)
        self.signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GONE_S):
                await self._down.wait()
        # Postgres' sessions see by themselves that their parent is dead; one that is stopped cannot.
        for orphan in family:
            with contextlib.suppress(psutil.Error):
                if orphan.status() == psutil.STATUS_STOPPED:
                    orphan.kill()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP for the length of the block."""
        self._frozen = True
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)
            self._frozen = False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, to the program alone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def stop(self) -> None:
        """End it politely, for good: `keep` must have been cancelled before."""
        if self.alive:
            self.signal(signal.SIGCONT)
            await asyncio.to_thread(self.server.stop)
        self._roster.discard(self.name)

    @property
    def _child(self) -> Child:
        assert self.server.child is not None, "it was launched"
        return self.server.child

    def _launch(self) -> None:
        self._ordered = None
        self.server = self._build()
        # Not in a thread: the child would be signalled when that ends (see processes.spawn).
        self._roster.add(self.server.launch().record)
        self._born_at_s = time.monotonic()
        self._alive_s = time.time()

    async def _until_ready(self) -> bool:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while self._is_seen_alive():
            self._look()
            if await asyncio.to_thread(self.server.ready):
                self._ready.set()
                self._was_ready = True
                return True
            if time.monotonic() > deadline:
                self._ordered = signal.SIGKILL
                self.signal(signal.SIGKILL)
            await asyncio.sleep(_POLL_S)
        return False

    async def _exit(self) -> int:
        # Polled: a thread for each would block in waitpid, and pidfd is for Linux alone.
        while self._is_seen_alive():
            self._look()
            await asyncio.sleep(_POLL_S)
        code = self._child.exit_code()
        assert code is not None, "it is gone"
        return code

    def _is_seen_alive(self) -> bool:
        now_s = time.time()
        if self.alive:
            self._alive_s = now_s
            return True
        return False

    def _look(self) -> None:
        """It may have stopped itself, as soon as it was there."""
        if self._points is not None and not self._frozen:
            self._points.look(self._child)

    def _was_ordered(self, code: int) -> bool:
        """A failpoint may strike in a process that was told to end: its last work passes by many of them."""
        is_killed = self._ordered is signal.SIGKILL
        struck = self._points is not None and self._points.on_death(code, alive_s=self._alive_s, is_killed=is_killed)
        return struck or self._ordered is not None

    def _lacks_rights(self, code: int) -> bool:
        return code == _CANNOT_RUN and self._born_at_s < self._tally.rights_missing_until_s


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
