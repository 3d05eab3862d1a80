"""Faults of our own processes and the provider's: killed, or stopped and woken up again."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from okane.torture.faults.fault import Fault, only
from okane.torture.schedule import Step
from okane.torture.system.cluster import Cluster


@contextlib.asynccontextmanager
async def _killed(cluster: Cluster, step: Step) -> AsyncIterator[None]:
    kept = cluster.processes[step.target]
    await kept.ready()
    await kept.kill()
    yield
    await kept.ready()


@contextlib.asynccontextmanager
async def _stopped(cluster: Cluster, step: Step) -> AsyncIterator[None]:
    kept = cluster.processes[step.target]
    await kept.ready()
    with kept.frozen():
        yield


@contextlib.asynccontextmanager
async def _down(cluster: Cluster, step: Step) -> AsyncIterator[None]:
    kept = cluster.processes[step.target]
    await kept.ready()
    async with kept.held_down():
        await kept.kill()
        yield
    await kept.ready()


PROCESS_FAULTS = (
    Fault(
        name="kill_worker",
        meaning="kill -9 of a worker, started again at once",
        targets=lambda shape: shape.workers,
        made=_killed,
        weight=12,
    ),
    Fault(
        name="kill_api",
        meaning="kill -9 of an API, started again at once",
        targets=lambda shape: shape.apis,
        made=_killed,
        weight=6,
    ),
    Fault(
        name="kill_provider",
        meaning="kill -9 of the provider, started again at once",
        targets=only("provider"),
        made=_killed,
        weight=2,
    ),
    Fault(
        name="stop_worker",
        meaning="SIGSTOP of a worker for longer than its lease; then it goes on",
        targets=lambda shape: shape.workers,
        made=_stopped,
        hold_s=(2.5, 5.0),
        weight=2,
    ),
    Fault(
        name="stop_api",
        meaning="SIGSTOP of an API for longer than the lease",
        targets=lambda shape: shape.apis,
        made=_stopped,
        hold_s=(2.5, 5.0),
    ),
    Fault(
        name="stop_provider",
        meaning="SIGSTOP of the provider for a moment: longer than a call may take",
        targets=only("provider"),
        made=_stopped,
        hold_s=(1.0, 2.2),  # what it read before is charged after: shorter than time-out plus consistency lag
    ),
    Fault(
        name="provider_down",
        meaning="the provider is killed and stays away",
        targets=only("provider"),
        made=_down,
        hold_s=(0.6, 2.0),
    ),
)
