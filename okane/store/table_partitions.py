"""The table partitions of a database: read, made on request, and extended.

A database without them has one table for payments, as `schema.sql` says.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

import psycopg

from okane.errors import SetupError, StoreUnavailable
from okane.store import partition_conversion, schema
from okane.store.connect import first_line, open_blocking_connection, open_connection
from okane.store.migration_lock import take_lock
from okane.store.part_archive import SQL as ARCHIVE_SQL
from okane.store.partition_bounds import (
    AHEAD_PARTS,
    TABLES,
    Part,
    gap_before,
    length_of_newest,
    missing_parts,
    parse_bound,
)
from okane.store.partition_making import SQL, Connection, make_part, patiently, read_parts
from okane.store.prepared_statements import Row

MIN_AHEAD = timedelta(days=1)  # with less left, new payments are about to be refused

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class PartSize:
    """A part with its estimated number of payments, and the bytes of its four tables."""

    part: Part
    payments: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Partitioning:
    """The parts of a database, oldest first; none if payments are in one table. `left_end` is the bound of a conversion that
    was interrupted: from then on its CHECKs refuse every payment."""

    parts: Sequence[PartSize]
    now: datetime  # by the database
    left_end: datetime | None = None
    detached: Sequence[str] = ()  # parts that `okane archive` has detached and not dropped
    max_locks: int  # Postgres' max_locks_per_transaction

    @property
    def end(self) -> datetime | None:
        """The time from which on no part takes payments."""
        parts = [one.part for one in self.parts]
        return gap_before(parts) or max(parts).end if parts else None

    @property
    def is_short(self) -> bool:
        """True if the last part ends within a day."""
        return self.end is not None and self.end < self.now + MIN_AHEAD


async def read_partitioning(url: str) -> Partitioning:
    """Read the parts. Raises StoreUnavailable, and SetupError for table partitions that okane has not made."""
    try:
        async with await open_connection(url, name="partitions") as connection:
            return await _read(connection)
    except psycopg.Error as error:
        raise StoreUnavailable(first_line(error)) from error


async def _read(connection: psycopg.AsyncConnection[Row]) -> Partitioning:
    found: dict[Part, list[int]] = defaultdict(lambda: [0, 0])
    for table in TABLES:
        cursor = await connection.execute(SQL["sizes"], {"table": table})
        for _, bound, rows, size_bytes in await cursor.fetchall():
            figures = found[parse_bound(bound)]
            figures[0] += rows if table == "payments" else 0
            figures[1] += size_bytes
    cursor = await connection.execute(SQL["left_checks"], {"tables": list(TABLES)})
    left = [partition_conversion.parse_left_check(*row) for row in await cursor.fetchall()]
    detached = await (await connection.execute(ARCHIVE_SQL["left"])).fetchall()
    read = "SELECT now(), current_setting('max_locks_per_transaction')::integer"
    row = await (await connection.execute(read)).fetchone()
    assert row is not None
    return Partitioning(
        parts=[PartSize(part, *found[part]) for part in sorted(found)],
        now=row[0],
        max_locks=row[1],
        left_end=min((one.end for one in left), default=None),
        detached=sorted({row[0].rpartition("_")[2] for row in detached}),
    )


async def convert(
    url: str, *, every: timedelta, wait: timedelta = schema.WAIT, report: Callable[[str], None] = lambda _line: None
) -> bool:
    """Convert a database to table partitions while it is used. Return False if it has them. Safe to repeat, and to kill.

    Raises SetupError.
    """
    return await run_locked(url, partial(_convert, every=every, report=report), wait=wait, report=report)


async def revert(
    url: str, *, wait: timedelta = schema.WAIT, report: Callable[[str], None] = lambda _line: None
) -> bool:
    """Go back to one table, while all rows are in the first part. False: nothing was to do. Raises SetupError."""
    return await run_locked(url, _revert, wait=wait, report=report)


async def make_parts(
    url: str,
    *,
    every: timedelta | None = None,
    wait: timedelta = schema.WAIT,
    report: Callable[[str], None] = lambda _line: None,
) -> Sequence[Part]:
    """Make the parts of the next time, as long as the newest or `every`; return them. Raises SetupError."""
    return await run_locked(url, partial(_make_parts, every=every), wait=wait, report=report)


def _convert(connection: Connection, *, every: timedelta, report: Callable[[str], None]) -> bool:
    if read_parts(connection):
        return False
    partition_conversion.convert(connection, every=every, ahead=AHEAD_PARTS * every, report=report)
    return True


def _revert(connection: Connection) -> bool:
    if read_parts(connection):
        partition_conversion.revert(connection)
        return True
    left = partition_conversion.read_left_checks(connection)
    partition_conversion.drop_checks(connection)
    return bool(left)


def _make_parts(connection: Connection, *, every: timedelta | None) -> Sequence[Part]:
    parts = read_parts(connection)
    if not parts:
        raise SetupError("payments are in one table: okane partitions --convert makes table partitions")
    every = every or length_of_newest(parts)
    if every is None:
        raise SetupError("there is only the first table partition: say how long the next ones last (--every 7d)")
    made: list[Part] = []
    if (gap := gap_before(parts)) is not None:
        made.append(Part(min(one.begin for one in parts if one.begin is not None and one.begin > gap), gap))
    made += missing_parts([*parts, *made], every=every, until=datetime.now(UTC) + AHEAD_PARTS * every)
    for part in made:
        patiently(partial(_make, connection, part, like=max(parts)), schema.PAUSE_S)
    return made


def _make(connection: Connection, part: Part, *, like: Part) -> None:
    with connection.transaction():
        make_part(connection, part, like=like)


async def run_locked(url: str, work: Callable[[Connection], R], *, wait: timedelta, report: Callable[[str], None]) -> R:
    """Run this on a connection that holds the migration lock. Raises SetupError."""
    try:
        await (await open_connection(url, name="partitions")).close()  # raises for a pooler that would strand the lock
        settings = {"lock_timeout": str(schema.LOCK_TIMEOUT_MS), "statement_timeout": "0"}
        connection = await asyncio.to_thread(open_blocking_connection, url, name="partitions", settings=settings)
        try:
            await take_lock(connection, wait=wait, report=report)
            return await asyncio.to_thread(work, connection)
        finally:
            connection.close()
    except psycopg.Error as error:
        raise SetupError(f"the table partitions cannot be changed: {str(error).strip()}") from error
    except StoreUnavailable as error:
        raise SetupError(str(error)) from error
