"""Measure repairs one at a time, with no other fault in force, so that the figures are those of a single repair
and not what else was broken meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from torture.clients import Clients
from torture.faults.provider import unhurried
from torture.faults.webhooks import behave
from torture.schedule import Step
from torture.system.cluster import Cluster

WORKER_FAULT, REDIS_FAULT = "kill_worker", "redis_down"
_KILLED = 2  # workers
_DIES_AT = 1  # the number of the kill with which the endpoint dies
_IN_FLIGHT_S = 1.0  # until every worker has payments in flight
_REDIS_AWAY_S = 1.0
_RATE = 60.0  # payments a second: every worker has some in flight, and the invariants fewer to judge


async def measure_repairs(
    cluster: Cluster, clients: Clients, *, workers: bool, redis: bool, stop: asyncio.Event, dead_path: str | None = None
) -> None:
    """Continue the load and kill a few workers and Redis, unless stopped; the times go to the tally.

    From the second kill of a worker on, the endpoint at `dead_path` does not answer: deliveries do not depend on workers.
    """
    cluster.tally.calm_from_s = time.time()
    done = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(clients.run(done.is_set, wishes=False, at_most=_RATE))
        try:
            async with unhurried(cluster, _STEP), _endpoint_dies(cluster, dead_path) as let_die:
                if workers:
                    await _kill_workers(cluster, stop, let_die)
                await asyncio.sleep(_IN_FLIGHT_S)
            if redis and not stop.is_set():
                await _kill_redis(cluster)
        finally:
            done.set()


async def _kill_workers(cluster: Cluster, stop: asyncio.Event, let_die: Callable[[], Awaitable[None]]) -> None:
    for number, name in enumerate(cluster.shape.workers[:_KILLED]):
        if stop.is_set():
            return
        if number == _DIES_AT:
            await let_die()
        await asyncio.sleep(_IN_FLIGHT_S)
        await cluster.programs[name].kill()
        await cluster.programs[name].ready()
        # Its payments are settled before the next one dies: the worker that took them over must live.
        await asyncio.sleep(cluster.options.lease_s * 2)


@contextlib.asynccontextmanager
async def _endpoint_dies(cluster: Cluster, path: str | None) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Yield what makes the endpoint silent; it answers again after the block."""
    began_s, died_s = time.time(), None

    async def let_die() -> None:
        nonlocal died_s
        if path is not None:
            await behave(cluster, path, "silent")
            died_s = time.time()

    try:
        yield let_die
    finally:
        if path is not None and died_s is not None:
            cluster.tally.dead_endpoint = (began_s, died_s, time.time())
            await behave(cluster, path, "accept")


async def _kill_redis(cluster: Cluster) -> None:
    async with cluster.redis.held_down():
        await asyncio.sleep(_REDIS_AWAY_S)
    await cluster.redis.ready()
    cluster.tally.redis_back.append(time.time())
    await asyncio.sleep(_IN_FLIGHT_S)


_STEP = Step(number=-1, pause_s=0, fault="", target="provider", hold_s=0, roll=0)
