"""Reads that many tabs make at the same time, made once for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

SHARED_S = 1.9  # each poll of a single tab, every two seconds, gets an answer of its own
MAX_SHARED = 200  # different reads

T = TypeVar("T")


@dataclass(slots=True)
class _Shared(Generic[T]):
    reading: asyncio.Task[T]
    until_s: float


class SharedReads(Generic[T]):
    """Answers by their keys, for `SHARED_S` from the beginning of the read. An error is shared by those that wait for it."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shared: dict[Hashable, _Shared[T]] = {}

    async def get(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """Return the answer of the latest read with this key; read, if that began too long ago or has failed."""
        shared = self._shared.get(key)
        now_s = self._clock()
        if shared is None or now_s >= shared.until_s or _has_failed(shared.reading):
            self._forget(now_s)
            shared = self._shared[key] = _Shared(asyncio.ensure_future(_run(read)), now_s + SHARED_S)
            shared.reading.add_done_callback(
                _has_failed
            )  # if all tabs have left, it would be logged as never retrieved
        return await asyncio.shield(shared.reading)  # a tab that leaves does not end the read of the others

    def _forget(self, now_s: float) -> None:
        """Make room for one more."""
        self._shared = {key: one for key, one in self._shared.items() if now_s < one.until_s}
        if len(self._shared) >= MAX_SHARED:
            del self._shared[next(iter(self._shared))]


async def _run(read: Callable[[], Awaitable[T]]) -> T:
    return await read()


def _has_failed(reading: asyncio.Task[T]) -> bool:
    return reading.done() and (reading.cancelled() or reading.exception() is not None)
