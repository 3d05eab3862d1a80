"""Sweep: sends again what wake-ups were lost or are overdue. With it, losing all of Redis loses no payment.

Every worker runs one; Postgres sees to it that they do not get in each other's way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from okane.errors import StoreUnavailable
from okane.metrics import OkaneMetrics
from okane.store import SweepStore, WakeUp
from streams import Draft, Producer, StreamError

log = structlog.get_logger("okane.sweep")

BATCH = 500


@dataclass(frozen=True, slots=True)
class Queue:
    """The state of the streams: each lane's age of its oldest live entry (None: the lane is empty), and how many wake-ups
    its fullest lane still takes."""

    oldest_entries: Mapping[str, timedelta | None]
    room: int


class Sweep:
    """One sweeper."""

    def __init__(
        self,
        *,
        store: SweepStore,
        producer: Producer,
        queue: Callable[[], Awaitable[Queue]],
        interval: timedelta,
        metrics: OkaneMetrics,
    ) -> None:
        self._store = store
        self._producer = producer
        self._queue = queue
        self._interval_s = interval.total_seconds()
        self._metrics = metrics

    async def run_once(self) -> int:
        """Mark what is lost and wake what is due; how many wake-ups were sent.

        Redis is asked first: while it is away, or full, nothing is pushed back for a wake-up that cannot be sent. Raises
        StreamError, StoreUnavailable.
        """
        queue = await self._queue()
        while (await self._store.mark_lost(queue.oldest_entries)).more:
            pass
        sent = 0
        while sent < queue.room:
            due = await self._store.take_due(limit=min(BATCH, queue.room - sent))
            await self._wake(due)
            sent += len(due)
            if len(due) < BATCH:
                break
        if sent:
            log.warning("wake_ups_repaired", count=sent)
        return sent

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep every interval until `stop`."""
        while not stop.is_set():
            with contextlib.suppress(StoreUnavailable, StreamError):  # said by whoever lost its connection
                await self.run_once()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._interval_s)

    async def _wake(self, due: Sequence[WakeUp]) -> None:
        await self._producer.publish_many([Draft(one.payment_id.bytes, lane=one.lane) for one in due])
        for one in due:
            self._metrics.sweep_repairs.labels(one.lane).inc()
