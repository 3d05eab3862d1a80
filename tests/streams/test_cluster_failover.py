"""The library on a real cluster: all its parts, a slot that moves, a primary that is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from streams import (
    DeadLetters,
    Delayed,
    Draft,
    Inspector,
    Message,
    Outcome,
    Producer,
    Retry,
    RetryPolicy,
    Stream,
    StreamUnavailable,
    UnsafeServer,
    cluster_facts,
    connect,
    missing_rights,
    require_noeviction,
)
from streams.slots import SLOTS
from tests.streams.cluster_nodes import ClusterNode, ClusterNodes
from tests.streams.running import GROUP, Running, consumer
from tests.streams.servers import HOST
from tests.streams.waiting import RecordingHandler


@pytest.fixture
async def cluster(redis_cluster: ClusterNodes) -> AsyncIterator[ClusterNodes]:
    yield redis_cluster
    await redis_cluster.heal()


@pytest.fixture
async def cluster_client(cluster: ClusterNodes) -> AsyncIterator[Redis]:
    async with connect(cluster.url, timeout=timedelta(seconds=2)) as client:
        yield client


class Publishing:
    """Publishes numbered messages in the block. `published` are those that the cluster took."""

    def __init__(self, client: Redis, stream: Stream) -> None:
        self._producer = Producer(client, stream)
        self.published: list[bytes] = []
        self.failures = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Publishing:
        self._task = asyncio.create_task(self._publish())
        await self.more(20)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._producer.aclose()

    async def more(self, count: int) -> None:
        """Wait until so many more are published."""
        wanted = len(self.published) + count
        async with asyncio.timeout(30):
            while len(self.published) < wanted:
                await asyncio.sleep(0.005)

    async def _publish(self) -> None:
        number = 0
        while True:
            number += 1
            body = str(number).encode()
            try:
                await self._producer.publish(body)
            except StreamUnavailable:
                self.failures += 1
            else:
                self.published.append(body)
            await asyncio.sleep(0.002)


async def test_all_parts_work_on_a_cluster(cluster_client: Redis, stream: Stream) -> None:
    assert await missing_rights(cluster_client, stream, group=GROUP) is None
    await require_noeviction(cluster_client)
    producer, delayed = Producer(cluster_client, stream), Delayed(cluster_client, stream)
    letters, inspector = DeadLetters(cluster_client, stream), Inspector(cluster_client, stream, group=GROUP)
    handled: list[tuple[bytes, int]] = []

    async def handle(message: Message) -> Outcome:
        handled.append((message.body, message.attempt))
        return Retry("again")

    policy = RetryPolicy(max_attempts=2, base=timedelta(milliseconds=20))
    promoting = asyncio.create_task(delayed.run(asyncio.Event()))
    async with Running(consumer(cluster_client, stream, handle, policy=policy)):
        await producer.publish_many([Draft(b"a", "critical"), Draft(b"b", "low")])
        async with asyncio.timeout(20):
            while await letters.count() < 2:
                await asyncio.sleep(0.02)
        stats = await inspector.stats()
    promoting.cancel()
    await asyncio.wait([promoting])
    assert sorted(handled) == [(b"a", 1), (b"a", 2), (b"b", 1), (b"b", 2)]
    assert (stats.dead, stats.depth, stats.pending) == (2, 0, 0)
    assert await letters.purge(older_than=timedelta(hours=1)) == 0
    assert await letters.purge(older_than=timedelta(0)) + await letters.purge(everything=True) == 2


async def test_a_slot_that_moves_under_load_loses_nothing(
    cluster: ClusterNodes, cluster_client: Redis, stream: Stream
) -> None:
    handler = RecordingHandler()
    async with Running(consumer(cluster_client, stream, handler)), Publishing(cluster_client, stream) as publishing:
        key = stream.lane_keys[0]
        for _ in range(2):
            source = await cluster.owner(key)
            primaries = {one.primary[1] for one in await source.slots()}
            target = next(one for one in cluster.nodes if one.port in primaries and one is not source)
            await cluster.move_slot(key, target, pause_s=0.02)
            await publishing.more(20)
        last = publishing.published[-1]
        await handler.wait_for(last)
        async with asyncio.timeout(20):
            while set(publishing.published) - set(handler.bodies):
                await asyncio.sleep(0.02)
    assert not [body for body in set(publishing.published) if handler.bodies.count(body) > 1]


@pytest.mark.parametrize("end", [ClusterNode.kill, ClusterNode.pause])
async def test_a_lost_primary_stops_its_streams_alone_until_its_replica_is_promoted(
    end: Callable[[ClusterNode], None], cluster: ClusterNodes, cluster_client: Redis, stream: Stream
) -> None:
    owner = await cluster.owner(stream.lane_keys[0])
    healthy = await _stream_elsewhere(cluster, owner.port)
    handler = RecordingHandler()
    async with (
        Running(consumer(cluster_client, stream, handler)),
        Publishing(cluster_client, stream) as publishing,
        Publishing(cluster_client, healthy) as others,
    ):
        end(owner)
        await others.more(1)
        await publishing.more(20)
        last = publishing.published[-1]
        await handler.wait_for(last)
        await others.more(20)
    assert publishing.failures
    assert not others.failures
    assert await cluster.promoted(stream.lane_keys[0], owner) is not owner


async def _stream_elsewhere(cluster: ClusterNodes, port: int) -> Stream:
    """Return a stream that another node than this has."""
    for number in range(100):
        found = Stream(f"elsewhere:{number}")
        if (await cluster.owner(found.lane_keys[0])).port != port:
            return found
    raise AssertionError("all slots are on one node")


async def test_a_node_that_may_evict_keys_is_refused_by_its_address(
    cluster: ClusterNodes, cluster_client: Redis
) -> None:
    node = cluster.nodes[-1]
    await node.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(UnsafeServer, match=f"at {HOST}:{node.port} has maxmemory-policy allkeys-lru"):
            await require_noeviction(cluster_client)
    finally:
        await node.run("CONFIG", "SET", "maxmemory-policy", "noeviction")
    node.kill()
    await require_noeviction(cluster_client)  # the others answer
    facts = await cluster_facts(cluster_client, [Stream("a")])
    assert facts is not None
    assert facts.slots == SLOTS
    assert [name for name, _ in facts.node_of_stream] == ["a"]
