"""Faults of Postgres: killed, stopped at once, frozen, a session killed, rows locked, out of disk."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import LiteralString

import psutil

from okane.errors import StoreUnavailable
from okane.store.session import Session
from torture.faults.fault import Fault, only
from torture.faults.processes import down, killed
from torture.schedule import Step, pick
from torture.system import small_disk
from torture.system.cluster import Cluster

# As a forgotten psql session does: a statement on one of these rows waits for the lock's time-out.
_LOCK: LiteralString = (
    "SELECT FROM payments WHERE status IN ('pending', 'processing', 'failed_retryable', 'unknown')"
    " ORDER BY id LIMIT 50 FOR UPDATE SKIP LOCKED"
)


@contextlib.asynccontextmanager
async def _stopped_at_once(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    await cluster.postgres.ready()
    await cluster.postgres.end_with(signal.SIGQUIT)
    yield
    await cluster.postgres.ready()


@contextlib.asynccontextmanager
async def _session_killed(cluster: Cluster, step: Step) -> AsyncIterator[None]:
    """Postgres then ends all sessions and recovers, since the dead one may have spoilt what they share."""
    await cluster.postgres.ready()
    sessions = [one for one in _family(cluster) if "okane" in " ".join(one.cmdline())]
    if sessions:
        pick(sessions, step.roll).kill()
        cluster.tally.killed("postgres session", "postgres")
    yield


@contextlib.asynccontextmanager
async def _frozen(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    await cluster.postgres.ready()
    family = _family(cluster)
    with cluster.postgres.frozen():
        _signal(family, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(family, signal.SIGCONT)


@contextlib.asynccontextmanager
async def _disk_full(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    await cluster.postgres.ready()
    small = cluster.disks[cluster.postgres.name]
    await asyncio.to_thread(small.fill)
    try:
        yield
    finally:
        await asyncio.to_thread(small.free)
    await cluster.postgres.ready()


@contextlib.asynccontextmanager
async def _rows_locked(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    await cluster.postgres.ready()
    session = Session(cluster.database_url, name="torture")
    held = False
    try:
        # Ends with StoreUnavailable when Postgres is made to die meanwhile: then the rows are free as well.
        with contextlib.suppress(StoreUnavailable):
            async with session.transaction() as connection:
                await connection.execute(_LOCK)
                held = True
                yield
        if not held:
            yield
    finally:
        await session.aclose()


def _family(cluster: Cluster) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(cluster.postgres.pid).children(recursive=True)
    return []


def _signal(family: list[psutil.Process], number: signal.Signals) -> None:
    for one in family:
        with contextlib.suppress(psutil.Error):
            one.send_signal(number)


def _why_no_full_disk() -> str | None:
    # A limit on the size of files is no way out: Postgres reports it as another error than a full disk.
    return small_disk.why_impossible()


_POSTGRES = only("postgres")

POSTGRES_FAULTS = (
    Fault(name="kill_postgres", meaning="kill -9 of the postmaster", targets=_POSTGRES, made=killed, weight=2),
    Fault(
        name="kill_postgres_session",
        meaning="kill -9 of one session: Postgres restarts all of them",
        targets=_POSTGRES,
        made=_session_killed,
    ),
    Fault(
        name="postgres_down",
        meaning="Postgres is killed and stays away",
        targets=_POSTGRES,
        made=down,
        hold_s=(0.6, 2.0),
    ),
    Fault(
        name="postgres_stopped_at_once",
        meaning="SIGQUIT: no checkpoint, the next start recovers",
        targets=_POSTGRES,
        made=_stopped_at_once,
    ),
    Fault(
        name="stop_postgres",
        meaning="SIGSTOP of Postgres and all of its sessions",
        targets=_POSTGRES,
        made=_frozen,
        hold_s=(0.5, 2.5),
    ),
    Fault(
        name="postgres_rows_locked",
        meaning="another session holds locks on payments that are under way",
        targets=_POSTGRES,
        made=_rows_locked,
        hold_s=(0.6, 2.0),
        weight=2,
    ),
    Fault(
        name="postgres_disk_full",
        meaning="no room for Postgres to write a byte more",
        targets=_POSTGRES,
        made=_disk_full,
        hold_s=(1.0, 3.0),
        needs="root and mount (a small tmpfs)",
        why_not=_why_no_full_disk,
    ),
)
