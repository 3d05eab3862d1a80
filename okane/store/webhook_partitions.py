"""The table partitions of the log and of the deliveries: made ahead, and dropped whole by age and by size.

A table partition has the same number and the same positions in both tables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from okane.store import sql_files
from okane.store.prepared_statements import Row
from okane.store.session import Session

SQL = sql_files.load_statements("webhook_partitions.sql")

POSITIONS = 5_000_000  # of one table partition
AHEAD = 2  # partitions beside the one in use: at 8,000 events a second they last for 20 minutes
PARENTS = ("webhook_events", "webhook_deliveries")
GRACE = timedelta(days=7)  # for which a partition is kept longer if an endpoint still has to deliver from it
NEARLY_FULL = 0.9  # of the size, from which on endpoints that need the oldest partition are named
WARNED = GRACE + timedelta(days=1)  # a warning that is not older is not repeated

# A session that waits to drop a partition blocks those that read the log behind it.
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '200ms'"


@dataclass(frozen=True, slots=True)
class Dropped:
    """The result of one run: the numbers of the partitions that were dropped, how many deliveries that gave up, the endpoints
    that need a partition that is due and was kept, or that will soon be too much, and the size of what is left."""

    partitions: Sequence[int] = ()
    given_up: int = 0
    kept_for: Sequence[UUID] = ()
    size_bytes: int = 0


async def prepare(session: Session) -> int:
    """Make the partitions of the next positions; return how many were missing."""
    if not _missing(await session.fetch(SQL["partitions"]), await _last(session)):
        return 0
    async with session.transaction() as connection:
        if not await _locked(connection):
            return 0
        found = await (await connection.execute(SQL["partitions"])).fetchall()
        last = await (await connection.execute(SQL["last"])).fetchone()
        assert last is not None
        missing = _missing(found, last[0])
        for parent, number in missing:
            await _make(connection, parent, number)
    return len(missing)


async def drop(session: Session, *, keep: timedelta, max_bytes: int | None) -> Dropped:
    """Drop the partitions that are due, oldest first, each in a transaction of its own."""
    dropped: list[int] = []
    given_up = 0
    while True:
        sizes = _sizes(await session.fetch(SQL["partitions"]))
        size_bytes = sum(sizes.values())
        oldest = min(sizes, default=0)
        end = (oldest + 1) * POSITIONS
        aged = await session.fetch(SQL["ended_at"], {"end": end})
        is_too_much = max_bytes is not None and size_bytes > max_bytes
        is_much = max_bytes is not None and size_bytes > NEARLY_FULL * max_bytes
        is_old = bool(aged) and aged[0][0] > keep.total_seconds()
        if not aged or not (is_much or is_old):
            return Dropped(dropped, given_up, (), size_bytes)
        unpassed = [row[0] for row in await session.fetch(SQL["unpassed"], {"end": end})]
        is_spared = bool(unpassed) and aged[0][0] <= (keep + GRACE).total_seconds()
        if not is_too_much and (is_spared or not is_old):
            return Dropped(dropped, given_up, unpassed, size_bytes)
        async with session.transaction() as connection:
            if not await _locked(connection):
                return Dropped(dropped, given_up, unpassed, size_bytes)
            given_up += await _drop(connection, oldest)
        dropped.append(oldest)


async def warn(session: Session, endpoint_ids: Sequence[UUID]) -> Sequence[tuple[UUID, str]]:
    """Write `webhook_endpoint.disabled` for those that are disabled, once each; return them with their accounts."""
    found = await session.fetch(SQL["warn"], {"ids": list(endpoint_ids), "recent": WARNED})
    return [(endpoint_id, account_id) for endpoint_id, account_id in found]


async def _drop(connection: psycopg.AsyncConnection[Row], number: int) -> int:
    """Drop a partition of both tables; return how many deliveries that gives up."""
    await connection.execute(_LOCK_TIMEOUT)
    row = await (await connection.execute(SQL["give_up"], {"end": (number + 1) * POSITIONS})).fetchone()
    assert row is not None
    for parent in PARENTS:
        await connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(_name(parent, number)))
    return int(row[0])


async def _make(connection: psycopg.AsyncConnection[Row], parent: str, number: int) -> None:
    # Not CREATE TABLE ... PARTITION OF: its lock on the parent would block every read and write of the log.
    name = _name(parent, number)
    like = sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)")
    await connection.execute(like.format(name, sql.Identifier(parent)))
    attach = sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})")
    begin, end = sql.Literal(number * POSITIONS), sql.Literal((number + 1) * POSITIONS)
    await connection.execute(attach.format(sql.Identifier(parent), name, begin, end))


async def _locked(connection: psycopg.AsyncConnection[Row]) -> bool:
    return await (await connection.execute(SQL["partition_lock"])).fetchone() == (True,)


async def _last(session: Session) -> int:
    return int((await session.fetch(SQL["last"]))[0][0])


def _missing(found: Sequence[tuple[Any, ...]], last: int) -> Sequence[tuple[str, int]]:
    names = {name for name, _ in found}
    first = (last + 1) // POSITIONS
    wanted = [(parent, number) for number in range(first, first + AHEAD + 1) for parent in PARENTS]
    return [(parent, number) for parent, number in wanted if f"{parent}_{number}" not in names]


def _sizes(found: Sequence[Row]) -> Mapping[int, int]:
    """Return the bytes of both tables, by the number of the partition."""
    sizes: dict[int, int] = defaultdict(int)
    for name, size in found:
        sizes[int(name.rpartition("_")[2])] += size
    return sizes


def _name(parent: str, number: int) -> sql.Identifier:
    return sql.Identifier(f"{parent}_{number}")
