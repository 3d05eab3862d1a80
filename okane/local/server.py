"""The base of every supervised program: prepare, launch, probe, stop.

Promise: `start` returns when the program is ready, or raises `StartError` with the last lines of its log.
"""

from __future__ import annotations

import abc
import threading
import time

from okane.errors import SetupError
from okane.local.processes import Child

_READY_POLL_S = 0.02


class LocalError(SetupError):
    """`okane up` cannot run on this machine; the message says how to correct that."""


class StartError(LocalError):
    """A program died before it was ready, or was not ready in time."""


class Server(abc.ABC):
    """A program under supervision. `launch` never waits, so that many may start side by side."""

    name: str

    def __init__(self) -> None:
        self._child: Child | None = None

    @property
    def child(self) -> Child | None:
        """The running process, or the last one that ran."""
        return self._child

    def prepare(self) -> None:  # noqa: B027 - most programs need no preparation
        """Create the files that the program needs. May take seconds; may be repeated."""

    def launch(self) -> Child:
        """Start the program and return at once. The calling thread must outlive it (see `processes.spawn`)."""
        self._child = self._spawn()
        return self._child

    @abc.abstractmethod
    def _spawn(self) -> Child: ...

    @abc.abstractmethod
    def ready(self) -> bool:
        """Return True if the program is ready. Takes milliseconds, at most two seconds."""

    def start(self, *, timeout_s: float = 60) -> None:
        """Prepare, launch and wait until it is ready."""
        self.prepare()
        self.launch()
        deadline = time.monotonic() + timeout_s
        while not self.ready():
            self.check_alive()
            if time.monotonic() > deadline:
                self.stop()
                raise StartError(f"{self.name} was not ready after {timeout_s:.0f} s.\n{self.last_lines()}")
            time.sleep(_READY_POLL_S)

    def check_alive(self) -> None:
        """Raise StartError if the process has ended."""
        if self._child is not None and (code := self._child.exit_code()) is not None:
            raise StartError(f"{self.name} {describe_exit(code)}.\n{self.last_lines()}")

    def stop(self, *, hurry: threading.Event | None = None) -> None:
        """Stop it gracefully; its data is on disk when this returns. Does nothing when it is not running."""
        if self._child is not None:
            self._child.stop(hurry=hurry)

    def kill(self) -> None:
        """End it as a power cut would: kill -9."""
        if self._child is not None:
            self._child.kill()

    def last_lines(self) -> str:
        """Return the end of its log, for an error message."""
        return self._child.last_lines() if self._child is not None else ""


def describe_exit(code: int) -> str:
    """Return the end of a process as a verb: `exited with 3` or `died (signal 9)`."""
    return f"died (signal {-code})" if code < 0 else f"exited with {code}"
