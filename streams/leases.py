"""Renews the leases of the messages in hand (the consumer's heartbeat), and releases those of unfinished messages at the end.

Guarantee: a lease that another consumer took over is not stolen back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Iterator
from datetime import timedelta
from itertools import islice

from streams import scripts
from streams.clock import Clock, milliseconds, pause
from streams.connection import Outage
from streams.errors import StreamError
from streams.flights import Flight, Flights
from streams.group import Group
from streams.metrics import Metrics

log = logging.getLogger("streams")

_BATCH = 500  # ids per script call
_LONG_IDLE = timedelta(days=365)  # longer than any lease


class Heartbeat:
    """Renews the leases of messages in flight every quarter of a lease, so that one renewal may fail."""

    def __init__(
        self,
        group: Group,
        *,
        lease: timedelta,
        flights: Flights,
        outage: Outage,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._group = group
        self._every = lease / 4
        self._flights = flights
        self._outage = outage
        self._clock = clock
        self._metrics = metrics

    async def run(self, stop: asyncio.Event) -> None:
        """Renew leases until `stop`."""
        while not stop.is_set():
            await pause(self._clock, self._every, stop)
            try:
                await self.run_once()
            except StreamError as error:
                await self._outage.wait(error, stop)

    async def run_once(self) -> int:
        """Renew the leases of what has been in flight since the last round; return how many."""
        before = self._clock.monotonic() - self._every.total_seconds()
        renewed = 0
        for part in _parts(self._flights.in_hand_since(before)):
            renewed += await self._renew(part)
        return renewed

    async def _renew(self, part: Collection[Flight]) -> int:
        entries: dict[str, list[str]] = defaultdict(list)
        for flight in part:
            entries[flight.message.lane].append(flight.message.id)
        gone = await scripts.renew(self._group, entries)
        # An entry that was acked meanwhile is gone because its message is done.
        flights = [self._flights.get(lane, entry_id) for lane, entry_id in gone]
        lost = [flight.message for flight in flights if flight is not None and flight.outcome is None]
        if lost:
            log.warning("%d messages in flight were taken over by another consumer, first %s", len(lost), lost[0].id)
            self._metrics.lost(len(lost))
        self._metrics.renewed(len(part) - len(gone))
        return len(part) - len(gone)


async def release_leases(group: Group, flights: Collection[Flight]) -> int:
    """Release messages that were in hand: other consumers may take them over at once, and the delivery does not count, as
    the end of a consumer is no fault of its messages. Return how many were still this consumer's."""
    released = 0
    for part in _parts(list(flights)):
        entries: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for flight in part:
            entries[flight.message.lane].append((flight.message.id, flight.message.deliveries - 1))
        released += await scripts.release(group, idle_ms=milliseconds(_LONG_IDLE), entries=entries)
    return released


def _parts(flights: list[Flight]) -> Iterator[list[Flight]]:
    rest = iter(flights)
    while part := list(islice(rest, _BATCH)):
        yield part
