"""The failpoints of one process: armed one after the other at its starts, crossed off when they strike.

A failpoint that kills or stops stays armed over other deaths until it has struck, since some places are passed seldom; one
that delays or raises counts as struck when the process is started with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Mapping

import psutil

from okane.local.processes import Child
from torture.system.tally import Strike, Tally

DELAY_S = 1.5  # of a failpoint that delays
_IMPATIENT_S = 8.0


class CrashPoints:
    """The queue of one process. `stopped_s` is how long one that stops itself stays so."""

    def __init__(self, *, process: str, kind: str, tally: Tally, stopped_s: float) -> None:
        self._process = process
        self._kind = kind
        self._tally = tally
        self._stopped_s = stopped_s
        self._queue: deque[str] = deque()
        self._armed: str | None = None
        self._lasting: Strike | None = None  # of a failpoint that delays or raises in this life
        self._armed_at_s = 0.0
        self._running_s = 0.0  # when it was last seen not to be stopped
        self._sleeping = False

    @property
    def waiting(self) -> list[str]:
        """Those that have not struck yet."""
        return list(self._queue)

    def add(self, spec: str) -> bool:
        """Queue one. Whether the process has to be started anew to go on: it has none, or waits for it in vain."""
        self._queue.append(spec)
        if self._armed is not None and time.monotonic() - self._armed_at_s < _IMPATIENT_S:
            return False
        if self._armed is not None and self._queue[0] == self._armed:
            self._queue.rotate(-1)
        return True

    def drop(self) -> bool:
        """Arm none any more. Whether one is in the running process: until that ends, it may still strike."""
        self._queue.clear()
        return self._armed is not None

    def arm(self) -> Mapping[str, str]:
        """The environment of the next start."""
        self._armed = self._queue[0] if self._queue else None
        self._armed_at_s = time.monotonic()
        self._running_s = time.time()
        self._sleeping = False
        if self._armed is None:
            return {}
        spec = self._armed
        if _action(spec) not in ("kill", "stop"):
            self._lasting = self._struck(since_s=time.time())
        return {"OKANE_FAILPOINT": spec}

    def on_death(self, code: int, *, alive_s: float, is_killed: bool = False) -> bool:
        """Handle the end of a process that was alive at `alive_s`; return True if the failpoint caused it.

        `is_killed`: by a signal from here.
        """
        if self._lasting is not None:
            self._lasting.until_s, self._lasting = time.time(), None
        if is_killed or code != -signal.SIGKILL or self._armed is None or _action(self._armed) != "kill":
            return False
        self._struck(since_s=alive_s).until_s = time.time()
        self._tally.killed(self._kind, self._process)
        return True

    def look(self, child: Child) -> None:
        """Wake it up later, if it has stopped itself."""
        if self._armed is None or _action(self._armed) != "stop" or self._sleeping:
            return
        now_s = time.time()
        if not _stopped(child.pid):
            self._running_s = now_s
            return
        self._sleeping = True
        strike = self._struck(since_s=self._running_s)
        asyncio.get_running_loop().call_later(self._stopped_s, _wake, child, strike)

    def _struck(self, *, since_s: float) -> Strike:
        assert self._armed is not None
        self._tally.points[self._armed.partition(":")[0]] += 1
        strike = Strike(process=self._process, action=_action(self._armed), since_s=since_s)
        self._tally.strikes.append(strike)
        with contextlib.suppress(ValueError):
            self._queue.remove(self._armed)
        self._armed = None
        return strike


def _action(spec: str) -> str:
    return spec.split(":")[1].partition("=")[0]


def _stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


def _wake(child: Child, strike: Strike) -> None:
    if child.exit_code() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGCONT)
    strike.until_s = time.time()
