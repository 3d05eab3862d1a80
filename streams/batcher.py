"""Group commit for anything with round trips: items added during one trip go out together in the next.

No timers and no task per item: a lone item costs one turn of the event loop, and concurrent items share a trip. On a busy
loop a turn is long, because everything that has arrived is read in it.
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
    """Passes items to `flush` in order, one batch at a time, which makes batches as large as possible.

    `flush` handles its own errors.
    """

    def __init__(self, flush: Callable[[list[T]], Awaitable[None]], *, max_batch: int = 256) -> None:
        if max_batch < 1:
            raise ValueError("max_batch is at least 1")
        self._flush = flush
        self._max_batch = max_batch
        self._waiting: deque[T] = deque()
        self._flushing: set[asyncio.Future[None]] = set()
        self._turn: asyncio.Future[None] | None = None  # the flush whose end lets the next batch leave
        self._closed = False
        # A flush serves many callers: the context of one of them (a request's id in the logs) is not the flush's.
        self._context = contextvars.copy_context()

    def add(self, item: T) -> None:
        """Queue `item`."""
        if self._closed:
            raise RuntimeError("this batcher is closed")
        self._waiting.append(item)
        self._start()

    async def aclose(self) -> None:
        """Refuse further items, and return when all queued ones have been flushed."""
        self._closed = True
        await self.idle()

    async def idle(self) -> None:
        """Return when everything queued, also meanwhile, has been flushed."""
        while self._flushing:
            await asyncio.wait(self._flushing)

    async def abandon(self) -> None:
        """Refuse further items, drop those queued, and cancel the flushes, except those inside `hold_turn`."""
        self._closed = True
        self._waiting.clear()
        tasks = [one for one in self._flushing if isinstance(one, asyncio.Task)]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @contextlib.contextmanager
    def hold_turn(self) -> Iterator[bool]:
        """Let the caller flush its own items inside the block, if no flush holds the turn; yield whether it may."""
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
        """Let the next batch leave. For `flush`, in its own task, when the rest of its work does not hold up other batches.

        A batch that left earlier would wait elsewhere for this one, and no item could join it there.
        """
        if self._turn is not None and self._turn is asyncio.current_task():
            self._turn = None
            self._start()

    def _start(self) -> None:
        """Start a flush of the queued items, unless one holds the turn."""
        if self._waiting and self._turn is None:
            # The task starts in the next turn of the loop: items added until then join the batch.
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
        self._start()  # items added after its last check, or left by a cancelled flush

    async def _run(self) -> None:
        turn = self._turn
        while self._waiting and self._turn is turn:
            size = min(len(self._waiting), self._max_batch)
            await self._flush([self._waiting.popleft() for _ in range(size)])
