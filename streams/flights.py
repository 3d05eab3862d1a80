"""The messages a consumer has in hand: a task each, bounded in number, landed when settled.

Promise: no message is in hand twice, and a task that ends without settling leaves its message pending and says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from streams.clock import Clock
from streams.message import Message
from streams.metrics import Metrics

log = logging.getLogger("streams")

_Key = tuple[str, str]  # lane, entry id


@dataclass(slots=True, eq=False)
class Flight:
    """One message in hand. `settling` once its handler has answered, `settled` when the server knows."""

    message: Message
    since: float
    task: asyncio.Task[None] | None = None
    settling: bool = False
    settled: bool = False


class Flights:
    """All messages in hand. `process` is the whole story of one."""

    def __init__(
        self, *, capacity: int, process: Callable[[Flight], Awaitable[None]], clock: Clock, metrics: Metrics
    ) -> None:
        self._capacity = capacity
        # Refilled in chunks: one by one, every settled message would cost a read of its own.
        self._chunk = max(1, capacity // 4)
        self._process = process
        self._clock = clock
        self._metrics = metrics
        self._flights: dict[_Key, Flight] = {}
        self._held: Counter[str] = Counter()
        self._room = asyncio.Event()
        self._abandoning = False

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def held(self) -> Mapping[str, int]:
        """How many are in hand, by lane."""
        return self._held

    @property
    def free(self) -> int:
        return max(0, self._capacity - len(self._flights))

    @property
    def roomy(self) -> bool:
        """Whether a read is worth its round trip: a quarter of the slots is free, or all."""
        return not self._flights or self.free >= self._chunk

    def get(self, key: _Key) -> Flight | None:
        return self._flights.get(key)

    def since(self, before: float) -> list[Flight]:
        """Those in hand since `before` (monotonic) or longer."""
        return [flight for flight in self._flights.values() if flight.since <= before]

    def launch(self, messages: Sequence[Message]) -> list[Flight]:
        """Starts a task for each message that is not in hand already.

        One that is comes again when its group was created anew, or when renewals failed for so long that we reclaimed
        it from ourselves: in both cases it is ours again, and a second handler must not start.
        """
        now = self._clock.monotonic()
        launched = []
        for message in messages:
            key = (message.lane, message.id)
            if key in self._flights:
                continue
            self._flights[key] = flight = Flight(message, now)
            self._held[message.lane] += 1
            flight.task = asyncio.ensure_future(self._process(flight))
            flight.task.add_done_callback(partial(self._landed, key))
            launched.append(flight)
        if launched:
            self._metrics.in_flight(len(self._flights))
        return launched

    async def room(self) -> None:
        """Returns when `roomy`, or at the next `wake`."""
        self._room.clear()
        if not self.roomy:
            await self._room.wait()

    def wake(self) -> None:
        self._room.set()

    async def drain(self, limit: timedelta, *, until: asyncio.Event | None = None) -> None:
        """Waits for all to land, for `limit` at most and no longer than `until` is set."""
        if not self._flights:
            return
        waits = [finished(self._flights.values()), self._clock.sleep(limit)]
        if until is not None:
            waits.append(_set(until))
        racers = [asyncio.ensure_future(each) for each in waits]
        try:
            await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for racer in racers:
                racer.cancel()
            await asyncio.gather(*racers, return_exceptions=True)

    async def abandon(self) -> None:
        """Cancels what is in hand. Nothing is settled by that: the messages stay pending and are delivered again."""
        if not self._flights:
            return
        log.warning("%d messages in hand were not finished in time: they will be delivered again", len(self._flights))
        self._abandoning = True
        try:
            for task in _tasks(self._flights.values()):
                task.cancel()
            await finished(self._flights.values())
        finally:
            self._abandoning = False

    def _landed(self, key: _Key, task: asyncio.Task[None]) -> None:
        del self._flights[key]
        self._held[key[0]] -= 1
        self._metrics.in_flight(len(self._flights))
        if self.roomy:
            self._room.set()
        if task.cancelled():
            if not self._abandoning:
                log.error("message %s of lane %s stays pending: its handler was cancelled", key[1], key[0])
        elif (error := task.exception()) is not None:
            log.error("message %s of lane %s stays pending: %s", key[1], key[0], error, exc_info=error)


async def finished(flights: Collection[Flight]) -> None:
    """Returns when the tasks of `flights` have ended, however they did."""
    if tasks := _tasks(flights):
        await asyncio.wait(tasks)


async def _set(event: asyncio.Event) -> None:
    await event.wait()


def _tasks(flights: Collection[Flight]) -> list[asyncio.Task[None]]:
    return [flight.task for flight in flights if flight.task is not None]
