"""The list of running processes in Redis: each process writes its heartbeat there every few seconds.

A process that ends removes itself. One that dies stays on the list for a while without heartbeats, so that an alert on
it can fire.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from redis.asyncio import Redis

from streams import Clock, Stream, StreamError, SystemClock
from streams.clock import milliseconds, pause
from streams.connection import Outage, checked_client, redis_errors, translating
from streams.script import Script

_SCRIPT = Script("okane.redis", "presence.lua")
EVERY = timedelta(seconds=5)
FORGET = timedelta(minutes=15)  # a dead process stays on the list: alerts on it take minutes to fire
_PATIENCE_S = 1.0  # a process waits no longer for Redis at its end


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentProcess:
    """One process on the list: its metrics address, role and name, and the age of its heartbeat by the server's clock."""

    address: str
    role: str
    name: str
    silent_ms: int

    @property
    def alive(self) -> bool:
        """True if its heartbeat is recent."""
        return self.silent_ms < 3 * milliseconds(EVERY)


class Presence:
    """The running processes of one stream, one per address: the latest that wrote there."""

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
        self._key = presence_key(stream)
        self._forget = forget
        self._clock = clock or SystemClock()
        self._outage = Outage(client, "presence", clock=self._clock, roll=roll)

    @translating
    async def processes(self) -> tuple[PresentProcess, ...]:
        """Return the processes on the list, sorted by role, name and address."""
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(self._key)
            (seconds, microseconds), noted = await pipe.execute()
        now_ms = seconds * 1000 + microseconds // 1000
        found = [_process(address.decode(), note.decode(), now_ms) for address, note in noted.items()]
        return tuple(sorted(found, key=lambda one: (one.role, one.name, one.address)))

    async def announce(self, address: str, *, role: str, name: str) -> None:
        """Write one heartbeat."""
        with redis_errors():
            int(await _SCRIPT(self._client, (self._key,), (address, f"{role} {name}", milliseconds(self._forget))))

    async def leave(self, address: str) -> None:
        """Remove the process at this address from the list."""
        with redis_errors():
            await self._client.hdel(self._key, address)

    async def run(self, address: str, stop: asyncio.Event, *, role: str, name: str) -> None:
        """Write a heartbeat every few seconds until `stop`, then leave."""
        while not stop.is_set():
            try:
                await self.announce(address, role=role, name=name)
            except StreamError as error:
                await self._outage.wait(error, stop)
                continue
            self._outage.end()
            await pause(self._clock, EVERY, stop)
        with contextlib.suppress(StreamError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await self.leave(address)


def presence_key(stream: Stream) -> str:
    """Return the key of the hash of processes, by their addresses."""
    return stream.key("present")


def _process(address: str, note: str, now_ms: int) -> PresentProcess:
    seen_ms, role, name = note.split(" ", 2)
    return PresentProcess(address=address, role=role, name=name, silent_ms=max(0, now_ms - int(seen_ms)))
