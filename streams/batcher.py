"""Group commit for anything with round trips: what is added while one is in flight goes out together in the next.

No timers and no task per item: a lone item pays one turn of the event loop, a crowd shares the trip. A turn is not little:
on a busy loop everything that has arrived is read in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
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
        self._lanes: set[asyncio.Future[None]] = set()
        self._starting: asyncio.Task[None] | None = None  # a lane that has not had its first turn yet
        self._closed = False
        # A flush is for many callers: what one of them has bound (a request's id in the logs) is not its context.
        self._context = contextvars.copy_context()

    def add(self, item: T) -> None:
        """Queues `item`."""
        if self._closed:
            raise RuntimeError("closed: it takes no more")
        self._waiting.append(item)
        self._start_lane()

    async def aclose(self) -> None:
        """Takes no more items and returns when all that were taken have been flushed."""
        self._closed = True
        await self.idle()

    async def idle(self) -> None:
        """Returns when everything added so far, and what comes meanwhile, has been flushed."""
        while self._lanes:
            await asyncio.wait(self._lanes)

    async def abandon(self) -> None:
        """Takes no more, forgets what waits, and cancels what is being flushed, but for what a borrower flushes."""
        self._closed = True
        self._waiting.clear()
        tasks = [lane for lane in self._lanes if isinstance(lane, asyncio.Task)]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @contextlib.contextmanager
    def lent(self) -> Iterator[bool]:
        """Lends the caller a lane for the block, to flush what it has by itself: if one is free, and nothing waits. Says
        whether it does."""
        if self._closed or self._waiting or len(self._lanes) >= self._max_lanes:
            yield False
            return
        lane: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lanes.add(lane)
        try:
            yield True
        finally:
            lane.set_result(None)
            self._ended(lane)

    def _start_lane(self) -> None:
        if self._starting is not None or len(self._lanes) >= self._max_lanes:
            return
        # Its first turn is the loop's next: what is added until then joins the batch.
        self._starting = asyncio.get_running_loop().create_task(self._lane(), context=self._context.copy())
        self._lanes.add(self._starting)
        self._starting.add_done_callback(self._ended)

    def _ended(self, lane: asyncio.Future[None]) -> None:
        self._lanes.discard(lane)
        if lane is self._starting:  # cancelled before it began
            self._starting = None
        if self._waiting:  # added between the lane's last look and its end, or the lane was cancelled
            self._start_lane()

    async def _lane(self) -> None:
        self._starting = None
        while self._waiting:
            size = min(len(self._waiting), self._max_batch)
            batch = [self._waiting.popleft() for _ in range(size)]
            if self._waiting:
                self._start_lane()
            await self._flush(batch)
