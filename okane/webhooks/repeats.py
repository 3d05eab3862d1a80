"""The deliveries that a dispatcher makes again: rows that are due for a retry, and ranges of the log to recover."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence

from okane.store.webhook_events import EventRow, WebhookEventStore
from okane.store.webhook_queues import DueRows, Replay, WebhookQueueStore
from okane.webhooks.served_queue import ServedQueue, ServedQueues, delivery_of

QUEUES_AT_ONCE = 32  # of one read: after an outage thousands may have as many due rows as they take
MORE_AFTER_S = 0.1  # before the next read of a queue that had more due rows than room


class Repeats:
    """The reader of due rows and replays.

    `wake` is called with each queue that has something new to send, `moved` with each whose replay has come further without.
    """

    def __init__(
        self,
        *,
        store: WebhookQueueStore,
        events: WebhookEventStore,
        queues: ServedQueues,
        wake: Callable[[ServedQueue], None],
        moved: Callable[[ServedQueue], None],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._events = events
        self._queues = queues
        self._wake = wake
        self._moved = moved
        self._clock = clock

    async def read_due(self) -> bool:
        """Take due rows of the queues that wait for longest; return True if others have some. Raises StoreUnavailable."""
        now_s = self._clock()
        waiting = self._queues.waiting
        due = [one for one in waiting if one.due_at_s <= now_s and one.queue.retry_room > 0 and not one.is_leaving]
        if not due:
            return False
        are_more = len(due) > QUEUES_AT_ONCE
        due = heapq.nsmallest(QUEUES_AT_ONCE, due, key=lambda one: one.due_at_s)
        for served in due:
            served.due_at_s = math.inf
            waiting.discard(served)
            served.queue.before_reading(now_s)
        rooms = {served.endpoint.id: served.queue.retry_room for served in due}
        try:
            found = await self._store.due(rooms)
            events = await self._rows(sorted({row.position for row in found.rows}))
        except BaseException:
            for served in due:
                self._queues.set_due(served, now_s)
            raise
        for served in due:
            self._offer_due(served, found, events, rooms[served.endpoint.id])
        return are_more

    def _offer_due(self, served: ServedQueue, found: DueRows, events: dict[int, EventRow], room: int) -> None:
        now_s = self._clock()
        mine = [row for row in found.rows if row.endpoint_id == served.endpoint.id]
        served.queue.offer_retries(
            (delivery_of(events[row.position], row.attempts) for row in mine if row.position in events), now_s=now_s
        )
        next_s = MORE_AFTER_S if len(mine) == room else found.next_s.get(served.endpoint.id, math.inf)
        if served.queue.has_due_rows:  # by a result that came while they were read
            next_s = 0.0
        self._queues.set_due(served, now_s + next_s)
        if mine:
            self._wake(served)

    async def _rows(self, positions: Sequence[int]) -> dict[int, EventRow]:
        return {row.event.position: row for row in await self._events.get_many(positions)} if positions else {}

    async def read_replays(self) -> int:
        """Begin, continue and end replays; return the number of events taken. Raises StoreUnavailable."""
        if self._queues.unread_replays:
            await self._begin(list(self._queues.unread_replays))
        return sum([await self._continue(served) for served in [*self._queues.replaying] if not served.is_leaving])

    async def _begin(self, new: Sequence[ServedQueue]) -> None:
        """Take the first replay of each queue. One that began anew in Postgres does so here."""
        self._queues.unread_replays.difference_update(new)
        try:
            found = {one.endpoint_id: one for one in await self._store.replays(one.endpoint.id for one in new)}
        except BaseException:
            self._queues.unread_replays.update(new)
            raise
        for served in new:
            replay = found.get(served.endpoint.id)
            if replay is None:
                served.queue.end_replay()
                self._queues.replaying.discard(served)
            else:
                self._queues.replaying.add(served)
                if replay != served.replay:
                    served.queue.begin_replay(replay.next - 1)
            served.replay = replay

    async def _continue(self, served: ServedQueue) -> int:
        replay, queue = served.replay, served.queue
        assert replay is not None
        if replay.next > replay.to_position:
            await self._store.end_replay(replay, epoch=served.epoch)
            queue.end_replay()
            served.replay = None
            self._queues.replaying.discard(served)
            self._queues.unread_replays.add(served)  # the next one, or this one if it began anew
            return 0
        if queue.replay_room < served.least_room or queue.replay_read_to >= replay.to_position:
            return 0
        return await self._read(served, replay)

    async def _read(self, served: ServedQueue, replay: Replay) -> int:
        """Read a page. What is behind the queue's own place is delivered from there."""
        queue = served.queue
        up_to = min(replay.to_position, queue.read_to)
        after = queue.replay_read_to
        if after >= up_to:
            queue.offer_replays((), read_to=replay.to_position, now_s=self._clock())
            self._moved(served)
            return 0
        page = await self._store.replay_page(
            replay, served.endpoint, after=after, up_to=up_to, types=sorted(served.types), limit=queue.replay_room
        )
        events = await self._rows(page.positions)
        rows = [row for row in events.values() if served.receives(row)]
        queue.offer_replays(map(delivery_of, rows), read_to=page.reached, now_s=self._clock())
        self._wake(served)
        self._moved(served)  # also if all of them are in work already, so that no answer moves it
        return len(rows)
