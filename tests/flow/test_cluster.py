"""The whole pipeline on a Redis Cluster: a slot moves, a primary is killed, a node is added."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from okane.lanes import payments_stream
from okane.monitoring.operation_checks import reading_consumers
from streams import Inspector, Stream, StreamError, connect
from tests.flow.system import System, running
from tests.streams.cluster_nodes import ClusterNodes

ALWAYS = ("--unavailable", "0", "--decline", "0")


@pytest.fixture
async def cluster(redis_cluster: ClusterNodes) -> AsyncIterator[ClusterNodes]:
    yield redis_cluster
    await redis_cluster.heal()


@pytest.fixture
async def system(cluster: ClusterNodes, tmp_path: Path, database_url: str) -> AsyncIterator[System]:
    async with running(tmp_path / "system", database_url, cluster.url) as one:
        await one.start("w1", "w2", provider=ALWAYS)
        assert await one.settled(await one.pay(20, prefix="before")) == Counter(success=20)
        yield one


async def test_a_slot_moves_to_a_new_node_and_back_under_load(cluster: ClusterNodes, system: System) -> None:
    key = payments_stream(system.stream).lane_keys[0]
    home, new = await cluster.owner(key), await cluster.add()
    paying = asyncio.ensure_future(system.pay(200, prefix="moving", pause_s=0.01))
    await asyncio.sleep(0.3)
    for target in (new, home):
        await cluster.move_slot(key, target, pause_s=0.05)
        assert await cluster.owner(key) is target
    ids = await paying
    assert await system.settled(ids) == Counter(success=200)
    await system.check(ids)


async def test_payments_settle_while_a_primary_is_away_and_after_its_replica_is_promoted(
    cluster: ClusterNodes, system: System
) -> None:
    stream = payments_stream(system.stream)
    owner = await cluster.owner(stream.dead_key)
    paying = asyncio.ensure_future(system.pay(300, prefix="meanwhile", pause_s=0.02))
    await asyncio.sleep(0.5)
    owner.kill()
    promoted = await cluster.promoted(stream.dead_key, owner)
    ids = await paying
    assert await system.settled(ids) == Counter(success=300)
    await system.check(ids)
    assert await reading(cluster, stream) == {"w1", "w2"}
    promoted.kill()  # nothing is left that could be promoted
    alone = await system.pay(20, prefix="alone")
    assert await system.settled(alone) == Counter(success=20)
    await cluster.heal()
    assert await reading(cluster, stream) == {"w1", "w2"}
    after = await system.pay(20, prefix="after")
    assert await system.settled(after) == Counter(success=20)
    await system.check([*ids, *alone, *after])


async def reading(cluster: ClusterNodes, stream: Stream) -> set[str]:
    """Return the workers that read the stream, once there are two."""
    async with connect(cluster.url) as client, asyncio.timeout(30):
        inspector = Inspector(client, stream, group="workers")
        while True:
            with contextlib.suppress(StreamError):
                if len(found := {*reading_consumers(await inspector.stats())}) == 2:
                    return found
            await asyncio.sleep(0.05)
