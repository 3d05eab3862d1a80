"""Renews the leases of the messages in hand (the consumer's heartbeat), and gives up those of unfinished ones at the end.

Guarantee: a lease that another consumer took over is not stolen back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Iterator
from datetime import timedelta
from itertools import islice

from redis.asyncio import Redis

from streams import scripts
from streams.clock import Clock, milliseconds, pause
from streams.connection import Outage
from streams.errors import StreamError
from streams.flights import Flight, Flights
from streams.keys import Stream
from streams.metrics import Metrics

log = logging.getLogger("streams")

_BATCH = 500  # ids per script call
_LONG_IDLE = timedelta(days=365)  # longer than any lease


class LeaseRenewal:
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
        for part in _parts(self._flights.in_hand_since(before)):
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


async def release_leases(
    client: Redis, stream: Stream, flights: Collection[Flight], *, group: str, consumer: str
) -> int:
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
    while part := list(islice(rest, _BATCH)):
        yield part
