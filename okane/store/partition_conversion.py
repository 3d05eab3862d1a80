"""Convert a database to table partitions, while it is used: today's tables become the first part. No row is copied.

    1. CHECK (id < bound) NOT VALID on each of the four tables: an instant; later rows obey it
    2. VALIDATE: reads each table once, and blocks nothing
    3. one transaction, under a lock of an instant: the tables are renamed, partitioned ones with their names are made, the
       old ones attached (the CHECK proves the bound), the next parts made

A process that dies leaves step 1 or 2, never a half of step 3. Run again it goes on; an error takes the CHECKs back. They
must not stay: from the bound on they would refuse every payment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from psycopg import sql

from okane.errors import SetupError
from okane.store.partition_bounds import TABLES, Part, first_end, lowest_id, missing_parts, time_of
from okane.store.partition_making import SQL, Connection, attach, copy_rights, make_part, patiently, read_parts
from okane.store.schema import PAUSE_S

CHECK = "okane_first_part"
MIN_LEFT = timedelta(hours=1)  # of the time before the bound of a conversion that goes on
_FIRST = "_first"  # the end of the names of the first part's tables and indexes
_BOUND = re.compile(r"'([0-9a-f-]{36})'::uuid")

# A payment's key is unique by this table. `digest`: see okane/store/payment_keys.py.
_KEYS = "CREATE TABLE payment_keys (digest uuid PRIMARY KEY, id uuid NOT NULL)"


@dataclass(frozen=True, slots=True)
class LeftCheck:
    """A CHECK of a conversion that has not ended."""

    table: str
    end: datetime
    is_validated: bool


def read_left_checks(connection: Connection) -> Sequence[LeftCheck]:
    """Return the CHECKs that a conversion has added and not used yet."""
    rows = connection.execute(SQL["left_checks"], {"tables": list(TABLES)}).fetchall()
    return [parse_left_check(*row) for row in rows]


def parse_left_check(table: str, definition: str, is_validated: bool) -> LeftCheck:
    """Return a row of `left_checks`."""
    found = _BOUND.search(definition)
    if found is None:
        raise SetupError(f"the constraint {CHECK} of {table} was not made by okane: {definition}")
    return LeftCheck(table, time_of(UUID(found[1])), is_validated)


def convert(
    connection: Connection,
    *,
    every: timedelta,
    ahead: timedelta,
    now: datetime | None = None,
    report: Callable[[str], None] = lambda _line: None,
    pause_s: float = PAUSE_S,
) -> Part:
    """Convert the tables; return the first part. The caller holds the migration lock. Raises SetupError, psycopg's errors."""
    now = now or datetime.now(UTC)
    _refuse_obstacles(connection)
    try:
        end = _add_checks(connection, now, every, pause_s)
        for table in TABLES:
            report(f"checking the ids of {table}")
            check = sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(
                sql.Identifier(table), sql.Identifier(CHECK)
            )
            patiently(lambda check=check: connection.execute(check), pause_s)  # type: ignore[misc]  # bound in the loop
        first = Part(end, None)
        patiently(lambda: _swap(connection, first, every=every, until=end + ahead), pause_s)
    except BaseException:
        if not connection.closed:
            drop_checks(connection, pause_s)
        raise
    return first


def drop_checks(connection: Connection, pause_s: float = PAUSE_S) -> None:
    """Drop the CHECKs of a conversion that has not ended."""
    for left in read_left_checks(connection):
        drop = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(sql.Identifier(left.table), sql.Identifier(CHECK))
        patiently(lambda drop=drop: connection.execute(drop), pause_s)  # type: ignore[misc]  # bound in the loop


def revert(connection: Connection, *, pause_s: float = PAUSE_S) -> None:
    """Put today's tables back in the place of the partitioned ones. Raise SetupError once a later part has rows: they would
    have to be copied. The caller holds the migration lock."""
    patiently(lambda: _swap_back(connection), pause_s)


