"""Group commit for anything with round trips: what callers want while one is in flight goes out together in the next.

No timers and no task per caller: a lone caller pays one turn of the event loop, a crowd shares the trip.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")
A_contra = TypeVar("A_contra", contravariant=True)


class Answer(Protocol[A_contra]):
    """Whom a result is told: a future, or what does without the cost of one."""

    def done(self) -> bool: ...

    def set_result(self, result: A_contra, /) -> None: ...

    def set_exception(self, error: BaseException, /) -> None: ...

    def cancel(self) -> object: ...


class Coalescer(Generic[T, R]):
    """Collects items and hands them to `flush` in batches, in the order of `submit`.

    `flush` answers one result per item, in order; an exception among the results is raised to that item's caller alone,
    an exception from `flush` itself to every caller of the batch. At most `lanes` flushes are in flight at a time: one
    keeps the order and makes the batches largest. `on_batch` is told the size of every batch.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[T]], Awaitable[Sequence[R | BaseException]]],
        *,
        max_batch: int = 256,
        lanes: int = 1,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        if max_batch < 1 or lanes < 1:
            raise ValueError("max_batch and lanes are at least 1")
        self._flush = flush
        self._max_batch = max_batch
        self._max_lanes = lanes
        self._on_batch = on_batch
        self._waiting: deque[tuple[T, Answer[R]]] = deque()
        self._lanes: set[asyncio.Task[None]] = set()
        self._kicked = False
        self._closed = False
        # A flush is for many callers: what one of them has bound (a request's id in the logs) is not its context.
        self._context = contextvars.copy_context()

    def submit(self, item: T) -> asyncio.Future[R]:
        """Queues `item`; await the future for its result. Cancelled before its batch is taken, it is withdrawn."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self.submit_to(future, item)
        return future

    def submit_to(self, answer: Answer[R], item: T) -> None:
        """Queues `item`, whose result `answer` will be told."""
        if self._closed:
            raise RuntimeError("this coalescer is closed")
        self._waiting.append((item, answer))
        self._kick_soon()

    async def aclose(self) -> None:
        """Takes no more items and returns when all that were taken have been answered."""
        self._closed = True
        await self.idle()

    async def idle(self) -> None:
        """Returns when everything submitted so far, and what comes meanwhile, has been answered."""
        while self._waiting or self._lanes:
            self._kick()
            await asyncio.wait(self._lanes)

    def _kick_soon(self) -> None:
        # Not at once: whoever submits in the same turn of the loop joins the batch.
        if not self._kicked and len(self._lanes) < self._max_lanes:
            self._kicked = True
            asyncio.get_running_loop().call_soon(self._kick)

    def _kick(self) -> None:
        self._kicked = False
        if self._waiting and len(self._lanes) < self._max_lanes:
            task = asyncio.get_running_loop().create_task(self._lane(), context=self._context)
            self._lanes.add(task)
            task.add_done_callback(self._lane_done)

    def _lane_done(self, task: asyncio.Task[None]) -> None:
        self._lanes.discard(task)
        if self._waiting:  # submitted between the lane's last look and its end, or the lane was cancelled
            self._kick()

    async def _lane(self) -> None:
        while batch := self._take():
            if self._waiting:
                self._kick_soon()
            await self._answer(batch)

    def _take(self) -> list[tuple[T, Answer[R]]]:
        batch: list[tuple[T, Answer[R]]] = []
        while self._waiting and len(batch) < self._max_batch:
            item, future = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
        return batch

    async def _answer(self, batch: list[tuple[T, Answer[R]]]) -> None:
        if self._on_batch is not None:
            self._on_batch(len(batch))
        results: Sequence[R | BaseException]
        try:
            results = await self._flush([item for item, _ in batch])
        except Exception as error:
            results = [error] * len(batch)
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        if len(results) != len(batch):
            bug = RuntimeError(f"a bug in flush: {len(results)} results for {len(batch)} items")
            results = [bug] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():  # its caller was cancelled meanwhile
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
