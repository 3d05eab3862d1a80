"""Faults of Redis: killed, stopped, emptied, failed over with losses, out of memory, out of disk."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import psutil

from okane.local.ports import LOOPBACK
from streams import connect
from torture.faults.fault import Fault, Made, only
from torture.faults.processes import down, killed, stopped
from torture.network.link_faults import Stall
from torture.network.proxy import FaultProxy
from torture.schedule import Step
from torture.system import small_disk
from torture.system.cluster import Cluster
from torture.system.shape import Shape

_TOO_LITTLE = "1mb"  # less than an empty server takes
_TOO_SHORT_BYTES = 64  # of a file
_SYNC_S = 10.0
_POLL_S = 0.02
_LAST_S = 1.5  # how long half of the processes go on with the old primary


def _and_back(made: Made) -> Made:
    """And its return is noted: repairs are measured from then on."""

    @contextlib.asynccontextmanager
    async def made_and_back(cluster: Cluster, step: Step) -> AsyncIterator[None]:
        async with made(cluster, step):
            yield
        await _back(cluster)

    return made_and_back


@contextlib.asynccontextmanager
async def _flushed(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    await execute(cluster, cluster.primary, "FLUSHALL")
    cluster.tally.redis_back.append(time.time())
    yield


@contextlib.asynccontextmanager
async def _wiped(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    number, redis = cluster.primary, cluster.redis
    await redis.ready()
    async with redis.held_down():
        await asyncio.to_thread(cluster.factory.wipe_redis, number)
        yield
    await _back(cluster)


@contextlib.asynccontextmanager
async def _out_of_memory(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    number = cluster.primary
    await execute(cluster, number, "CONFIG", "SET", "maxmemory", _TOO_LITTLE)
    try:
        yield
    finally:
        await execute(cluster, number, "CONFIG", "SET", "maxmemory", "0")
    cluster.tally.redis_back.append(time.time())


@contextlib.asynccontextmanager
async def _disk_full(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
    """A full disk where we may have one of our own; else no file of this process may grow, which reads the same to it."""
    await cluster.redis.ready()
    small = cluster.disks.get("redis")
    if small is not None:
        await asyncio.to_thread(small.fill)
        try:
            yield
        finally:
            await asyncio.to_thread(small.free)
    else:
        server = psutil.Process(cluster.redis.pid)
        before = server.rlimit(psutil.RLIMIT_FSIZE)
        server.rlimit(psutil.RLIMIT_FSIZE, (_TOO_SHORT_BYTES, before[1]))
        try:
            yield
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                server.rlimit(psutil.RLIMIT_FSIZE, before)
    await _back(cluster)


def _refusing(refuse: Sequence[str], permit: Sequence[str]) -> Made:
    """Redis answers, and refuses what these rules take from its user; commands of ours need no key."""

    @contextlib.asynccontextmanager
    async def made(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
        number = cluster.primary
        with cluster.tally.rights_missing():
            await execute(cluster, number, "ACL", "SETUSER", "default", *refuse)
            try:
                yield
            finally:
                await execute(cluster, number, "ACL", "SETUSER", "default", *permit)
        cluster.tally.redis_back.append(time.time())

    return made


def _failed_over(*, split: bool) -> Made:
    @contextlib.asynccontextmanager
    async def made(cluster: Cluster, _step: Step) -> AsyncIterator[None]:
        """Promote a replica that lacks the last writes. With `split`, half of the processes use the old primary for a
        while."""
        old, new = cluster.primary, 1 - cluster.primary
        await asyncio.gather(cluster.programs[f"redis-{old}"].ready(), cluster.programs[f"redis-{new}"].ready())
        async with FaultProxy((LOOPBACK, cluster.factory.port(f"redis-{old}"))) as replication:
            await _follow(cluster, follower=new, leader=old, port=replication.port)
            try:
                replication.strike(Stall())
                yield
            finally:
                await execute(cluster, new, "REPLICAOF", "NO", "ONE")
        processes = list(cluster.links.to("redis"))
        first = processes[::2] if split else processes
        cluster.links.repoint("redis", cluster.factory.port(f"redis-{new}"), first)
        try:
            if split:
                await asyncio.sleep(_LAST_S)
        finally:
            cluster.links.repoint("redis", cluster.factory.port(f"redis-{new}"))
            cluster.primary = new
        await _back(cluster)

    return made


async def _follow(cluster: Cluster, *, follower: int, leader: int, port: int) -> None:
    await execute(cluster, leader, "CONFIG", "SET", "repl-diskless-sync-delay", "0")
    await execute(cluster, follower, "CONFIG", "SET", "masterauth", cluster.factory.redis_password)
    await execute(cluster, follower, "REPLICAOF", LOOPBACK, str(port))

    try:
        async with asyncio.timeout(_SYNC_S):
            while (await execute(cluster, follower, "INFO", "replication"))["master_link_status"] != "up":  # noqa: ASYNC110 - it sends no event
                await asyncio.sleep(_POLL_S)
    except BaseException:
        await execute(cluster, follower, "REPLICAOF", "NO", "ONE")
        raise


async def execute(cluster: Cluster, number: int, *command: str) -> Any:
    """One command to a server, past all proxies."""
    name = f"redis-{number}"
    await cluster.programs[name].ready()
    async with connect(cluster.factory.redis_url(cluster.factory.port(name))) as redis:
        return await redis.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped


async def _back(cluster: Cluster) -> None:
    await cluster.redis.ready()
    cluster.tally.redis_back.append(time.time())


def _why_no_full_disk() -> str | None:
    if small_disk.why_impossible() is None or hasattr(psutil.Process, "rlimit"):
        return None
    return f"{small_disk.why_impossible()}, and {sys.platform} has no limit to set on another process's files"


_REDIS = only("redis")


def _by_hand(shape: Shape) -> Sequence[str]:
    """The servers have no one else that changes their roles."""
    return () if shape.shared_links else ("redis",)


def _with_own_disk(shape: Shape) -> Sequence[str]:
    """A node of a cluster that cannot write its file of nodes ends, and has lost its place when it is started again."""
    return () if shape.has_slots else ("redis",)


REDIS_FAULTS = (
    Fault(
        name="kill_redis",
        meaning="kill -9 of Redis; what its file lacks is lost",
        targets=_REDIS,
        made=_and_back(killed),
        weight=3,
    ),
    Fault(
        name="redis_down",
        meaning="Redis is killed and stays away",
        targets=_REDIS,
        made=_and_back(down),
        hold_s=(1.0, 3.0),
    ),
    Fault(name="stop_redis", meaning="SIGSTOP of Redis", targets=_REDIS, made=_and_back(stopped), hold_s=(0.5, 2.5)),
    Fault(name="redis_flushed", meaning="FLUSHALL", targets=_REDIS, made=_flushed),
    Fault(
        name="redis_wiped",
        meaning="Redis is killed and its files are deleted",
        targets=_REDIS,
        made=_wiped,
        hold_s=(0.1, 1.0),
    ),
    Fault(
        name="redis_failover",
        meaning="a replica that lags behind becomes the primary: acknowledged writes are lost",
        targets=_by_hand,
        made=_failed_over(split=False),
        hold_s=(0.5, 1.5),
    ),
    Fault(
        name="redis_split",
        meaning="the same, and half of the processes go on with the old primary for a while",
        targets=_by_hand,
        made=_failed_over(split=True),
        hold_s=(0.3, 1.0),
    ),
    Fault(
        name="redis_out_of_memory",
        meaning="maxmemory below what it has, noeviction: every write is refused",
        targets=_REDIS,
        made=_out_of_memory,
        hold_s=(0.6, 2.0),
    ),
    Fault(
        name="redis_refuses",
        meaning="Redis answers every command on a key with NOPERM",
        targets=_REDIS,
        made=_refusing(["resetkeys"], ["allkeys"]),
        hold_s=(1.0, 3.0),
    ),
    Fault(
        name="redis_read_refused",
        meaning="wake-ups can be added, and may not be read",
        targets=_REDIS,
        made=_refusing(["-xreadgroup"], ["+@all"]),
        hold_s=(3.0, 5.0),
    ),
    Fault(
        name="redis_disk_full",
        meaning="the append-only file cannot grow",
        targets=_with_own_disk,
        made=_disk_full,
        hold_s=(1.5, 3.0),
        needs="root and mount, or Linux (a limit on the size of its files)",
        why_not=_why_no_full_disk,
    ),
)