def _swap_back(connection: Connection) -> None:
    with connection.transaction():
        names = sql.SQL(", ").join(map(sql.Identifier, TABLES))
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(names))
        parts = read_parts(connection)
        if not parts or parts[0].begin is not None:
            raise SetupError("the first table partition is gone: there is no table to go back to")
        for parent in TABLES:
            for part in parts[1:]:
                table = sql.Identifier(part.table(parent))
                if connection.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(table)).fetchone() is not None:
                    raise SetupError(f"{part.table(parent)} has rows already: there is no way back without copying")
            _swap_back_one(connection, parent, parts[0])
        connection.execute("DROP TABLE payment_keys")


def _swap_back_one(connection: Connection, parent: str, first: Part) -> None:
    old, new = sql.Identifier(first.table(parent)), sql.Identifier(parent)
    connection.execute(sql.SQL("ALTER TABLE {} DETACH PARTITION {}").format(new, old))
    connection.execute(sql.SQL("DROP TABLE {}").format(new))  # with its other parts, which are empty
    connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(old, new))
    connection.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(new, sql.Identifier(CHECK)))
    for name, *_ in connection.execute(SQL["indexes"], {"table": parent}).fetchall():
        if name.endswith(_FIRST):
            back = sql.Identifier(name.removesuffix(_FIRST))
            connection.execute(sql.SQL("ALTER INDEX {} RENAME TO {}").format(sql.Identifier(name), back))


def _refuse_obstacles(connection: Connection) -> None:
    found = []
    for table in TABLES:
        rows = connection.execute(SQL["obstacles"], {"table": table}).fetchall()
        invalid = [row for row in connection.execute(SQL["indexes"], {"table": table}).fetchall() if not row[4]]
        found += [f"{table}: {row[0]}" for row in rows] + [f"{table}: the invalid index {row[0]}" for row in invalid]
    if found:
        raise SetupError(f"okane does not know how to take these over, remove them first: {'; '.join(found)}")


def _add_checks(connection: Connection, now: datetime, every: timedelta, pause_s: float) -> datetime:
    """Add the CHECKs that are missing; return their bound: that of an earlier run, if enough time is left."""
    left = read_left_checks(connection)
    ends = {one.end for one in left}
    if len(ends) != 1 or min(ends) < now + MIN_LEFT:
        drop_checks(connection, pause_s)
        left, ends = [], {first_end(now, every)}
    [end] = ends
    for table, column in TABLES.items():
        if table in {one.table for one in left}:
            continue
        add = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({} < {}::uuid) NOT VALID").format(
            sql.Identifier(table), sql.Identifier(CHECK), sql.Identifier(column), sql.Literal(str(lowest_id(end)))
        )
        patiently(lambda add=add: connection.execute(add), pause_s)  # type: ignore[misc]  # bound in the loop
    return end


def _swap(connection: Connection, first: Part, *, every: timedelta, until: datetime) -> None:
    """Put partitioned tables in the place of today's, which become the first part."""
    with connection.transaction():
        names = sql.SQL(", ").join(map(sql.Identifier, TABLES))
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(names))
        for parent, column in TABLES.items():
            _swap_one(connection, parent, column, first)
        connection.execute(_KEYS)
        copy_rights(connection, "payments", "payment_keys")
        for part in missing_parts([first], every=every, until=until):
            make_part(connection, part, like=first)


def _swap_one(connection: Connection, parent: str, column: str, first: Part) -> None:
    indexes = connection.execute(SQL["indexes"], {"table": parent}).fetchall()
    old, new = sql.Identifier(first.table(parent)), sql.Identifier(parent)
    for name, _, is_primary, is_unique, _ in indexes:
        if is_primary or not is_unique:  # the UNIQUE constraint stays as it is, at the first part alone
            connection.execute(
                sql.SQL("ALTER INDEX {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(name + _FIRST))
            )
    connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(new, old))
    connection.execute(
        sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING INDEXES) PARTITION BY RANGE ({})").format(
            new, old, sql.Identifier(column)
        )
    )
    connection.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(new, sql.Identifier(CHECK)))
    for name, definition, is_primary, is_unique, _ in indexes:
        if is_primary:
            columns = definition[definition.index("(") :]
            connection.execute(
                sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} PRIMARY KEY ").format(new, sql.Identifier(name))
                + sql.SQL(columns)
            )
        elif not is_unique:
            connection.execute(sql.SQL(definition))  # as Postgres spells it, for the name that the new table has now
    copy_rights(connection, first.table(parent), parent)
    attach(connection, parent, first)
