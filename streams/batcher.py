"""Group commit for anything with round trips: what is added while one is in flight goes out together in the next.

No timers and no task per item: a lone item pays one turn of the event loop, a crowd shares the trip.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Batcher(Generic[T]):
    """Hands what is added to `flush`, in batches and in order. `flush` sees to its errors itself.

    At most `lanes` flushes are in flight at a time: one keeps the order and makes the batches largest.
    """

    def __init__(self, flush: Callable[[list[T]], Awaitable[None]], *, max_batch: int = 256, lanes: int = 1) -> None:
        if max_batch < 1 or lanes < 1:
            raise ValueError("max_batch and lanes are at least 1")
        self._flush = flush
        self._max_batch = max_batch
        self._max_lanes = lanes
        self._waiting: deque[T] = deque()
        self._lanes: set[asyncio.Task[None]] = set()
        self._kicked = False
        self._closed = False
        # A flush is for many callers: what one of them has bound (a request's id in the logs) is not its context.
        self._context = contextvars.copy_context()

    def add(self, item: T) -> None:
        """Queues `item`."""
        if self._closed:
            raise RuntimeError("closed: it takes no more")
        self._waiting.append(item)
        if not self._kicked and len(self._lanes) < self._max_lanes:
            self._kick_soon()

    async def aclose(self) -> None:
        """Takes no more items and returns when all that were taken have been flushed."""
        self._closed = True
        await self.idle()

    async def idle(self) -> None:
        """Returns when everything added so far, and what comes meanwhile, has been flushed."""
        while self._waiting or self._lanes:
            self._kick()
            await asyncio.wait(self._lanes)

    async def abandon(self) -> None:
        """Takes no more, forgets what waits, and cancels what is being flushed."""
        self._closed = True
        self._waiting.clear()
        for lane in self._lanes:
            lane.cancel()
        if self._lanes:
            await asyncio.wait(self._lanes)

    def _kick_soon(self) -> None:
        # Not at once: what is added in the same turn of the loop joins the batch.
        self._kicked = True
        asyncio.get_running_loop().call_soon(self._kick)

    def _kick(self) -> None:
        self._kicked = False
        if self._waiting and len(self._lanes) < self._max_lanes:
            task = asyncio.get_running_loop().create_task(self._lane(), context=self._context.copy())
            self._lanes.add(task)
            task.add_done_callback(self._lane_done)

    def _lane_done(self, task: asyncio.Task[None]) -> None:
        self._lanes.discard(task)
        if self._waiting:  # added between the lane's last look and its end, or the lane was cancelled
            self._kick()

    async def _lane(self) -> None:
        while self._waiting:
            size = min(len(self._waiting), self._max_batch)
            batch = [self._waiting.popleft() for _ in range(size)]
            if self._waiting and not self._kicked and len(self._lanes) < self._max_lanes:
                self._kick_soon()
            await self._flush(batch)
