"""Sweep: sends again what wake-ups were lost or are overdue. With it, losing all of Redis loses no payment.

Every worker runs one; Postgres sees to it that they do not get in each other's way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import structlog

from okane.errors import StoreBusy, StoreUnavailable
from okane.metrics import OkaneMetrics
from okane.store import SweepStore
from streams import Draft, Producer, StreamError

log = structlog.get_logger("okane.sweep")

BATCH = 500


@dataclass(frozen=True, slots=True)
class LaneState:
    """The state of one lane: the age of its oldest live entry (None: it is empty), and how many more entries it takes."""

    oldest_entry: timedelta | None
    room: int


class Sweep:
    """One sweeper. `lanes` looks at the streams; it raises StreamError if Redis cannot say."""

    def __init__(
        self,
        *,
        store: SweepStore,
        producer: Producer,
        lanes: Callable[[], Awaitable[Mapping[str, LaneState]]],
        interval: timedelta,
        metrics: OkaneMetrics,
    ) -> None:
        self._store = store
        self._producer = producer
        self._lanes = lanes
        self._interval_s = interval.total_seconds()
        self._metrics = metrics
        self._behind = False

    async def run_once(self) -> int:
        """Mark what is lost, one window a lane, and wake what is due, one batch; how many wake-ups were sent.

        Redis is asked first: while it is away nothing is pushed back for a wake-up that cannot be sent. A lane that is full
        does not hold up the others. Raises StreamError, StoreUnavailable.
        """
        lanes = await self._lanes()
        self._behind = await self._mark(lanes)
        with_room = {name: lane.room for name, lane in lanes.items() if lane.room > 0}
        if not with_room:
            return 0
        limit = min(BATCH, *with_room.values())
        due = await self._store.take_due(lanes=with_room, limit=limit)
        if due:
            await self._producer.publish_many([Draft(one.payment_id.bytes, lane=one.lane) for one in due])
            for one in due:
                self._metrics.sweep_repairs.labels(one.lane).inc()
            log.warning("wake_ups_repaired", count=len(due))
        self._behind = self._behind or len(due) == limit
        return len(due)

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep every interval until `stop`, and without a pause while there is more to do."""
        while not stop.is_set():
            self._behind = False
            try:
                await self.run_once()
            except (StoreUnavailable, StreamError) as error:  # said by whoever lost its connection
                log.debug("sweep_interrupted", reason=str(error))
            except Exception:
                log.exception("sweep_failed")  # the sweep is the last to repair things: it goes on
            if not self._behind:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._interval_s):
                        await stop.wait()

    async def _mark(self, lanes: Mapping[str, LaneState]) -> bool:
        """Whether a cursor is still behind. A row that somebody holds locked stops its lane's cursor, and nothing else."""
        await self._store.look_ahead()
        behind = False
        for name, lane in lanes.items():
            try:
                behind |= (await self._store.mark_lost(name, lane.oldest_entry)).more
            except StoreBusy as error:
                log.warning("sweep_held_up", lane=name, reason=str(error))
        return behind
