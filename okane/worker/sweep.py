"""The sweep: send the wake-ups that were lost or are overdue, and those of scheduled payments and late look-ups that are due.
With it, losing all of Redis loses no payment.

Every worker sweeps; locks in Postgres keep the sweeps out of each other's way. While Redis cannot be used, payments run
directly: when it does not answer, answers with an error, or does not let this worker's consumer read or ack.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import structlog

from okane.errors import StoreBusy, StoreUnavailable
from okane.lanes import payments_stream
from okane.metrics import OkaneMetrics
from okane.pausing import pause
from okane.store.sweep import MarkResult
from okane.worker.direct_run import DirectRuns, DueWork
from streams import Draft, Publisher, Stream, StreamError, StreamForbidden, StreamFull, StreamRefused
from streams.failpoints import failpoint

log = structlog.get_logger("okane.sweep")

BATCH = 500
CHECK_AGAIN_S = 2.0  # between two checks of a Redis that cannot be used,
PATIENCE_S = 0.25  # and the longest wait for one: a silent server must not hold up direct runs
DIRECT_PAUSE_S = 0.05  # between two looks for due payments while Redis is away

AFTER_MARK = failpoint("sweep.after_mark", "lost payments are marked, not taken", raises=StoreUnavailable)
AFTER_TAKE = failpoint("sweep.after_take", "due payments are pushed back, no wake-up sent", raises=StoreUnavailable)


@dataclass(frozen=True, slots=True)
class LaneState:
    """One lane's state: the age of its oldest live entry (None: it is empty), and how many more entries it takes."""

    oldest_entry: timedelta | None
    room: int


class SweptStore(Protocol):
    """The statements of the sweep of one kind of work: payments, or operations."""

    async def advance_horizon(self) -> None: ...

    async def mark_lost(self, lane: str, oldest_entry: timedelta | None) -> MarkResult: ...

    async def take_due(
        self, lanes: Mapping[str, timedelta | None], *, limit: int, by_retry_at: bool = False
    ) -> Sequence[DueWork]: ...


def always_able() -> timedelta:
    """Return zero: there is no consumer that could be unable to work."""
    return timedelta(0)


