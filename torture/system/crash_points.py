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
        self._armed_at_s = 0.0
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
        self._sleeping = False
        if self._armed is None:
            return {}
        spec = self._armed
        if _action(spec) not in ("kill", "stop"):
            self._struck()
        return {"OKANE_FAILPOINT": spec}

    def on_death(self, code: int) -> bool:
        """Handle an end without a signal from here; return True if the failpoint caused it."""
        if code != -signal.SIGKILL or self._armed is None or _action(self._armed) != "kill":
            return False
        self._struck()
        self._tally.killed(self._kind, self._process)
        return True

    def look(self, child: Child) -> None:
        """Wake it up later, if it has stopped itself."""
        if self._armed is None or _action(self._armed) != "stop" or self._sleeping or not _stopped(child.pid):
            return
        self._sleeping = True
        self._struck()
        asyncio.get_running_loop().call_later(self._stopped_s, _wake, child)

    def _struck(self) -> None:
        assert self._armed is not None
        self._tally.points[self._armed.partition(":")[0]] += 1
        self._tally.strikes.append(Strike(self._process, _action(self._armed), time.time()))
        with contextlib.suppress(ValueError):
            self._queue.remove(self._armed)
        self._armed = None


def _action(spec: str) -> str:
    return spec.split(":")[1].partition("=")[0]


def _stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


def _wake(child: Child) -> None:
    if child.exit_code() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGCONT)
