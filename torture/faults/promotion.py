"""Faults of a Postgres with standbys: the primary dies and a standby is promoted, standbys are away.

Every commit waits for one of two standbys, and the one that received most is promoted: what was acknowledged is there. The
old primary comes back as a standby. Before that it may run unfenced for a while: a second primary, whose commits wait for
standbys that follow the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from torture.faults.fault import Fault, Made
from torture.network.link_faults import Refuse
from torture.schedule import Step, pick
from torture.system import standbys
from torture.system.cluster import Cluster
from torture.system.shape import Shape

_UNFENCED_S = 4.0
_WAITING_S = 0.5  # until commits wait for a standby


def _promoted(*, fenced: bool) -> Made:
    @contextlib.asynccontextmanager
    async def made(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
        old = cluster.postgres
        await _ready(cluster, cluster.shape.postgres)
        try:
            async with old.held_down():
                yield  # until the failure is noticed, and a standby is chosen
                await _promote(cluster)
                if fenced:
                    await _copy(cluster, old.name)
            if not fenced:
                await _run_unfenced(cluster, old.name)
        finally:
            await _join(cluster)

    return made


@contextlib.asynccontextmanager
async def _promoted_after_crash(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    """While no standby answers, the primary crashes and is back: it shows commits then that no standby has. It dies again,
    and they are gone."""
    old, names = cluster.postgres, list(cluster.standbys)
    await _ready(cluster, cluster.shape.postgres)
    try:
        async with contextlib.AsyncExitStack() as old_held:
            async with contextlib.AsyncExitStack() as held:
                for name in names:
                    await held.enter_async_context(cluster.programs[name].held_down())
                await asyncio.sleep(_WAITING_S)
                await old.kill()
                await old.ready()
                yield
                await old_held.enter_async_context(old.held_down())
            await _ready(cluster, names)
            await _promote(cluster)
            await _copy(cluster, old.name)
    finally:
        await _join(cluster)


async def _promote(cluster: Cluster) -> None:
    """Promote the standby that has received most; the other one follows it."""
    chosen = await asyncio.to_thread(standbys.furthest, list(cluster.standbys.values()))
    await asyncio.to_thread(standbys.promote, chosen)
    old = cluster.postgres_primary
    cluster.make_primary(chosen.name)
    cluster.tally.promoted.append(time.time())
    for name, standby in cluster.standbys.items():
        if name != old:
            await asyncio.to_thread(standbys.follow, standby, chosen, name=name)


async def _run_unfenced(cluster: Cluster, old: str) -> None:
    """Run the old primary as it was. Half of the processes do not reach the new one, and take the old one for it."""
    links = cluster.links.toward([cluster.postgres_primary], _misled(cluster.shape))
    for link in links:
        link.strike(Refuse())
        link.reset()
    try:
        await cluster.programs[old].ready()
        await asyncio.sleep(_UNFENCED_S)
    finally:
        for link in links:
            link.heal()


async def _join(cluster: Cluster) -> None:
    """Make a new standby of every server that is a second primary, or does not follow the primary; return when all follow."""
    await _ready(cluster, cluster.shape.postgres)
    for name, server in cluster.standbys.items():
        if await asyncio.to_thread(standbys.takes_writes, server):
            await _rebuild(cluster, name)
    primary = cluster.postgres_server(cluster.postgres_primary)
    followers = await asyncio.to_thread(standbys.wait_for_followers, primary, len(cluster.standbys))
    for name in set(cluster.standbys) - followers:
        await _rebuild(cluster, name)


async def _rebuild(cluster: Cluster, name: str) -> None:
    program = cluster.programs[name]
    async with program.held_down():
        await _copy(cluster, name)
    await program.ready()


async def _copy(cluster: Cluster, name: str) -> None:
    """Replace the files of a server that is held down by those of a standby of the primary."""
    primary, folder = cluster.postgres_server(cluster.postgres_primary), cluster.factory.postgres_folder(name)
    await asyncio.to_thread(standbys.back_up, primary, folder, name=name)
    await asyncio.to_thread(cluster.postgres_server(name).prepare)


def _standbys_down(*, both: bool) -> Made:
    @contextlib.asynccontextmanager
    async def made(cluster: Cluster, step: Step) -> AsyncIterator[None]:
        await _ready(cluster, cluster.shape.postgres)
        names = list(cluster.standbys)
        async with contextlib.AsyncExitStack() as held:
            for name in names if both else [pick(names, step.roll)]:
                await held.enter_async_context(cluster.programs[name].held_down())
            yield
        await _ready(cluster, names)
        primary = cluster.postgres_server(cluster.postgres_primary)
        await asyncio.to_thread(standbys.wait_for_followers, primary, len(names))

    return made


async def _ready(cluster: Cluster, names: Sequence[str]) -> None:
    await asyncio.gather(*(cluster.programs[name].ready() for name in names))


def _misled(shape: Shape) -> Sequence[str]:
    return [*shape.apis, *shape.workers, *shape.dispatchers][::2]


def _touched_unfenced(_step: Step, shape: Shape) -> Sequence[str]:
    return ["postgres", *(f"{process}>{server}" for process in _misled(shape) for server in shape.postgres)]


def _postgres(shape: Shape) -> Sequence[str]:
    return ("postgres",) if shape.has_standbys else ()


_NEEDS = "--postgres standby"

PROMOTION_FAULTS = (
    Fault(
        name="postgres_promotion",
        meaning="the primary is killed, a standby is promoted; the old primary comes back as a standby",
        targets=_postgres,
        made=_promoted(fenced=True),
        hold_s=(0.3, 1.5),
        weight=4,
        needs=_NEEDS,
    ),
    Fault(
        name="postgres_promotion_unfenced",
        meaning="the same, and the old primary is a second one for a while: half of the processes use it",
        targets=_postgres,
        made=_promoted(fenced=False),
        hold_s=(0.3, 1.5),
        weight=2,
        needs=_NEEDS,
        touches=_touched_unfenced,
    ),
    Fault(
        name="postgres_promotion_after_crash",
        meaning="the primary crashes while no standby answers, is back for a while, and dies before a standby is promoted",
        targets=_postgres,
        made=_promoted_after_crash,
        hold_s=(1.0, 3.0),
        weight=2,
        needs=_NEEDS,
    ),
    Fault(
        name="standby_down",
        meaning="one standby of Postgres is killed and stays away",
        targets=_postgres,
        made=_standbys_down(both=False),
        hold_s=(1.0, 3.0),
        needs=_NEEDS,
    ),
    Fault(
        name="standbys_down",
        meaning="both standbys of Postgres are killed and stay away: commits wait",
        targets=_postgres,
        made=_standbys_down(both=True),
        hold_s=(0.5, 2.5),
        needs=_NEEDS,
    ),
)
