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
    """Hands what is added to `flush`, in order, one batch at a time: that makes the batches largest.

    `flush` sees to its errors itself.
    """

    def __init__(self, flush: Callable[[list[T]], Awaitable[None]], *, max_batch: int = 256) -> None:
        if max_batch < 1:
            raise ValueError("max_batch is at least 1")
        self._flush = flush
        self._max_batch = max_batch
        self._waiting: deque[T] = deque()
        self._flushing: set[asyncio.Future[None]] = set()
        self._turn: asyncio.Future[None] | None = None  # that of them whose end lets the next batch leave
        self._closed = False
        # A flush is for many callers: what one of them has bound (a request's id in the logs) is not its context.
        self._context = contextvars.copy_context()

    def add(self, item: T) -> None:
        """Queues `item`."""
        if self._closed:
            raise RuntimeError("closed: it takes no more")
        self._waiting.append(item)
        self._start()

    async def aclose(self) -> None:
        """Takes no more items and returns when all that were taken have been flushed."""
        self._closed = True
        await self.idle()

    async def idle(self) -> None:
        """Returns when everything added so far, and what comes meanwhile, has been flushed."""
        while self._flushing:
            await asyncio.wait(self._flushing)

    async def abandon(self) -> None:
        """Takes no more, forgets what waits, and cancels what is being flushed, but for what a borrower flushes."""
        self._closed = True
        self._waiting.clear()
        tasks = [one for one in self._flushing if isinstance(one, asyncio.Task)]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @contextlib.contextmanager
    def hold_turn(self) -> Iterator[bool]:
        """Lends the caller the turn for the block, to flush what it has by itself: if nobody has it. Says whether it does."""
        if self._closed or self._turn is not None:
            yield False
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begin(turn)
        try:
            yield True
        finally:
            turn.set_result(None)
            self._ended(turn)

    def release(self) -> None:
        """For `flush` to call in its own task when the rest of its batch is nothing that others would have to wait for: the
        next batch may leave.

        A batch that left earlier would wait for this one elsewhere, and nothing could join it there.
        """
        if self._turn is not None and self._turn is asyncio.current_task():
            self._turn = None
            self._start()

    def _start(self) -> None:
        """Sends off what waits, if nobody has the turn."""
        if self._waiting and self._turn is None:
            # Its first turn of the loop is the next: what is added until then joins the batch.
            flushing = asyncio.get_running_loop().create_task(self._run(), context=self._context.copy())
            flushing.add_done_callback(self._ended)
            self._begin(flushing)

    def _begin(self, turn: asyncio.Future[None]) -> None:
        self._flushing.add(turn)
        self._turn = turn

    def _ended(self, turn: asyncio.Future[None]) -> None:
        self._flushing.discard(turn)
        if self._turn is turn:
            self._turn = None
        self._start()  # what was added between its last look and its end, or left behind by one that was cancelled

    async def _run(self) -> None:
        turn = self._turn
        while self._waiting and self._turn is turn:
            size = min(len(self._waiting), self._max_batch)
            await self._flush([self._waiting.popleft() for _ in range(size)])
