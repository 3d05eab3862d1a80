"""Group commit for callers that wait for an answer: each gets its own, of a round trip that many have shared."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from streams.batcher import Batcher

T = TypeVar("T")
R = TypeVar("R")


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
        self._flush = flush
        self._on_batch = on_batch
        self._batcher: Batcher[tuple[T, asyncio.Future[R]]] = Batcher(self._answer, max_batch=max_batch, lanes=lanes)

    def submit(self, item: T) -> asyncio.Future[R]:
        """Queues `item`; await the future for its result. Cancelled before its batch is taken, it is withdrawn."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._batcher.add((item, future))
        return future

    async def aclose(self) -> None:
        """Takes no more items and returns when all that were taken have been answered."""
        await self._batcher.aclose()

    async def idle(self) -> None:
        """Returns when everything submitted so far, and what comes meanwhile, has been answered."""
        await self._batcher.idle()

    async def _answer(self, taken: list[tuple[T, asyncio.Future[R]]]) -> None:
        batch = [(item, future) for item, future in taken if not future.done()]
        if not batch:
            return
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
