"""Leases: takes over messages whose consumer went silent, keeps the lease of those that this consumer works on, and gives up
the lease of those that it will not finish.

Promise: the cursor of a scan is kept until it comes back to the start (else the tail of a long pending list would never
be claimed), no more is taken than there are free slots, the last delivery of a message is taken over by itself, and a
lease that another consumer took over is not stolen back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from itertools import islice

from redis.asyncio import Redis

from streams import scripts
from streams.clock import Clock, milliseconds, pause
from streams.connection import Outage
from streams.entry import to_message
from streams.errors import StreamError, StreamUnavailable
from streams.failpoints import failpoint
from streams.flights import Flight, Flights
from streams.inbox import Inbox
from streams.keys import Stream
from streams.message import Message
from streams.metrics import Metrics

log = logging.getLogger("streams")

_START = b"0-0"
_CHUNK = 100  # entries per scan step: some 4 ms of the server's time; ten thousand would block everybody for 0.4 s
_RENEWALS = 500  # ids per renewal
_LONG_IDLE = timedelta(days=365)  # longer than any lease

AFTER_CLAIM = failpoint("reclaim.after_claim", "taken over, its handler not started", raises=StreamUnavailable)


class Reclaimer:
    """Takes over what has been idle for longer than `min_idle`, one scan of all lanes every `every` (give or take).

    A message on its last delivery, the `max_deliveries`th, is not taken with the others: see `take_last`.
    """

    def __init__(
        self,
        client: Redis,
        stream: Stream,
        *,
        group: str,
        consumer: str,
        min_idle: timedelta,
        every: timedelta,
        max_deliveries: int,
        inbox: Inbox,
        clock: Clock,
        roll: Callable[[], float],
    ) -> None:
        self._client = client
        self._stream = stream
        self._group = group
        self._consumer = consumer
        self._inbox = inbox
        self._before_last = max_deliveries - 1
        self._lasts_left = 0
        self._min_idle_ms = milliseconds(min_idle)
        self._every_s = every.total_seconds()
        self._clock = clock
        self._roll = roll
        self._cursors: dict[str, bytes] = {}  # lanes whose scan is under way
        self._next_scan = clock.monotonic()

    @property
    def due_in(self) -> timedelta:
        """Until the next scan step; zero while a scan is under way."""
        if self._cursors:
            return timedelta(0)
        return timedelta(seconds=max(0.0, self._next_scan - self._clock.monotonic()))

    def hurry(self) -> None:
        """Make the next scan due now: there is something to take over."""
        self._next_scan = self._clock.monotonic()

    @property
    def lasts_left(self) -> bool:
        """Whether the last scan left messages on their last delivery."""
        return self._lasts_left > 0

    async def run_once(self, limit: int) -> list[Message]:
        """Scans all lanes (or goes on where the last scan stopped) until it has `limit` messages."""
        if not self._cursors:
            self._cursors = dict.fromkeys(self._stream.lane_names, _START)
            self._lasts_left = 0
            # Some jitter, so that a fleet started together does not scan together.
            self._next_scan = self._clock.monotonic() + self._every_s * (0.8 + 0.4 * self._roll())
        taken: list[Message] = []
        try:
            while self._cursors and len(taken) < limit:
                messages, full = await self._step(next(iter(self._cursors)), min(_CHUNK, limit - len(taken)))
                taken += messages
                if full:  # large ones: those that are here must not wait for the others with their leases running
                    break
        except StreamError:
            if not taken:
                raise
            # What was taken counts as delivered: hand it over now, the error will show again.
            log.debug("a scan for silent consumers stopped halfway", exc_info=True)
        return taken

    async def take_last(self) -> Message | None:
        """One message on its last delivery, from whichever lane has one. To be handled with nothing else in hand."""
        for lane in self._stream.lane_names:
            cursor = None
            while cursor != _START:
                messages, found = await self._claim(lane, cursor or _START, _CHUNK, last=True)
                cursor = found.cursor
                if messages:
                    return messages[0]
        self._lasts_left = 0
        return None

    async def _step(self, lane: str, count: int) -> tuple[list[Message], bool]:
        """The messages that were taken over, and whether there was no room for more."""
        messages, found = await self._claim(lane, self._cursors[lane], count, last=False)
        self._lasts_left += found.left
        if found.cursor == _START:
            del self._cursors[lane]
        else:
            self._cursors[lane] = found.cursor
        return messages, found.full

    async def _claim(
        self, lane: str, cursor: bytes, count: int, *, last: bool
    ) -> tuple[list[Message], scripts.Reclaimed]:
        window, sent_s = self._inbox.window, self._clock.monotonic()
        with self._inbox.receiving():
            found = await scripts.reclaim(
                self._client,
                self._stream.lane_key(lane),
                group=self._group,
                consumer=self._consumer,
                min_idle_ms=self._min_idle_ms,
                cursor=cursor,
                count=count,
                before_last=self._before_last,
                last=last,
                max_bytes=window.bytes,
            )
            if found.taken and AFTER_CLAIM.armed:
                await AFTER_CLAIM.hit()
        window.carried(found.size, self._clock.monotonic() - sent_s)
        messages = [to_message(entry_id, fields, lane=lane, deliveries=n) for entry_id, n, fields in found.taken]
        return messages, found


class Renewal:
    """Renews the leases of messages in flight, every quarter of a lease: a renewal may fail before one is lost."""

    def __init__(
        self,
        client: Redis,
        stream: Stream,
        *,
        group: str,
        consumer: str,
        lease: timedelta,
        flights: Flights,
        outage: Outage,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._client = client
        self._stream = stream
        self._group = group
        self._consumer = consumer
        self._every = lease / 4
        self._flights = flights
        self._outage = outage
        self._clock = clock
        self._metrics = metrics

    async def run(self, stop: asyncio.Event) -> None:
        """Renews until `stop`."""
        while not stop.is_set():
            await pause(self._clock, self._every, stop)
            try:
                await self.run_once()
            except StreamError as error:
                await self._outage.endure(error, stop)

    async def run_once(self) -> int:
        """Renews what has been in flight since the last round; how many leases were renewed."""
        before = self._clock.monotonic() - self._every.total_seconds()
        renewed = 0
        for part in _parts(self._flights.since(before)):
            renewed += await self._renew(part)
        return renewed

    async def _renew(self, part: Collection[Flight]) -> int:
        entries: dict[str, list[str]] = defaultdict(list)
        for flight in part:
            entries[flight.message.lane].append(flight.message.id)
        gone = await scripts.renew(
            self._client, self._stream, group=self._group, consumer=self._consumer, entries=entries
        )
        # One that was being acked meanwhile is gone because it is done.
        flights = [self._flights.get(lane, entry_id) for lane, entry_id in gone]
        lost = [flight.message for flight in flights if flight is not None and flight.outcome is None]
        if lost:
            log.warning("%d messages in flight were taken over by another consumer, first %s", len(lost), lost[0].id)
            self._metrics.lost(len(lost))
        self._metrics.renewed(len(part) - len(gone))
        return len(part) - len(gone)


async def hand_back(client: Redis, stream: Stream, flights: Collection[Flight], *, group: str, consumer: str) -> int:
    """Give up the leases of what was in hand and is not any more, so that others may take it over at once, and do not count
    its delivery: a consumer that is stopped says nothing against its messages. Return how many were handed back."""
    released = 0
    for part in _parts(list(flights)):
        entries: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for flight in part:
            entries[flight.message.lane].append((flight.message.id, flight.message.deliveries - 1))
        released += await scripts.release(
            client, stream, group=group, consumer=consumer, idle_ms=milliseconds(_LONG_IDLE), entries=entries
        )
    return released


def _parts(flights: list[Flight]) -> Iterator[list[Flight]]:
    rest = iter(flights)
    while part := list(islice(rest, _RENEWALS)):
        yield part
