"""Make table partitions: one part in the four tables, without a lock that payments would wait for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from okane.store import sql_files
from okane.store.partition_bounds import TABLES, Part, lowest_id, parse_bound
from okane.store.schema import TRIES

SQL = sql_files.load_statements("table_partitions.sql")
Connection = psycopg.Connection[tuple[Any, ...]]
R = TypeVar("R")


def read_parts(connection: Connection) -> Sequence[Part]:
    """Return the parts, oldest first; nothing if payments are in one table."""
    return sorted(parse_bound(row[0]) for row in connection.execute(SQL["parts"]).fetchall())


def make_part(connection: Connection, part: Part, *, like: Part | None) -> None:
    """Make the tables of a part, with the storage parameters of the part `like`, in the caller's transaction."""
    for parent in TABLES:
        # Not CREATE TABLE ... PARTITION OF: its lock on the parent would block every read and write.
        name = part.table(parent)
        pattern = sql.Identifier(parent)
        connection.execute(sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(sql.Identifier(name), pattern))
        if like is not None:
            copy_storage(connection, like.table(parent), name)
        copy_rights(connection, parent, name)
        attach(connection, parent, part)


def attach(connection: Connection, parent: str, part: Part) -> None:
    """Attach the table of a part to the partitioned table."""
    begin = sql.SQL("MINVALUE") if part.begin is None else sql.Literal(str(lowest_id(part.begin)))
    connection.execute(
        sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            sql.Identifier(parent),
            sql.Identifier(part.table(parent)),
            begin,
            sql.Literal(str(lowest_id(part.end))),
        )
    )


def copy_rights(connection: Connection, source: str, target: str) -> None:
    """Give a table the owner of another, and its rights of other roles."""
    owner, _, rights = _row(connection, source)
    if owner != _row(connection, target)[0]:
        connection.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(sql.Identifier(target), sql.Identifier(owner)))
    for role, privilege, is_grantable in rights or ():
        connection.execute(
            sql.SQL("GRANT {} ON {} TO {}{}").format(
                sql.SQL(privilege),
                sql.Identifier(target),
                sql.Identifier(role) if role else sql.SQL("PUBLIC"),
                sql.SQL(" WITH GRANT OPTION" if is_grantable == "true" else ""),
            )
        )


def copy_storage(connection: Connection, source: str, target: str) -> None:
    """Give a table the storage parameters of another: the room for updates in each page."""
    for option in _row(connection, source)[1] or ():
        name, _, value = option.partition("=")
        connection.execute(
            sql.SQL("ALTER TABLE {} SET ({} = {})").format(
                sql.Identifier(target), sql.Identifier(name), sql.Literal(value)
            )
        )


def _row(connection: Connection, table: str) -> tuple[Any, ...]:
    row = connection.execute(SQL["rights"], {"table": table}).fetchone()
    assert row is not None
    return row


def patiently(change: Callable[[], R], pause_s: float) -> R:
    """Make a change that gives up after `lock_timeout`, and try again: all would wait behind one that waits for a lock."""
    for left in reversed(range(TRIES)):
        try:
            return change()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if not left:
                raise
            time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")
