"""Faults inside our processes: every failpoint that is compiled in, one after the other (see streams/failpoints.py)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from torture.faults.fault import Fault, Made
from torture.schedule import Step, pick
from torture.system.cluster import Cluster
from torture.system.crash_points import DELAY_S
from torture.system.shape import Shape

# Some failpoints are passed all the time and some seldom: mostly they strike the first time.
_NTH = (1, 1, 1, 2, 7)


def _points(shape: Shape) -> Sequence[str]:
    return shape.failpoints


def _host(step: Step, shape: Shape) -> str:
    return pick(shape.hosts_of(step.target), step.roll)


def _armed(action: str) -> Made:
    @contextlib.asynccontextmanager
    async def made(cluster: Cluster, step: Step) -> AsyncIterator[None]:
        """Arm it at the next start of the process, which is killed if that is not near."""
        host = _host(step, cluster.shape)
        nth = pick(_NTH, step.roll * 97 % 1)
        program = cluster.programs[host]
        await program.ready()
        if cluster.points[host].add(f"{step.target}:{action}:{nth}"):
            await program.kill()
        yield
        await program.ready()

    return made


FAILPOINT_FAULTS = tuple(
    Fault(
        name=f"failpoint_{action}",
        meaning=meaning,
        targets=_points,
        made=_armed(action if action != "delay" else f"delay={DELAY_S}"),
        weight=weight,
        touches=lambda step, shape: (_host(step, shape),),
    )
    for action, meaning, weight in (
        ("kill", "a process dies by kill -9 at a chosen place", 16),
        ("stop", "a process stops at a chosen place for longer than its lease, and goes on", 2),
        ("delay", "a process waits at a chosen place", 1),
        ("raise", "what can fail at a chosen place fails there", 2),
    )
)
