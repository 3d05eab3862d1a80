"""`capacity`: a consumer reads and takes over no more messages than it says, and goes on with those in hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from redis.asyncio import Redis

from streams import Done, Draft, Inspector, Message, Outcome, Producer, Stream
from tests.streams.conftest import until
from tests.streams.running import GROUP, Running, consumer, done, read_and_die


def holds(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    """Return the condition for `until`."""

    async def check() -> bool:
        return condition()

    return check


class Capacity:
    """A capacity that a test changes; it counts how often it was looked at."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.looks = 0

    def __call__(self) -> int:
        self.looks += 1
        return self.places

    async def wait_for_looks(self, more: int = 3) -> None:
        """Wait until the consumer has looked at it a few times more."""
        wanted = self.looks + more
        await until(holds(lambda: self.looks >= wanted))


class Held:
    """A handler whose messages stay in hand until they are let go."""

    def __init__(self) -> None:
        self.running = self.most = self.ended = 0
        self.let_go = asyncio.Event()

    async def __call__(self, message: Message) -> Outcome:
        self.running += 1
        self.most = max(self.most, self.running)
        await self.let_go.wait()
        self.running -= 1
        self.ended += 1
        return Done()


async def publish(client: Redis, stream: Stream, count: int) -> None:
    await Producer(client, stream).publish_many([Draft(str(number).encode()) for number in range(count)])


async def test_a_consumer_without_capacity_reads_nothing_and_is_not_unable(client: Redis, stream: Stream) -> None:
    capacity = Capacity(0)
    await publish(client, stream, 3)
    async with Running(consumer(client, stream, done, capacity=capacity)) as running:
        await capacity.wait_for_looks()
        assert running.consumer.in_flight == 0
        assert running.consumer.unable_for == timedelta(0)
        stats = await Inspector(client, stream, group=GROUP).stats()
        assert sum(lane.pending for lane in stats.lanes) == 0
        capacity.places = 64
        await until(lambda: _is_empty(client, stream))


async def test_no_more_messages_are_in_hand_than_it_says(client: Redis, stream: Stream) -> None:
    held, capacity = Held(), Capacity(2)
    await publish(client, stream, 20)
    async with Running(consumer(client, stream, held, capacity=capacity)):
        await until(holds(lambda: held.running == 2))
        await capacity.wait_for_looks()
        assert held.running == 2
        held.let_go.set()
        await until(holds(lambda: held.ended == 20))
    assert held.most == 2


async def test_messages_in_hand_are_acked_while_nothing_is_read(client: Redis, stream: Stream) -> None:
    held, capacity = Held(), Capacity(5)
    await publish(client, stream, 8)
    async with Running(consumer(client, stream, held, capacity=capacity)) as running:
        await until(holds(lambda: held.running == 5))
        capacity.places = 0
        held.let_go.set()
        await until(holds(lambda: running.consumer.in_flight == 0))
        await capacity.wait_for_looks()
        assert held.ended == 5
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert sum(lane.length for lane in stats.lanes) == 3


async def test_nothing_is_taken_over_without_capacity(client: Redis, stream: Stream) -> None:
    capacity = Capacity(0)
    await publish(client, stream, 2)
    await read_and_die(client, stream)
    one = consumer(client, stream, done, capacity=capacity, lease=timedelta(milliseconds=20))
    await asyncio.sleep(0.05)  # the dead consumer's lease
    assert await one.run_once() == 0
    async with Running(one):
        await capacity.wait_for_looks()
        assert one.in_flight == 0
        capacity.places = 1
        await until(lambda: _is_empty(client, stream))


async def test_it_stops_at_once_without_capacity(client: Redis, stream: Stream) -> None:
    capacity = Capacity(0)
    async with asyncio.timeout(5), Running(consumer(client, stream, done, capacity=capacity)):
        await capacity.wait_for_looks(1)


async def _is_empty(client: Redis, stream: Stream) -> bool:
    return not sum(lane.length for lane in (await Inspector(client, stream, group=GROUP).stats()).lanes)
