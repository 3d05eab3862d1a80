"""Faults of a Redis behind Sentinel: the primary dies and its replica is promoted, roles are swapped, sentinels are away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from torture.faults.fault import Fault
from torture.faults.processes import down
from torture.faults.redis import execute
from torture.schedule import Step
from torture.system.cluster import Cluster
from torture.system.sentinels import Sentinels
from torture.system.shape import Shape

_PROMOTED_S = 30.0
_POLL_S = 0.02


@contextlib.asynccontextmanager
async def _promoted(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    """The sentinels promote the replica while the primary is down. It comes back as the replica of the new one."""
    sentinels = _sentinels(cluster)
    await sentinels.settled()
    number, old = cluster.primary, cluster.redis
    async with old.held_down():
        await old.kill()
        cluster.tally.redis_lost.append(time.time())
        yield
        await _until_another(cluster, number)
        cluster.tally.redis_back.append(time.time())
    await old.ready()
    # By themselves the sentinels take some ten seconds for that, in which no other failover is possible.
    await execute(cluster, number, *sentinels.follow_command(cluster.primary))


@contextlib.asynccontextmanager
async def _swapped(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    sentinels = _sentinels(cluster)
    await sentinels.settled()
    number = cluster.primary
    await sentinels.fail_over()
    await _until_another(cluster, number)
    cluster.tally.redis_back.append(time.time())
    yield


@contextlib.asynccontextmanager
async def _all_down(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as held:
        programs = [cluster.programs[name] for name in cluster.shape.sentinels]
        for program in programs:
            await program.ready()
            await held.enter_async_context(program.held_down())
            await program.kill()
        yield
    for program in programs:
        await program.ready()


async def _until_another(cluster: Cluster, number: int) -> None:
    async with asyncio.timeout(_PROMOTED_S):
        while cluster.primary == number:  # noqa: ASYNC110 - the sentinels are asked by polling, too
            await asyncio.sleep(_POLL_S)


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
        made=_swapped,
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
