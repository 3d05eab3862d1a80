"""Keeps one program running: starts it, restarts it with a growing delay when it dies, ends it when told to.

Promise: a program that dies again and again ends `keep` with StartError and its last words: no endless loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

from okane.local.processes import Child, Roster
from okane.local.server import Server, StartError, describe_exit

_POLL_S = 0.03
_WATCH_S = 0.1
_READY_TIMEOUT_S = 60.0
# A program that lived this long was well; its next death is a new story.
_WELL_AFTER_S = 30.0
_DELAYS_S = (1.0, 2.0, 4.0, 8.0)


class Keeper:
    """One program under care. `consequence` completes the line about its death: what it means for payments.

    It waits `delays_s` before one restart after the other; when they are used up in a row, it gives up.
    """

    def __init__(
        self,
        *,
        server: Server,
        roster: Roster,
        report: Callable[[str], None],
        consequence: str = "",
        delays_s: Sequence[float] = _DELAYS_S,
    ) -> None:
        self._server = server
        self._roster = roster
        self._report = report
        self._consequence = consequence
        self._delays_s = delays_s
        self.is_ready = False

    @property
    def name(self) -> str:
        return self._server.name

    @property
    def pid(self) -> int:
        return self._child.pid

    async def start(self) -> None:
        """Start it and wait until it answers. Raises StartError if it dies before."""
        preparing = asyncio.ensure_future(asyncio.to_thread(self._server.prepare))
        try:
            await asyncio.shield(preparing)
        except asyncio.CancelledError:
            # A thread cannot be cancelled: nobody may give the data folder away before it is through.
            await asyncio.wait([preparing])
            raise
        await self._launch()

    async def keep(self) -> None:
        """Restart it whenever it ends. Runs until cancelled. Raises StartError when restarting does not help."""
        deaths = 0
        while True:
            started_at = time.monotonic()
            code = await self._exit()
            deaths = 1 if time.monotonic() - started_at > _WELL_AFTER_S else deaths + 1
            if deaths > len(self._delays_s):
                raise StartError(f"{self.name} died {deaths} times in a row.\n{self._server.last_lines()}")
            delay_s = self._delays_s[deaths - 1]
            self._report(f"{self.name} {describe_exit(code)}, restarting in {delay_s:g} s{self._consequence}")
            await asyncio.sleep(delay_s)
            try:
                await self._launch()
            except StartError:
                continue
            self._report(f"{self.name} is back (pid {self.pid})")

    async def stop(self, hurry: threading.Event) -> None:
        """End it politely; set `hurry` to be less polite. Harmless if it never ran."""
        self.is_ready = False
        await asyncio.to_thread(self._server.stop, hurry=hurry)
        self._roster.discard(self.name)

    async def _launch(self) -> None:
        # Not in a thread: the child would be signalled when that ends (see processes.spawn).
        self._roster.add(self._server.launch().record)
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not await asyncio.to_thread(self._server.ready):
            self._server.check_alive()
            if time.monotonic() > deadline:
                await asyncio.to_thread(self._server.stop)
                raise StartError(
                    f"{self.name} was not ready after {_READY_TIMEOUT_S:.0f} s.\n{self._server.last_lines()}"
                )
            await asyncio.sleep(_POLL_S)
        self.is_ready = True

    async def _exit(self) -> int:
        # Polled: a thread for each would block in waitpid, and pidfd is for Linux alone.
        while True:
            if (code := self._child.exit_code()) is not None:
                self.is_ready = False
                return code
            await asyncio.sleep(_WATCH_S)

    @property
    def _child(self) -> Child:
        assert self._server.child is not None, "start comes first"
        return self._server.child
