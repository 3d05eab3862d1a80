"""Faults of a Redis behind Sentinel: the primary dies and its replica is promoted, roles are swapped, sentinels are away."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from torture.faults.fault import Fault
from torture.faults.processes import down
from torture.faults.redis import execute
from torture.faults.redis_promotion import primary_down, swapped
from torture.schedule import Step
from torture.system.cluster import Cluster
from torture.system.sentinels import Sentinels
from torture.system.shape import Shape


@contextlib.asynccontextmanager
async def _promoted(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    """The sentinels promote the replica while the primary is down. It comes back as the replica of the new one."""
    async with primary_down(cluster) as number:
        yield
    # By themselves the sentinels take some ten seconds for that, in which no other failover is possible.
    await execute(cluster, number, *_sentinels(cluster).follow_command(cluster.primary))


@contextlib.asynccontextmanager
async def _all_down(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as held:
        programs = [cluster.programs[name] for name in cluster.shape.sentinels]
        for program in programs:
            await program.ready()
            await held.enter_async_context(program.held_down())
        yield
    for program in programs:
        await program.ready()


def _sentinels(cluster: Cluster) -> Sentinels:
    assert isinstance(cluster.redis_group, Sentinels), "the faults have targets then only"
    return cluster.redis_group


def _redis(shape: Shape) -> Sequence[str]:
    return ("redis",) if shape.sentinels else ()


_NEEDS = "--redis sentinel"

SENTINEL_FAULTS = (
    Fault(
        name="sentinel_promotion",
        meaning="the Redis primary is killed and stays away until its replica is promoted",
        targets=_redis,
        made=_promoted,
        hold_s=(0.1, 0.5),
        weight=4,
        needs=_NEEDS,
    ),
    Fault(
        name="sentinel_failover",
        meaning="the sentinels are told to swap primary and replica",
        targets=_redis,
        made=swapped,
        hold_s=(0.1, 0.3),
        weight=2,
        needs=_NEEDS,
    ),
    Fault(
        name="sentinel_down",
        meaning="one sentinel is killed and stays away",
        targets=lambda shape: shape.sentinels,
        made=down,
        hold_s=(1.0, 4.0),
        weight=2,
        needs=_NEEDS,
    ),
    Fault(
        name="sentinels_down",
        meaning="all sentinels are killed and stay away",
        targets=_redis,
        made=_all_down,
        hold_s=(1.0, 4.0),
        needs=_NEEDS,
        touches=lambda _step, shape: ("redis", *shape.sentinels),
    ),
)
