"""Settles messages: what is done leaves its lane, what is tried again goes to the delayed set, the rest to the dead.

Promise: each in one step with the removal of its entry, and many messages per round trip.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, assert_never

from redis.asyncio import Redis

from streams import scripts
from streams.batcher import Batcher
from streams.clock import milliseconds
from streams.connection import Outage
from streams.entry import to_dead_fields, to_fields
from streams.errors import StreamError, StreamUnavailable
from streams.failpoints import failpoint
from streams.flights import Flight, Flights
from streams.keys import Stream
from streams.metrics import Metrics
from streams.outcome import Dead, Done, Outcome, Retry

log = logging.getLogger("streams")

_MAX_BATCH: Final = 512  # messages per round trip
# Messages per call, as the server does nothing else meanwhile: 0.8 ms of its time with a million entries, 1.4 at worst.
_MAX_CALL: Final = 128

BEFORE_ACK = failpoint("settle.before_ack", "outcomes known, Redis not told", raises=StreamUnavailable)
AFTER_ACK = failpoint("settle.after_ack", "entries acknowledged, the reply not heard", raises=StreamUnavailable)


class Settler:
    """Settles for one consumer, and lands what is settled. While the server is away it keeps trying; the entries are
    pending meanwhile, so that giving up loses nothing: they are delivered again."""

    def __init__(
        self, client: Redis, stream: Stream, *, group: str, flights: Flights, outage: Outage, metrics: Metrics
    ) -> None:
        self._client = client
        self._stream = stream
        self._group = group
        self._flights = flights
        self._outage = outage
        self._metrics = metrics
        self._giving_up = asyncio.Event()
        self._batcher: Batcher[Flight] = Batcher(self._flush, max_batch=_MAX_BATCH)

    def settle(self, flight: Flight, outcome: Outcome) -> None:
        """Settles the message; a `Retry` must say when. It lands when that is done, or has turned out to be impossible."""
        flight.outcome = outcome
        self._batcher.add(flight)

    async def give_up(self) -> None:
        """Ends the trying: what the server does not take at once stays pending. Returns when nothing is under way."""
        self._giving_up.set()
        try:
            await self._batcher.idle()
        finally:
            self._giving_up.clear()

    async def _flush(self, batch: Sequence[Flight]) -> None:
        parts = [batch[at : at + _MAX_CALL] for at in range(0, len(batch), _MAX_CALL)]
        try:
            while parts:
                parts = await self._persist(parts)
        except (Exception, asyncio.CancelledError) as error:  # a bug, or we are cancelled
            self._flights.land([flight for flight in batch if not flight.landed], error)
            if not isinstance(error, Exception):
                raise

    async def _persist(self, parts: Sequence[Sequence[Flight]]) -> list[Sequence[Flight]]:
        """Lands what the server has taken, and what it will never take; the rest, after a pause."""
        rest: list[Sequence[Flight]] = []
        away: StreamUnavailable | None = None
        for part, error in zip(parts, await self._send(parts), strict=True):
            if error is None:
                self._count(part)
                self._flights.land(part)
            elif isinstance(error, StreamUnavailable) and not self._giving_up.is_set():
                away = error
                rest.append(part)
            else:
                self._flights.land(part, error)
        if away is not None:
            await self._outage.endure(away, self._giving_up)
        return rest

    async def _send(self, parts: Sequence[Sequence[Flight]]) -> list[StreamError | None]:
        settlements = [_settlement(part, self._group) for part in parts]
        try:
            if BEFORE_ACK.armed:
                await BEFORE_ACK.hit()
            sent_s = time.perf_counter()
            found = await scripts.settle(self._client, self._stream, group=self._group, settlements=settlements)
            self._metrics.round_trip("settle", time.perf_counter() - sent_s)
            if AFTER_ACK.armed:
                await AFTER_ACK.hit()
        except StreamError as error:
            return [error] * len(parts)
        return [each if isinstance(each, StreamError) else None for each in found]

    def _count(self, part: Sequence[Flight]) -> None:
        self._metrics.batch("settle", len(part))
        # What came back for another group is passed over: it is no outcome of ours.
        own = [flight for flight in part if flight.message.group in (None, self._group)]
        counts = Counter([(flight.message.lane, type(flight.outcome)) for flight in own])
        for (lane, outcome), count in counts.items():
            self._metrics.settled(lane, outcome.__name__.lower(), count)


def _settlement(part: Sequence[Flight], group: str) -> scripts.Settlement:
    settlement = scripts.Settlement()
    for flight in part:
        message = flight.message
        settlement.entries[message.lane].append(message.id)
        match flight.outcome:
            case Done():
                pass
            case Retry(after=after):
                assert after is not None, "resolved before it is settled"
                fields = to_fields(message.body, message.headers, attempt=message.attempt + 1, group=group)
                settlement.retries.append((milliseconds(after), message.id, message.lane, fields))
            case Dead(reason=reason):
                settlement.dead.append(to_dead_fields(message, reason, group=group))
            case None:
                raise AssertionError("it has no outcome")
            case outcome:
                assert_never(outcome)
    return settlement
