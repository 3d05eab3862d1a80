"""Faults of a Redis Cluster: the primary of the payments' slot dies or is silent, roles are swapped, the slot moves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from torture.faults.fault import Fault
from torture.faults.redis_promotion import group, primary_down, swapped, until_another
from torture.schedule import Step
from torture.system.cluster import Cluster
from torture.system.redis_cluster import RedisCluster
from torture.system.shape import Shape


@contextlib.asynccontextmanager
async def _promoted(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    """The nodes promote a replica while the primary is down. It comes back as the replica of the new one."""
    async with primary_down(cluster):
        yield


@contextlib.asynccontextmanager
async def _silent(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    """The same of a primary that neither answers nor closes a connection, and then goes on."""
    await group(cluster).settled()
    number, old = cluster.primary, cluster.redis
    with old.frozen():
        cluster.tally.redis_lost.append(time.time())
        yield
        await until_another(cluster, number)


@contextlib.asynccontextmanager
async def _slot_moved(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    nodes = group(cluster)
    assert isinstance(nodes, RedisCluster)
    await nodes.settled()
    number = cluster.primary
    await nodes.move_slot()
    await until_another(cluster, number)
    yield


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
        made=swapped,
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
