"""The writer of results: one statement for all queues, 50 ms after the first result. They stay in memory until the commit.

A result that is lost with the process is sent once more by the next owner of its queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from okane.store.webhook_queues import QueueBatch, WebhookQueueStore
from okane.webhooks.served_queue import ServedQueue, ServedQueues
from streams.failpoints import failpoint

log = structlog.get_logger("okane.webhooks")

BEFORE_RESULTS = failpoint("webhooks.before_results", "answers are in memory, nothing is written")
AFTER_RESULTS = failpoint("webhooks.after_results", "the results are committed, nothing in memory is changed")

MAX_UNWRITTEN = 10_000  # results in memory: beyond it nothing new is sent


class ResultWriter:
    """The results of a dispatcher's queues. `lost` is called with each queue that has another owner now."""

    def __init__(
        self,
        *,
        store: WebhookQueueStore,
        queues: ServedQueues,
        clock: Callable[[], float],
        lost: Callable[[ServedQueue], None],
    ) -> None:
        self.has_work = asyncio.Event()
        self._store = store
        self._queues = queues
        self._clock = clock
        self._lost = lost
        self._dirty: dict[ServedQueue, None] = {}
        self._noted = 0  # since the last collection
        self._collected = 0  # and not written yet
        self._batches: list[tuple[ServedQueue, QueueBatch]] = []

    @property
    def has_room(self) -> bool:
        """False while too many results wait for Postgres."""
        return self._noted + self._collected < MAX_UNWRITTEN

    @property
    def is_empty(self) -> bool:
        """True if nothing waits to be written."""
        return not self._dirty and not self._batches

    def note(self, served: ServedQueue) -> None:
        """Note that a queue has a result."""
        self._noted += 1
        self.mark(served)

    def mark(self, served: ServedQueue) -> None:
        """Write the queue's state with the next statement."""
        self._dirty[served] = None
        self.has_work.set()

    def forget(self) -> None:
        """Drop everything that is not written: its positions are those of other events now."""
        self._dirty, self._batches = {}, []
        self._noted = self._collected = 0

    async def run_once(self) -> int:
        """Write everything that waits; return the number of rows. Raises StoreUnavailable: the next run repeats it."""
        if not self._batches:
            self.has_work.clear()
            self._collect()
        if not self._batches:
            return 0
        if BEFORE_RESULTS.armed:
            await BEFORE_RESULTS.hit()
        self.has_work.set()  # until it is written
        held = await self._store.write([batch for _, batch in self._batches], self._clock())
        if AFTER_RESULTS.armed:
            await AFTER_RESULTS.hit()
        batches, self._batches, self._collected = self._batches, [], 0
        if not self._dirty:
            self.has_work.clear()
        for served, batch in batches:
            served.queue.confirm()
            if served.endpoint.id in held:
                self._move_replay(served, batch)
                self._note_due(served, batch)
            elif self._queues.get(served.endpoint.id) is served:
                self._lost(served)
        return sum(len(batch.batch.results) for _, batch in batches)

    def _collect(self) -> None:
        dirty, self._dirty, self._noted = self._dirty, {}, 0
        for served in dirty:
            if self._queues.get(served.endpoint.id) is served:
                batch = served.queue.collect()
                self._collected += len(batch.results)
                self._batches.append((served, QueueBatch(served.endpoint.id, served.epoch, batch, served.replay)))

    def _move_replay(self, served: ServedQueue, batch: QueueBatch) -> None:
        replayed_to = batch.batch.replayed_to
        if batch.replay is not None and replayed_to is not None and served.replay is batch.replay:
            served.replay = replace(batch.replay, next=replayed_to + 1)

    def _note_due(self, served: ServedQueue, batch: QueueBatch) -> None:
        """Note when the first of the rows that wait now is due."""
        delays_s = [one.delay_s for one in batch.batch.results if one.delay_s is not None]
        if delays_s:
            self._queues.set_due(served, self._clock() + min(delays_s))
