"""Large messages over a slow link, and lost replies: all are handled, and lost deliveries do not count."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from streams import (
    Dead,
    DeadLetters,
    Done,
    Draft,
    Inspector,
    Message,
    Metrics,
    Outcome,
    Producer,
    Retry,
    Stream,
    connect,
    scripts,
)
from streams.byte_window import ByteWindow
from streams.entry import timestamp_ms
from streams.errors import StreamUnavailable
from streams.group import Group
from tests.streams.conftest import Connected
from tests.streams.running import GROUP, Running, consumer, done
from tests.streams.servers import Proxy, Server
from torture.network.link_faults import Direction, Drip, LoseReplies

KIB = 1024
BODY = bytes(512 * KIB)
TIMEOUT = timedelta(seconds=1)


class Batches(Metrics):
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def batch(self, step: str, size: int) -> None:
        self.sizes.append(size)


@asynccontextmanager
async def slow(server: Server, direction: Direction) -> AsyncIterator[Redis]:
    """A client behind a link that carries one large message in a quarter of the time-out, and six of them not in time."""
    async with Proxy(server) as proxy:
        client = connect(proxy.url, timeout=TIMEOUT)
        await client.ping()
        proxy.strike(Drip(chunk_bytes=64 * KIB, every_ms=30, direction=direction))
        yield client
        await client.aclose()


async def test_large_messages_that_are_published_together_get_through_a_slow_link(
    own_server: Callable[..., Server], connected: Connected, stream: Stream
) -> None:
    server = own_server()
    batches = Batches()
    async with slow(server, Direction.TO_SERVER) as client:
        producer = Producer(client, stream, metrics=batches)
        ids = await asyncio.gather(*(producer.publish(BODY) for _ in range(12)))
    assert len(set(ids)) == 12
    assert max(batches.sizes) <= 2
    assert await connected(server).xlen(stream.lane_key("critical")) == 12


async def test_large_messages_that_wait_are_read_over_a_slow_link_and_delivered_once(
    own_server: Callable[..., Server], connected: Connected, stream: Stream
) -> None:
    server = own_server()
    direct = connected(server)
    await Producer(direct, stream).publish_many(
        [Draft(b"%d" % number + BODY, stream.lane_names[number % 3]) for number in range(12)]
    )
    seen: list[tuple[bytes, int]] = []
    finished = asyncio.Event()

    async def handler(message: Message) -> Outcome:
        seen.append((message.body[:2].rstrip(b"\0"), message.deliveries))
        if len(seen) == 12:
            finished.set()
        return Done()

    async with slow(server, Direction.TO_CLIENT) as client:
        options: dict[str, Any] = {"lease": timedelta(seconds=30), "block": timedelta(milliseconds=50)}
        async with asyncio.timeout(30), Running(consumer(client, stream, handler, **options)):
            await finished.wait()
    assert sorted(seen, key=lambda one: int(one[0])) == [(b"%d" % number, 1) for number in range(12)]
    stats = await Inspector(direct, stream, group=GROUP).stats()
    assert (stats.pending, stats.depth, stats.dead) == (0, 0, 0)


async def test_a_dead_consumers_large_messages_are_taken_over_through_a_slow_link(
    own_server: Callable[..., Server], connected: Connected, stream: Stream
) -> None:
    server = own_server()
    direct = connected(server)
    await Producer(direct, stream).publish_many([Draft(b"%d" % number + BODY) for number in range(6)])
    await consumer(direct, stream, done, name="dead", concurrency=1).run_once()  # makes the group
    key = stream.lane_key("critical")
    replies = cast(Any, await direct.xreadgroup(GROUP, "dead", {key: ">"}))
    ids = [entry_id for entry_id, _ in replies[0][1]]
    await direct.xclaim(key, GROUP, "dead", 0, ids, idle=3_600_000, retrycount=1, justid=True)
    seen: list[int] = []
    finished = asyncio.Event()

    async def handler(message: Message) -> Outcome:
        seen.append(message.deliveries)
        if len(seen) == 5:
            finished.set()
        return Done()

    async with (
        slow(server, Direction.TO_CLIENT) as client,
        asyncio.timeout(30),
        Running(consumer(client, stream, handler)),
    ):
        await finished.wait()
    assert seen == [2] * 5
    assert await direct.xlen(key) == 0


async def test_large_messages_that_are_tried_again_or_given_up_together_get_through_a_slow_link(
    own_server: Callable[..., Server], connected: Connected, stream: Stream
) -> None:
    server = own_server()
    direct = connected(server)
    await Producer(direct, stream).publish_many([Draft(b"%d" % number + BODY) for number in range(8)])
    read: list[Message] = []
    together = asyncio.Event()

    async def handler(message: Message) -> Outcome:
        read.append(message)
        if len(read) == 8:
            together.set()
        await together.wait()
        return Dead("no") if message.body[0] % 2 else Retry("again", timedelta(hours=1))

    async with (
        slow(server, Direction.TO_SERVER) as client,
        asyncio.timeout(30),
        Running(consumer(client, stream, handler)),
    ):
        await together.wait()
    stats = await Inspector(direct, stream, group=GROUP).stats()
    assert (stats.delayed, stats.dead, stats.pending, stats.depth) == (4, 4, 0, 0)
    assert all(message.deliveries == 1 for message in read)


@pytest.mark.parametrize("lost", [1, 4])
async def test_what_was_delivered_in_a_lost_reply_is_handed_back_and_not_counted(
    own_server: Callable[..., Server], connected: Connected, stream: Stream, lost: int
) -> None:
    """They are lost more often than poison is delivered, and the lease does not end during the test."""
    server = own_server()
    seen: list[tuple[bytes, int]] = []

    async def note(message: Message) -> Outcome:
        seen.append((message.body, message.deliveries))
        return Done()

    async with Proxy(server) as proxy:
        direct, client = connected(server), connected(proxy)
        eager = consumer(client, stream, note, max_deliveries=2, lease=timedelta(hours=1))
        await eager.run_once()
        await Producer(direct, stream).publish_many([Draft(b"%d" % number, "low") for number in range(3)])
        for _ in range(lost):
            await _losing_a_read(proxy, eager)
        assert await eager.run_once() == 3
    assert sorted(seen) == [(b"0", 1), (b"1", 1), (b"2", 1)]
    assert await DeadLetters(direct, stream).count() == 0


async def _losing_a_read(proxy: Proxy, reader: Any) -> None:
    """Run one round whose read or take-over is executed, and whose reply is lost. Earlier commands succeed."""
    lost = reader._lost
    receiving = lost.receiving

    def struck() -> Any:
        proxy.strike(LoseReplies())
        return receiving()

    lost.receiving = struck
    try:
        with pytest.raises(StreamUnavailable):
            await reader.run_once()
    finally:
        lost.receiving = receiving
        proxy.heal()


async def test_a_message_in_hand_is_not_handed_back(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish_many([Draft(b"in hand"), Draft(b"lost")])
    group = Group(client, stream, GROUP, "c1")
    await scripts.create_group(group)
    replies = cast(Any, await client.xreadgroup(GROUP, "c1", {stream.lane_key("critical"): ">"}))
    ids = [entry_id.decode() for entry_id, _ in replies[0][1]]
    since_ms = timestamp_ms(ids[0])  # its reply may be lost as well, and then it is repeated, for a time since then
    for expected in (1, 0):
        in_hand = {"critical": ids[:1]}
        assert await scripts.release_lost(group, since_ms=since_ms, lease_ms=60_000, in_hand=in_hand) == expected
    pending = cast(Any, await client.xpending_range(stream.lane_key("critical"), GROUP, "-", "+", 10))
    assert [one["times_delivered"] for one in pending] == [1, 0]
    assert pending[0]["time_since_delivered"] < 60_000 <= pending[1]["time_since_delivered"]


async def test_what_a_read_puts_back_is_read_next_in_its_order_and_for_the_first_time(
    client: Redis, stream: Stream
) -> None:
    """Ids from one script share the time and differ in the number after it: the group is set back by both."""
    await Producer(client, stream).publish_many([Draft(b"%02d" % number * 10) for number in range(10)])
    group = Group(client, stream, GROUP, "c1")
    await scripts.create_group(group)
    read: list[list[bytes]] = []
    while not read or read[-1]:
        _, taken, _, size = await scripts.read(
            group,
            stream.lane_keys,
            limit=10,
            max_bytes=70,
            entry_bytes=1,
            shares=[10, 0, 0],
        )
        assert size <= 70
        read.append([fields[1][:2] for _, fields in taken[0]])
    assert [len(part) for part in read] == [3, 3, 3, 1, 0]
    assert [body for part in read for body in part] == [b"%02d" % number for number in range(10)]
    pending = await client.xpending_range(stream.lane_key("critical"), GROUP, "-", "+", 20)
    assert Counter(one["times_delivered"] for one in pending) == {1: 10}


def test_a_window_shrinks_when_trips_are_slow_or_fail_and_grows_when_they_are_quick(client_stub: Redis) -> None:
    window = ByteWindow(client_stub)
    first = window.max_bytes
    window.record(first, 0.01)
    assert window.max_bytes == 2 * first
    window.record(10, 4.0)  # a small trip shows nothing about large ones
    assert window.max_bytes == 2 * first
    window.record(2 * first, 2.0)
    window.record_failure()
    assert window.max_bytes == first // 2
    for _ in range(20):
        window.record_failure()
    smallest = window.max_bytes
    assert 0 < smallest < first
    for _ in range(20):
        window.record(window.max_bytes, 0.01)
    assert first < window.max_bytes <= 1024 * KIB


@pytest.fixture
def client_stub() -> Redis:
    return connect("redis://127.0.0.1:1")
