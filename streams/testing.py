"""Helpers for tests of code that uses `streams`: a clock, dice, and a queue in memory that runs a handler.

Guarantee: the code that decides outcomes is the same as in production; only Redis is missing.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count, cycle
from typing import assert_never

from streams.draft import Draft, Packed, Packer
from streams.entry import to_message
from streams.errors import StreamFull, StreamUnavailable
from streams.handling import Handler, call_handler, check_handler, resolve
from streams.keys import Stream
from streams.lanes import Rotation
from streams.message import Message
from streams.metrics import Metrics
from streams.outcome import Dead, Done, Retry
from streams.retry import RetryPolicy


class FakeClock:
    """A `Clock` that stands still until `advance`."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._passed = timedelta(0)
        self._order = count()
        self._fell_asleep = asyncio.Event()
        self._sleepers: list[tuple[timedelta, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self._start + self._passed

    def monotonic(self) -> float:
        return self._passed.total_seconds()

    async def sleep(self, delay: timedelta) -> None:
        if delay <= timedelta(0):
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._passed + delay, next(self._order), woken))
        self._fell_asleep.set()
        await woken

    @property
    def sleepers(self) -> int:
        """The number of tasks asleep."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def until_asleep(self, sleepers: int = 1) -> None:
        """Return when that many tasks are asleep: the loops under test are at rest, and time may advance."""
        while self.sleepers < sleepers:
            self._fell_asleep.clear()
            await self._fell_asleep.wait()

    async def advance(self, by: timedelta) -> None:
        """Let time pass. Wake sleepers in order, and let each act before the next."""
        until = self._passed + by
        while self._sleepers and self._sleepers[0][0] <= until:
            self._passed, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
                await _let_others_run()
        self._passed = until
        await _let_others_run()


class Dice:
    """Dice that return the given rolls, over and over: with `Dice(0.5)` jitter is always half."""

    def __init__(self, *rolls: float) -> None:
        self._rolls = cycle(rolls or (0.5,))

    def __call__(self) -> float:
        return next(self._rolls)


@dataclass(frozen=True, slots=True)
class Buried:
    """A message the queue gave up, and the reason."""

    message: Message
    reason: str


class MemoryQueue:
    """A producer and a consumer of one stream in memory, for tests of handlers.

    It publishes like a `Producer`, and runs a handler like a `Consumer` and a `Delayed`, by the given clock. Set `down`
    to make `publish` raise `StreamUnavailable`. Results are in `done`, `dead` and `published`.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        policy: RetryPolicy | None = None,
        clock: FakeClock | None = None,
        dice: Dice | None = None,
        max_length: int | None = None,
    ) -> None:
        self.clock = clock or FakeClock()
        self.down = False
        self.published: list[Message] = []
        self.done: list[Message] = []
        self.dead: list[Buried] = []
        self._policy = policy or RetryPolicy()
        self._dice = dice or Dice()
        self._max_length = max_length
        self._packer = Packer(stream)
        self._lanes: dict[str, deque[Message]] = {lane.name: deque() for lane in stream.lanes}
        self._rotation = Rotation([lane.weight for lane in stream.lanes])
        self._delayed: list[tuple[datetime, int, Message]] = []
        self._order = count(1)

    @property
    def depth(self) -> int:
        """The number of messages that wait to be handled."""
        return sum(map(len, self._lanes.values()))

    @property
    def delayed(self) -> int:
        """The number of messages that wait for a retry."""
        return len(self._delayed)

    @property
    def next_due(self) -> datetime | None:
        return self._delayed[0][0] if self._delayed else None

    async def publish(self, body: bytes, *, lane: str | None = None, headers: Mapping[str, str] | None = None) -> str:
        """Add a message and return its id. Raises the errors of a `Producer`."""
        entry_id = self._add(self._packer.pack(body, lane, headers))
        if entry_id is None:
            raise StreamFull("message refused: its lane is full")
        return entry_id

    async def publish_many(self, drafts: Sequence[Draft]) -> list[str]:
        packed = [self._packer.pack(draft.body, draft.lane, draft.headers) for draft in drafts]
        ids = [self._add(one) for one in packed]
        published = [entry_id for entry_id in ids if entry_id is not None]
        if len(published) < len(ids):
            raise StreamFull(f"{len(ids) - len(published)} of {len(ids)} messages refused: lane full", published=ids)
        return published

    async def run_once(self, handler: Handler, *, concurrency: int = 64) -> int:
        """Promote what is due, then run `handler` on up to `concurrency` messages at once; return how many."""
        check_handler(handler, "handler")
        self._promote()
        batch = self._take(concurrency)
        await asyncio.gather(*(self._process(handler, message) for message in batch))
        return len(batch)

    async def run_until_settled(self, handler: Handler, *, rounds: int = 1_000) -> int:
        """Handle everything, advancing the clock to each retry; return the number of deliveries."""
        deliveries = 0
        for _ in range(rounds):
            if not self.depth and self.next_due is not None:
                await self.clock.advance(max(self.next_due - self.clock.now(), timedelta(0)))
            handled = await self.run_once(handler)
            deliveries += handled
            if not handled and self.next_due is None:
                return deliveries
        raise AssertionError(f"not settled after {rounds} rounds: a handler that never finishes?")

    def _add(self, packed: Packed) -> str | None:
        """Return the id of the new entry, or None if its lane is full."""
        if self.down:
            raise StreamUnavailable("the queue was set down")
        lane, fields = packed
        if self._max_length is not None and len(self._lanes[lane]) >= self._max_length:
            return None
        written = [part if isinstance(part, bytes) else str(part).encode() for part in fields]
        message = to_message(self._new_id().encode(), written, lane=lane)
        self.published.append(message)
        self._lanes[lane].append(message)
        return message.id

    def _take(self, limit: int) -> list[Message]:
        lanes = list(self._lanes.values())
        batch = [
            lane.popleft()
            for lane, share in zip(lanes, self._rotation.shares(limit), strict=True)
            for _ in range(min(share, len(lane)))
        ]
        for lane in lanes:
            while lane and len(batch) < limit:
                batch.append(lane.popleft())
        return batch

    async def _process(self, handler: Handler, message: Message) -> None:
        outcome = await call_handler(handler, message, metrics=Metrics())
        match resolve(outcome, attempt=message.attempt, policy=self._policy, roll=self._dice()):
            case Done():
                self.done.append(message)
            case Retry(after=after):
                assert after is not None, "resolve fills it in"
                again = replace(message, attempt=message.attempt + 1)
                heapq.heappush(self._delayed, (self.clock.now() + after, next(self._order), again))
            case Dead(reason=reason):
                self.dead.append(Buried(message, reason))
            case outcome:
                assert_never(outcome)

    def _promote(self) -> None:
        while self._delayed and self._delayed[0][0] <= self.clock.now():
            _, _, message = heapq.heappop(self._delayed)
            self._lanes[message.lane].append(replace(message, id=self._new_id()))

    def _new_id(self) -> str:
        return f"{self.clock.now().timestamp() * 1000:.0f}-{next(self._order)}"


async def _let_others_run() -> None:
    # Several turns of the loop: a woken task starts others, whose callbacks run a turn later.
    for _ in range(5):
        await asyncio.sleep(0)