class Sweep:
    """The sweep of one worker. `lanes` reads the state of the streams; it raises StreamError if Redis does not answer or
    takes no wake-up.

    While Redis works, lost payments are looked for once in `mark_interval`, due ones in each round.
    `unable_for` returns how long this worker's consumer has been unable to work; from `patience` on Redis counts as away,
    whatever else it answers.
    """

    def __init__(
        self,
        *,
        store: SweptStore,
        producer: Publisher,
        direct: DirectRuns,
        lanes: Callable[[], Awaitable[Mapping[str, LaneState]]],
        interval: timedelta,
        metrics: OkaneMetrics,
        stream: Stream | None = None,
        unable_for: Callable[[], timedelta] = always_able,
        patience: timedelta = timedelta(seconds=2),
        mark_interval: timedelta = timedelta(0),
    ) -> None:
        self._store = store
        self._producer = producer
        self._direct = direct
        self._lanes = lanes
        stream = payments_stream("payments") if stream is None else stream
        self._stream = stream.name
        # While Redis is away no entry counts as live: one that is delivered later is refused by the claim.
        self._unseen = {name: LaneState(oldest_entry=None, room=0) for name in stream.lane_names}
        self._interval_s = interval.total_seconds()
        self._metrics = metrics
        self._unable_for = unable_for
        self._patience = patience
        self._away = False
        self._check_at_s = 0.0
        self._pause_s = 0.0
        self._mark_interval_s = mark_interval.total_seconds()
        self._mark_at_s = 0.0

    async def run_once(self) -> int:
        """Mark lost payments, one window a lane, and wake or run one batch of due ones; return their number.

        Raises StoreUnavailable, or StreamFull if a lane has no room for all of them; those are run directly, as far as there
        is room.
        """
        lanes = await self._look()
        return await self._run_due() if lanes is None else await self._wake_due(lanes)

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep every interval until `stop`, and without a pause while there is more to do."""
        while not stop.is_set():
            self._pause_s = self._interval_s
            try:
                await self.run_once()
            except (StoreUnavailable, StreamError) as error:  # the connection that was lost has logged it
                log.debug("sweep_interrupted", reason=str(error))
            except Exception:
                log.exception("sweep_failed")  # no other part repairs what the sweep repairs: it goes on after a bug
            if self._pause_s:
                await pause(self._pause_s, stop)

    async def _look(self) -> Mapping[str, LaneState] | None:
        """Return the state of the lanes, or None while Redis cannot be used."""
        if self._away and time.monotonic() < self._check_at_s:
            return None
        try:
            async with asyncio.timeout(PATIENCE_S if self._away else None):
                lanes = await self._lanes()
        except (StreamError, TimeoutError) as error:
            self._lost(error)
            return None
        unable = self._unable_for()
        if unable >= self._patience:
            self._lost(
                f"it answers, but this worker has not been able to read or ack for {unable.total_seconds():.1f} s"
            )
            return None
        if self._away:
            log.error("redis_back", stream=self._stream)
        self._away = False
        return lanes

    def _lost(self, reason: BaseException | str) -> None:
        """Run payments directly from now on. Log it once, with the traceback if it may be a bug or a damaged key."""
        self._check_at_s = time.monotonic() + CHECK_AGAIN_S
        if not self._away:
            strange = isinstance(reason, StreamRefused) and not isinstance(reason, StreamForbidden)
            log.error(
                "running_without_redis", stream=self._stream, reason=str(reason), exc_info=reason if strange else None
            )
        self._away = True

    async def _wake_due(self, lanes: Mapping[str, LaneState]) -> int:
        """Send due payments to their lanes. A full lane does not hold up the others.

        While this worker can use no provider it sends nothing: wake-ups that nothing can be done for would pile up.
        """
        behind = time.monotonic() >= self._mark_at_s and await self._mark(lanes)
        if not self._direct.may_run:
            return 0
        with_room = {name: lane for name, lane in lanes.items() if lane.room > 0}
        if not with_room:
            return 0
        limit = min(BATCH, *(lane.room for lane in with_room.values()))
        due = await self._take(with_room, limit)
        if due:
            try:
                await self._producer.publish_many([Draft(one.body, lane=one.lane) for one in due])
            except StreamError as error:
                self._direct.start(due)
                if isinstance(error, StreamFull):
                    raise
                self._lost(error)
                self._pause_s = 0.0
                return len(due)
            self._count([one for one in due if not one.scheduled])
        if behind or len(due) == limit:
            self._pause_s = 0.0
        return len(due)

    def _count(self, repaired: Sequence[DueWork]) -> None:
        """Count repaired wake-ups. The wake-up of a scheduled payment was not lost."""
        for one in repaired:
            self._metrics.sweep_repairs.labels(one.lane).inc()
        if repaired:
            log.warning("wake_ups_repaired", count=len(repaired))

    async def _run_due(self) -> int:
        """Run due payments in this process; look for lost ones only if that leaves places free."""
        await self._direct.wait_for_room()
        limit = min(BATCH, self._direct.free)
        if not limit:  # no provider can be used, or only a probe, which is under way
            self._pause_s = DIRECT_PAUSE_S
            return 0
        due = await self._take(self._unseen, limit, by_retry_at=True)
        self._direct.start(due)
        behind = len(due) < limit and await self._mark(self._unseen)
        self._pause_s = 0.0 if behind or len(due) == limit else DIRECT_PAUSE_S
        return len(due)

    async def _take(
        self, lanes: Mapping[str, LaneState], limit: int, *, by_retry_at: bool = False
    ) -> Sequence[DueWork]:
        ages = {name: lane.oldest_entry for name, lane in lanes.items()}
        due = await self._store.take_due(ages, limit=limit, by_retry_at=by_retry_at)
        if due and AFTER_TAKE.armed:
            await AFTER_TAKE.hit()
        return due

    async def _mark(self, lanes: Mapping[str, LaneState]) -> bool:
        """Move the cursors; return True if one is still behind. A locked row stops the cursor of its lane only."""
        begun_s = time.monotonic()
        await self._store.advance_horizon()
        behind = False
        for name, lane in lanes.items():
            try:
                marked = await self._store.mark_lost(name, lane.oldest_entry)
            except StoreBusy as error:
                log.warning("sweep_held_up", lane=name, reason=str(error))
                continue
            if marked.lost and AFTER_MARK.armed:
                await AFTER_MARK.hit()
            behind |= marked.more
        self._mark_at_s = 0.0 if behind else begun_s + self._mark_interval_s
        return behind
