"""Faults of a Redis Cluster: the primary of the payments' slot dies or is silent, roles are swapped, the slot moves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from torture.faults.fault import Fault
from torture.schedule import Step
from torture.system.cluster import Cluster
from torture.system.redis_cluster import RedisCluster
from torture.system.shape import Shape

_PROMOTED_S = 30.0
_POLL_S = 0.02


@contextlib.asynccontextmanager
async def _promoted(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    """The nodes promote a replica while the primary is down. It comes back as the replica of the new one."""
    await _group(cluster).settled()
    number, old = cluster.primary, cluster.redis
    async with old.held_down():
        await old.kill()
        cluster.tally.redis_lost.append(time.time())
        yield
        await _until_another(cluster, number)
    await old.ready()


@contextlib.asynccontextmanager
async def _silent(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    """The same of a primary that neither answers nor closes a connection, and then goes on."""
    await _group(cluster).settled()
    number, old = cluster.primary, cluster.redis
    with old.frozen():
        cluster.tally.redis_lost.append(time.time())
        yield
        await _until_another(cluster, number)


@contextlib.asynccontextmanager
async def _swapped(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    group, number = _group(cluster), cluster.primary
    await group.settled()
    await group.fail_over()
    await _until_another(cluster, number)
    yield


@contextlib.asynccontextmanager
async def _slot_moved(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    group, number = _group(cluster), cluster.primary
    await group.settled()
    await group.move_slot()
    await _until_another(cluster, number)
    yield


async def _until_another(cluster: Cluster, number: int) -> None:
    """Wait until another node serves the payments' slot, and note when."""
    async with asyncio.timeout(_PROMOTED_S):
        while cluster.primary == number:  # noqa: ASYNC110 - the nodes are asked by polling, too
            await asyncio.sleep(_POLL_S)
    cluster.tally.redis_back.append(time.time())


def _group(cluster: Cluster) -> RedisCluster:
    assert isinstance(cluster.redis_group, RedisCluster), "the faults have targets then only"
    return cluster.redis_group


def _redis(shape: Shape) -> Sequence[str]:
    return ("redis",) if shape.has_slots else ()


_NEEDS = "--redis cluster"

CLUSTER_FAULTS = (
    Fault(
        name="cluster_promotion",
        meaning="the primary of the payments' slot is killed and stays away until its replica is promoted",
        targets=_redis,
        made=_promoted,
        hold_s=(0.1, 0.5),
        weight=3,
        needs=_NEEDS,
    ),
    Fault(
        name="cluster_silent",
        meaning="SIGSTOP of the primary of the payments' slot until its replica is promoted; then it goes on",
        targets=_redis,
        made=_silent,
        hold_s=(0.1, 0.5),
        weight=2,
        needs=_NEEDS,
    ),
    Fault(
        name="cluster_failover",
        meaning="CLUSTER FAILOVER: the replica of the payments' slot takes the place of its primary",
        targets=_redis,
        made=_swapped,
        hold_s=(0.1, 0.3),
        weight=2,
        needs=_NEEDS,
    ),
    Fault(
        name="slot_moved",
        meaning="the payments' slot moves to another primary, its keys one by one",
        targets=_redis,
        made=_slot_moved,
        hold_s=(0.1, 0.3),
        weight=2,
        needs=_NEEDS,
    ),
)
