"""The feed of a dispatcher: changes get their positions in the log, and one read brings them to all of its endpoint queues.

A queue without room leaves the feed and reads its own backlog by account and position, until it has caught up. Guarantee: a
queue gets every event of its account behind its place, in the order of the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog

from okane.errors import StoreUnavailable
from okane.metrics import OkaneMetrics
from okane.store.webhook_events import EventRow, LoggedEvent, WebhookEventStore
from okane.store.webhook_queues import WebhookQueueStore
from okane.webhooks.served_queue import ServedQueue, ServedQueues, delivery_of

log = structlog.get_logger("okane.webhooks")

READ = 1_000  # events of one read
MOST_READ = 5_000  # beyond it the accounts of a burst read their backlogs: they delay no other account


class Feed:
    """The feed. `wake` is called with each queue that has something new to send."""

    def __init__(
        self,
        *,
        events: WebhookEventStore,
        store: WebhookQueueStore,
        queues: ServedQueues,
        wake: Callable[[ServedQueue], None],
        metrics: OkaneMetrics,
        clock: Callable[[], float],
        went_back: Callable[[], None],
    ) -> None:
        """`went_back` is called when the log has lost what was read from it: no queue may go on from there."""
        self.position = 0  # the synced queues have all events up to it
        self.still = asyncio.Lock()  # while it is held the position stays
        self._events = events
        self._store = store
        self._queues = queues
        self._wake = wake
        self._metrics = metrics
        self._clock = clock
        self._went_back = went_back
        self._newest: LoggedEvent | None = None  # that was read
        self._is_doubtful = False  # the connection was lost since

    async def start(self) -> None:
        """Begin at the end of the log: queues that are behind read their backlog. Raises StoreUnavailable."""
        self.position = await self._events.last_position()

    async def run_once(self) -> int:
        """Sequence, and take the new events; return how many were found. Raises StoreUnavailable."""
        async with self.still:
            try:
                return await self._run_once()
            except StoreUnavailable:
                self._is_doubtful = True  # the next connection may be to a server that has less
                raise

    async def _run_once(self) -> int:
        sequenced = await self._events.sequence()
        if sequenced is not None and sequenced.count:
            self._metrics.observe_sequenced(sequenced.by_type, timedelta(seconds=sequenced.oldest_s))
        if sequenced is not None or self._is_doubtful:
            last = sequenced.last if sequenced is not None else await self._events.last_position()
            if not await self._continues(last):
                log.warning("webhook_log_went_back", position=self.position, last=last)
                self.position, self._newest = last, None
                self._went_back()
                return 0
        if sequenced is not None and sequenced.last <= self.position:
            return 0
        if not len(self._queues):
            self.position = sequenced.last if sequenced is not None else await self._events.last_position()
            return 0 if sequenced is None else sequenced.count
        if sequenced is not None and sequenced.last - self.position > MOST_READ:
            return await self._pass_by(sequenced.last)
        return await self._take_new()

    async def _continues(self, last: int) -> bool:
        """Return False if the log is another one than was read: a standby became the primary that had not received all of it.

        It may have come further since, and have other events at the same positions.
        """
        if last < self.position:
            return False
        if self._is_doubtful and self._newest is not None:
            found = await self._events.get_many([self._newest.position])
            if any(row.event != self._newest for row in found):
                return False
        self._is_doubtful = False
        return True

    async def _pass_by(self, last: int) -> int:
        """Leave a burst to the backlogs of its accounts."""
        for account_id in await self._store.accounts_between(self.position, last):
            self._queues.behind.update(self._queues.of_account(account_id))
        passed, self.position = last - self.position, last
        return passed

    async def _take_new(self) -> int:
        taken = 0
        while rows := await self._events.read(self.position, READ):
            self._distribute(rows)
            taken += len(rows)
            if len(rows) < READ:
                break
        return taken

    def _distribute(self, rows: Sequence[EventRow]) -> None:
        self._newest = rows[-1].event
        self.position = self._newest.position
        wanted: dict[ServedQueue, list[EventRow]] = {}
        for row in rows:
            for served in self._queues.of_account(row.event.account_id):
                if served not in self._queues.behind and served.receives(row):
                    wanted.setdefault(served, []).append(row)
        now_s = self._clock()
        for served, new in wanted.items():
            if len(new) > served.queue.room:
                self._queues.behind.add(served)
            else:
                served.queue.offer(map(delivery_of, new), read_to=self.position, now_s=now_s)
                self._wake(served)

    async def read_backlogs(self) -> int:
        """Read a page for each queue that is behind and has room; return how many are still behind with room left.

        Raises StoreUnavailable.
        """
        for served in [one for one in self._queues.behind if _may_read(one)]:
            await self._read_backlog(served)
        return sum(map(_may_read, self._queues.behind))

    async def _read_backlog(self, served: ServedQueue) -> None:
        queue = served.queue
        page = await self._events.read_account(
            served.endpoint.account_id,
            queue.read_to,
            queue.room,
            sorted(served.types),
            undelivered_to=served.endpoint.id,
        )
        deliveries = [delivery_of(row) for row in page.rows if served.receives(row)]
        queue.offer(deliveries, read_to=page.reached, now_s=self._clock())
        # The feed's next events are behind its position: those that this page had already are known by their positions.
        if page.reached >= self.position:
            self._queues.behind.discard(served)
        self._wake(served)


def _may_read(served: ServedQueue) -> bool:
    return served.queue.room >= served.least_room and not served.is_leaving
