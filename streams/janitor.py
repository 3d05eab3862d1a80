"""Removes consumers that are gone: silent for long and holding nothing. One that still holds messages is left alone,
because removing it would throw them away; it becomes removable when they have been reclaimed."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import timedelta

from redis.asyncio import Redis

from streams import scripts
from streams.clock import Clock, SystemClock, milliseconds, pause
from streams.connection import Outage, checked_client
from streams.errors import StreamError
from streams.keys import Stream

log = logging.getLogger("streams")


class Janitor:
    """Tidies one group. Any number may run; a live consumer removed by mistake is created again by its next read."""

    def __init__(
        self,
        client: Redis,
        stream: Stream,
        *,
        group: str,
        idle: timedelta = timedelta(minutes=10),
        every: timedelta = timedelta(minutes=1),
        clock: Clock | None = None,
        roll: Callable[[], float] = random.random,
    ) -> None:
        self._client = checked_client(client)
        self._stream = stream
        self._group = group
        self._idle = idle
        self._every = every
        self._clock = clock or SystemClock()
        self._outage = Outage(client, "janitor", clock=self._clock, roll=roll)

    async def run_once(self) -> int:
        """Removes them; how many (a consumer counts once for every lane)."""
        removed = await scripts.remove_idle_consumers(
            self._client, self._stream, group=self._group, min_idle_ms=milliseconds(self._idle)
        )
        if removed:
            log.info("removed %d idle consumers of group %s", removed, self._group)
        return removed

    async def run(self, stop: asyncio.Event) -> None:
        """Tidies every now and then until `stop`."""
        while not stop.is_set():
            try:
                await self.run_once()
            except StreamError as error:
                await self._outage.endure(error, stop)
                continue
            self._outage.over()
            await pause(self._clock, self._every, stop)
