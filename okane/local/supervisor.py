"""Start one program, restart it with a growing delay when it dies, stop it.

Promise: a program that dies again and again ends `supervise` with StartError and the end of its log: no endless loop.
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
# A program that ran this long was healthy: its next death does not count with the earlier ones.
_HEALTHY_AFTER_S = 30.0
_DELAYS_S = (1.0, 2.0, 4.0, 8.0)


class Supervisor:
    """Supervises one program. `consequence` completes the line about its death with the effect on payments.

    `delays_s` are the pauses before restarts in a row; when they are used up, it gives up.
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
        """Start the program and wait until it is ready. Raises StartError if it dies first."""
        preparing = asyncio.ensure_future(asyncio.to_thread(self._server.prepare))
        try:
            await asyncio.shield(preparing)
        except asyncio.CancelledError:
            # A thread cannot be cancelled: the data folder must not be released before it ends.
            await asyncio.wait([preparing])
            raise
        await self._launch()

    async def supervise(self) -> None:
        """Restart the program whenever it ends, until cancelled. Raises StartError when restarts do not help."""
        deaths = 0
        while True:
            started_at = time.monotonic()
            code = await self._exit()
            deaths = 1 if time.monotonic() - started_at > _HEALTHY_AFTER_S else deaths + 1
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
        """Stop the program gracefully; `hurry` shortens the wait. Does nothing if it never ran."""
        self.is_ready = False
        await asyncio.to_thread(self._server.stop, hurry=hurry)
        self._roster.discard(self.name)

    async def _launch(self) -> None:
        # Not in a thread: the kernel signals the child when the thread ends (see processes.spawn).
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
        # Polled: a thread for each would block in waitpid, and pidfd exists on Linux only.
        while True:
            if (code := self._child.exit_code()) is not None:
                self.is_ready = False
                return code
            await asyncio.sleep(_WATCH_S)

    @property
    def _child(self) -> Child:
        assert self._server.child is not None, "start comes first"
        return self._server.child
