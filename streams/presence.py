"""Who is at work on a stream, and where: each process says so every few seconds, for those who watch it.

Promise: one that ends says so and is gone from the list; one that dies stays on it for a while, silent, so that whoever
watches sees that it is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from redis.asyncio import Redis

from streams import scripts
from streams.arguments import checked_client
from streams.clock import Clock, SystemClock, milliseconds, pause
from streams.connection import Outage, redis_errors, translating
from streams.errors import StreamError
from streams.keys import Stream

EVERY = timedelta(seconds=5)
FORGET = timedelta(minutes=15)  # how long one that died stays on the list: alerts on it need minutes to ring
_PATIENCE_S = 1.0  # nobody waits longer with ending, only to say so


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """One process: where it can be asked, what it is, and for how long it has said nothing (by the server's clock)."""

    address: str
    role: str
    name: str
    silent_ms: int

    @property
    def alive(self) -> bool:
        """Whether it has spoken lately."""
        return self.silent_ms < 3 * milliseconds(EVERY)


class Presence:
    """The list of processes of one stream. An address has one: the last that spoke from there."""

    def __init__(
        self,
        client: Redis,
        stream: Stream,
        *,
        forget: timedelta = FORGET,
        clock: Clock | None = None,
        roll: Callable[[], float] = random.random,
    ) -> None:
        self._client = checked_client(client)
        self._key = stream.present_key
        self._forget = forget
        self._clock = clock or SystemClock()
        self._outage = Outage(client, "presence", clock=self._clock, roll=roll)

    @translating
    async def processes(self) -> tuple[Present, ...]:
        """All on the list, by role, name and address."""
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(self._key)
            (seconds, microseconds), noted = await pipe.execute()
        now_ms = seconds * 1000 + microseconds // 1000
        found = [_present(address.decode(), note.decode(), now_ms) for address, note in noted.items()]
        return tuple(sorted(found, key=lambda one: (one.role, one.name, one.address)))

    async def announce(self, address: str, *, role: str, name: str) -> None:
        """Say once that this process is there."""
        await scripts.present(self._client, self._key, address=address, note=f"{role} {name}", forget=self._forget)

    async def leave(self, address: str) -> None:
        """Take it off the list."""
        with redis_errors():
            await self._client.hdel(self._key, address)

    async def run(self, address: str, stop: asyncio.Event, *, role: str, name: str) -> None:
        """Say so every few seconds until `stop`, then leave."""
        while not stop.is_set():
            try:
                await self.announce(address, role=role, name=name)
            except StreamError as error:
                await self._outage.endure(error, stop)
                continue
            self._outage.over()
            await pause(self._clock, EVERY, stop)
        with contextlib.suppress(StreamError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await self.leave(address)


def _present(address: str, note: str, now_ms: int) -> Present:
    seen_ms, role, name = note.split(" ", 2)
    return Present(address=address, role=role, name=name, silent_ms=max(0, now_ms - int(seen_ms)))
