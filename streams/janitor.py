"""Removes the consumers of processes that are gone: idle for long, without pending entries.

A consumer with pending entries stays, because its removal would lose them; it goes when they have been reclaimed.
"""

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
from streams.group import Group
from streams.keys import Stream

log = logging.getLogger("streams")


class Janitor:
    """Tidies one group. Any number may run: the next read of a live consumer removed by mistake creates it again."""

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
        self._group = Group(checked_client(client), stream, group)
        self._idle = idle
        self._every = every
        self._clock = clock or SystemClock()
        self._outage = Outage(client, "janitor", clock=self._clock, roll=roll)

    async def run_once(self) -> int:
        """Remove idle consumers; return how many (a consumer counts once for every lane)."""
        removed = await scripts.remove_idle_consumers(self._group, min_idle_ms=milliseconds(self._idle))
        if removed:
            log.info("removed %d idle consumers of group %s", removed, self._group.name)
        return removed

    async def run(self, stop: asyncio.Event) -> None:
        """Run at intervals until `stop`."""
        while not stop.is_set():
            try:
                await self.run_once()
            except StreamError as error:
                await self._outage.wait(error, stop)
                continue
            self._outage.end()
            await pause(self._clock, self._every, stop)
