"""Parts of the faults of a Redis that changes its primary by itself: behind Sentinel, or in a Redis Cluster."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from torture.schedule import Step
from torture.system.cluster import Cluster
from torture.system.redis_cluster import RedisCluster
from torture.system.sentinels import Sentinels

_PROMOTED_S = 30.0
_POLL_S = 0.02


def group(cluster: Cluster) -> Sentinels | RedisCluster:
    """Return what changes the primary."""
    assert cluster.redis_group is not None, "the faults have targets then only"
    return cluster.redis_group


async def until_another(cluster: Cluster, number: int) -> None:
    """Wait until another server is the primary, and note when. Raises TimeoutError."""
    async with asyncio.timeout(_PROMOTED_S):
        while cluster.primary == number:  # noqa: ASYNC110 - the servers are asked by polling, too
            await asyncio.sleep(_POLL_S)
    cluster.tally.redis_back.append(time.time())


@contextlib.asynccontextmanager
async def primary_down(cluster: Cluster) -> AsyncIterator[int]:
    """The primary is killed, and stays away in the block and until its replica is promoted. Yields its number."""
    await group(cluster).settled()
    number, old = cluster.primary, cluster.redis
    async with old.held_down():
        cluster.tally.redis_lost.append(time.time())
        yield number
        await until_another(cluster, number)
    await old.ready()


@contextlib.asynccontextmanager
async def swapped(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    """Primary and replica swap their roles, with both up."""
    await group(cluster).settled()
    number = cluster.primary
    await group(cluster).fail_over()
    await until_another(cluster, number)
    yield
