"""Reads that are repeated the less often the longer they take."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

PAUSES = 20  # times its own duration: a read takes at most a twentieth of a core of its server

T = TypeVar("T")


class PacedRead(Generic[T]):
    """A read whose answer is used again for `every_s`, and for `PAUSES` times as long as it took to get.

    With a million payments in trouble a count takes a second, and that is when operators look: payments must not feel it.
    """

    def __init__(
        self, read: Callable[[], Awaitable[T]], *, every_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._every_s = every_s
        self._clock = clock
        self._answer: list[T] = []  # one, or none yet
        self._until_s = 0.0

    async def get(self) -> T:
        """Return the answer, read anew where it is due. An error of the read is passed on, and leaves no answer."""
        if not self._answer or self._clock() >= self._until_s:
            self.forget()
            began_s = self._clock()
            self._answer = [await self._read()]
            ended_s = self._clock()
            self._until_s = ended_s + max(self._every_s, PAUSES * (ended_s - began_s))
        return self._answer[0]

    def forget(self) -> None:
        """Read anew the next time."""
        self._answer = []
