"""Delayed retries: the loop that moves messages back into their lanes when they are due, by the server's clock.

Guarantee: a message is in the delayed set or in its lane, never in neither, since one script moves it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from redis.asyncio import Redis

from streams import scripts
from streams.clock import Clock, SystemClock, milliseconds, pause
from streams.connection import Outage, checked_client, redis_errors
from streams.errors import StreamError, StreamUnavailable
from streams.failpoints import failpoint
from streams.keys import Stream
from streams.metrics import Metrics, guarded

_SHORTEST_PAUSE = timedelta(milliseconds=10)

BEFORE_PROMOTE = failpoint("promote.before", "due messages not moved yet", raises=StreamUnavailable)
AFTER_PROMOTE = failpoint("promote.after", "due messages moved, the reply lost", raises=StreamUnavailable)


class Delayed:
    """The delayed messages of one stream. Any number of processes may run it at once.

    `limit` bounds one step; `poll` bounds the lateness of a message that another process has just delayed.
    """

    def __init__(
        self,
        client: Redis,
        stream: Stream,
        *,
        limit: int = 100,
        poll: timedelta = timedelta(milliseconds=250),
        clock: Clock | None = None,
        roll: Callable[[], float] = random.random,
        metrics: Metrics | None = None,
    ) -> None:
        self._client = checked_client(client)
        self._stream = stream
        self._limit = limit
        self._poll = poll
        self._clock = clock or SystemClock()
        self._metrics = guarded(metrics)
        self._outage = Outage(client, "delayed messages", clock=self._clock, roll=roll)
        self._next_in = poll

    @property
    def unable_for(self) -> timedelta:
        """The time since which it cannot move what is due; zero while it can."""
        return self._outage.duration

    async def run_once(self) -> int:
        """Move what is due, up to `limit`; return how many. Raises `StreamError` when the server cannot be used."""
        if BEFORE_PROMOTE.armed:
            await BEFORE_PROMOTE.hit()
        moved, next_ms, now_ms = await scripts.promote(self._client, self._stream, limit=self._limit)
        if moved and AFTER_PROMOTE.armed:
            await AFTER_PROMOTE.hit()
        poll_ms = milliseconds(self._poll)
        until_next_ms = poll_ms if next_ms is None else min(next_ms - now_ms, poll_ms)
        self._next_in = max(timedelta(milliseconds=until_next_ms), _SHORTEST_PAUSE)
        if moved:
            self._metrics.promoted(moved)
        return moved

    async def run(self, stop: asyncio.Event) -> None:
        """Move what is due until `stop`."""
        while not stop.is_set():
            try:
                moved = await self.run_once()
            except StreamError as error:
                await self._outage.wait(error, stop)
                continue
            self._outage.end()
            if moved < self._limit:
                await pause(self._clock, self._next_in, stop)

    async def count(self) -> int:
        """Return how many messages wait."""
        with redis_errors():
            return int(await self._client.zcard(self._stream.delayed_key))

    async def next_due(self) -> datetime | None:
        """Return the due time of the first message by the server's clock, None if none waits."""
        with redis_errors():
            head = await self._client.zrange(self._stream.delayed_key, 0, 0, withscores=True)
        return datetime.fromtimestamp(float(head[0][1]) / 1000, UTC) if head else None
