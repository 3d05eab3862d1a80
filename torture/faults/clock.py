"""Faults of time: the wall clock of one process is minutes off. (`time.monotonic` is not: no machine's is.)"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from torture.faults.fault import Fault
from torture.schedule import Step
from torture.system.cluster import Cluster

_FURTHEST_S = 600.0


@contextlib.asynccontextmanager
async def _skewed(cluster: Cluster, step: Step) -> AsyncIterator[None]:
    cluster.factory.set_clock(step.target, (step.roll * 2 - 1) * _FURTHEST_S)
    try:
        yield
    finally:
        cluster.factory.set_clock(step.target, 0.0)


CLOCK_FAULTS = (
    Fault(
        name="clock_skew",
        meaning="the wall clock of one worker or one API jumps by up to ten minutes, and back",
        targets=lambda shape: shape.skewable,
        made=_skewed,
        hold_s=(2.0, 6.0),
        touches=lambda step, _shape: (f"{step.target} clock",),
    ),
)
