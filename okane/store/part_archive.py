"""The database's part of the archive: what keeps a part from being archived, its rows, and its end.

Blocking, on one connection that holds the migration lock. A table is detached without a lock that payments wait for, and
dropped only by `drop_if`, after its rows were compared under an exclusive lock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import sql

from okane.errors import SetupError
from okane.store import payment_keys, sql_files
from okane.store.partition_bounds import TABLES, Part, lowest_id
from okane.store.partition_making import Connection, attach

SQL = sql_files.load_statements("archive.sql")
OBSTACLES = ("open_payment", "open_operation", "young", "event", "dispute", "notice")
ROWS_AT_ONCE = 10_000
_KEYS_AT_ONCE = 5_000
_ORDER = {
    name: column if name in ("payments", "operations") else f"{column}, version" for name, column in TABLES.items()
}
_AS_TEXT = ("uuid", "jsonb")


def obstacle(connection: Connection, part: Part, *, before: datetime) -> str | None:
    """Return why a part cannot be archived yet, with the id of a payment; None if nothing is in the way. Its rows must be
    from before `before` by the database's clock, too: that of the API which made their ids may have been wrong."""
    bounds = {
        "before": before,
        "begin": UUID(int=0) if part.begin is None else lowest_id(part.begin),
        "end": lowest_id(part.end),
    }
    for name in OBSTACLES:
        row = connection.execute(SQL[name], bounds).fetchone()
        if row is not None:
            return f"payment {row[0]}: {row[1]}"
    return None


def columns_of(connection: Connection, table: str) -> Mapping[str, str]:
    """Return the columns of a table with their types."""
    return dict(connection.execute(SQL["columns"], {"table": table}).fetchall())


def read_rows(connection: Connection, part: Part, parent: str) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Return the rows of one table of a part in the order of its key, `ROWS_AT_ONCE` at once, in the caller's transaction.
    Ids and documents are texts."""
    columns = columns_of(connection, part.table(parent))
    listed = sql.SQL(", ").join(
        sql.SQL("{}::text" if kind in _AS_TEXT else "{}").format(sql.Identifier(name)) for name, kind in columns.items()
    )
    query = sql.SQL("SELECT {} FROM {} ORDER BY ").format(listed, sql.Identifier(part.table(parent)))
    with connection.cursor(name="archive") as cursor:
        cursor.itersize = ROWS_AT_ONCE
        cursor.execute(query + sql.SQL(_ORDER[parent]))
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            yield rows


@contextlib.contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """Let all reads inside the block see the rows as they are at its begin."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def delete_keys(connection: Connection, part: Part) -> None:
    """Delete the idempotency keys of a part, in batches. They may be used again from then on."""
    table = sql.Identifier(part.table("payments"))
    after = UUID(int=0)
    query = sql.SQL("SELECT id, account_id, idempotency_key FROM {} WHERE id > %s ORDER BY id LIMIT %s").format(table)
    while rows := connection.execute(query, (after, _KEYS_AT_ONCE)).fetchall():
        digests = [payment_keys.digest(account_id, key) for _, account_id, key in rows]
        connection.execute(SQL["delete_keys"], {"digests": digests, "ids": [row[0] for row in rows]})
        after = rows[-1][0]


def places(connection: Connection, part: Part) -> Mapping[str, str]:
    """Return where each table of a part is: `attached`, `pending` or `detached`. One that was dropped is left out."""
    found = {}
    for parent in TABLES:
        row = connection.execute(SQL["place"], {"table": part.table(parent)}).fetchone()
        if row is not None:
            found[parent] = row[0]
    return found


def left_suffixes(connection: Connection) -> Sequence[str]:
    """Return the suffixes of parts that are not attached any more, and not dropped."""
    return sorted({row[0].rpartition("_")[2] for row in connection.execute(SQL["left"]).fetchall()})


def detach(connection: Connection, part: Part) -> None:
    """Detach the tables of a part. Repeatable; waits for the statements that read them."""
    for parent, place in places(connection, part).items():
        if place == "detached":
            continue
        how = sql.SQL("FINALIZE" if place == "pending" else "CONCURRENTLY")
        connection.execute(
            sql.SQL("ALTER TABLE {} DETACH PARTITION {} {}").format(
                sql.Identifier(parent), sql.Identifier(part.table(parent)), how
            )
        )


def drop_if(connection: Connection, part: Part, is_archived: Callable[[], bool]) -> bool:
    """Drop the detached tables of a part if `is_archived` says so of their rows, under a lock that lets no one change them.
    Otherwise attach them again. Return whether they were dropped."""
    with connection.transaction():
        found = places(connection, part)
        if set(found.values()) != {"detached"}:
            raise SetupError(f"the tables of {part.suffix} are not detached: {dict(found)}")
        tables = [sql.Identifier(part.table(parent)) for parent in found]
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.SQL(", ").join(tables)))
        if not is_archived():
            for parent in found:
                attach(connection, parent, part)
            return False
        connection.execute(_DELETE_OPERATION_KEYS.format(sql.Identifier(part.table("operations"))))
        for table in tables:
            connection.execute(sql.SQL("DROP TABLE {}").format(table))
        return True


# Of captures, voids and refunds; those of payments were deleted in batches.
_DELETE_OPERATION_KEYS = sql.SQL(
    "DELETE FROM idempotency_keys k USING {} o WHERE k.account_id = o.account_id AND k.idempotency_key = o.idempotency_key"
    " AND k.kind = 'operation' AND k.id = o.id"
)
