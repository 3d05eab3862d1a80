"""Group commit for callers that wait for a result: each gets its own result of a shared round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from streams.batcher import Batcher

T = TypeVar("T")
R = TypeVar("R")


class Coalescer(Generic[T, R]):
    """Collects items and passes them to `flush` in batches, in the order of `submit`, one batch at a time.

    `flush` returns one result per item, in order. An exception among the results is raised to the caller of that item alone,
    an exception from `flush` itself to every caller of the batch. `on_batch` gets the size of every batch.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[T]], Awaitable[Sequence[R | BaseException]]],
        *,
        max_batch: int = 256,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self._flush = flush
        self._max_batch = max_batch
        self._on_batch = on_batch
        # An entry is one submitted item, or several with one future; True for several.
        self._batcher: Batcher[tuple[Sequence[T], asyncio.Future[Any], bool]] = Batcher(
            self._answer, max_batch=max_batch
        )

    def submit(self, item: T) -> asyncio.Future[R]:
        """Queue `item`; return the future of its result. Cancelling it before its batch leaves withdraws the item."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._batcher.add(((item,), future, False))
        return future

    async def submit_many(self, items: Sequence[T]) -> Sequence[R | BaseException]:
        """Queue all of `items`; return their results in order, with an exception in the place of a failure.

        When nothing is in flight they leave at once, in the caller's own task: cancelling it ends the trip.
        """
        with self._batcher.hold_turn() as is_ours:
            if is_ours:
                return await self._results(items)
        future: asyncio.Future[Sequence[R | BaseException]] = asyncio.get_running_loop().create_future()
        self._batcher.add((items, future, True))
        return await future

    async def aclose(self) -> None:
        """Refuse further items, and return when all queued ones have their results."""
        await self._batcher.aclose()

    async def idle(self) -> None:
        """Return when everything submitted, also meanwhile, has its result."""
        await self._batcher.idle()

    async def _answer(self, taken: list[tuple[Sequence[T], asyncio.Future[Any], bool]]) -> None:
        waiting = [one for one in taken if not one[1].done()]
        try:
            results = await self._results([item for its, _, _ in waiting for item in its])
        except BaseException:
            for _, future, _ in waiting:
                future.cancel()
            raise
        at = 0
        for its, future, many in waiting:
            first, at = at, at + len(its)
            if future.done():  # a cancelled caller
                continue
            if many:
                future.set_result(results[first:at])
            elif isinstance(result := results[first], BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

    async def _results(self, items: Sequence[T]) -> Sequence[R | BaseException]:
        results: list[R | BaseException] = []
        for start in range(0, len(items), self._max_batch):
            results += await self._flush_batch(items[start : start + self._max_batch])
        return results

    async def _flush_batch(self, batch: Sequence[T]) -> Sequence[R | BaseException]:
        if self._on_batch is not None:
            self._on_batch(len(batch))
        try:
            results = await self._flush(batch)
        except Exception as error:
            return [error] * len(batch)
        if len(results) != len(batch):
            bug = RuntimeError(f"a bug in flush: {len(results)} results for {len(batch)} items")
            return [bug] * len(batch)
        return results
