"""Faults of processes: killed, or stopped and woken up again. Here those of our own and the provider's; servers die alike."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from torture.faults.fault import Fault, only
from torture.schedule import Step
from torture.system.cluster import Cluster


@contextlib.asynccontextmanager
async def killed(cluster: Cluster, step: Step) -> AsyncIterator[None]:
    program = cluster.program(step.target)
    await program.ready()
    await program.kill()
    yield
    await program.ready()


@contextlib.asynccontextmanager
async def stopped(cluster: Cluster, step: Step) -> AsyncIterator[None]:
    program = cluster.program(step.target)
    await program.ready()
    with program.frozen():
        yield


@contextlib.asynccontextmanager
async def down(cluster: Cluster, step: Step) -> AsyncIterator[None]:
    program = cluster.program(step.target)
    await program.ready()
    async with program.held_down():
        yield
    await program.ready()


PROCESS_FAULTS = (
    Fault(
        name="kill_worker",
        meaning="kill -9 of a worker, started again at once",
        targets=lambda shape: shape.workers,
        made=killed,
        weight=12,
    ),
    Fault(
        name="kill_api",
        meaning="kill -9 of an API, started again at once",
        targets=lambda shape: shape.apis,
        made=killed,
        weight=6,
    ),
    Fault(
        name="kill_provider",
        meaning="kill -9 of the provider, started again at once",
        targets=only("provider"),
        made=killed,
        weight=2,
    ),
    Fault(
        name="kill_gateway",
        meaning="kill -9 of the gateway, the second provider, started again at once",
        targets=only("gateway"),
        made=killed,
        weight=2,
    ),
    Fault(
        name="gateway_down",
        meaning="the gateway is killed and stays away until circuits open",
        targets=only("gateway"),
        made=down,
        hold_s=(1.0, 4.0),
    ),
    Fault(
        name="stop_worker",
        meaning="SIGSTOP of a worker for longer than its lease; then it goes on",
        targets=lambda shape: shape.workers,
        made=stopped,
        hold_s=(2.5, 5.0),
        weight=2,
    ),
    Fault(
        name="stop_api",
        meaning="SIGSTOP of an API for longer than the lease",
        targets=lambda shape: shape.apis,
        made=stopped,
        hold_s=(2.5, 5.0),
    ),
    Fault(
        name="stop_provider",
        meaning="SIGSTOP of the provider for a moment: longer than a call may take",
        targets=only("provider"),
        made=stopped,
        hold_s=(1.0, 2.2),  # what it read before is charged after: shorter than time-out plus consistency lag
    ),
    Fault(
        name="provider_down",
        meaning="the provider is killed and stays away",
        targets=only("provider"),
        made=down,
        hold_s=(0.6, 2.0),
    ),
)
