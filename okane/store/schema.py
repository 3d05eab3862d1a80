"""Brings a database to the schema that this version needs.

`schema.sql` is the readable truth, and what an empty database gets. An older one gets the steps that it lacks (`migrations`,
run by alembic); a test holds that both lead to the same. `okane_schema` says which version a database has.
"""

from __future__ import annotations

import asyncio
import time
from importlib import resources
from pathlib import Path

import psycopg

from okane.errors import SetupError

VERSION = 3

LOCK_TIMEOUT_MS = 2000  # whoever waits for a lock makes everybody wait behind it: rather give up, and try again
TRIES = 15
PAUSE_S = 1.0

_POLL_S = 0.2


def schema_sql() -> str:
    """The text of `schema.sql`: from the installed package, or from the top of a checkout."""
    packaged = resources.files("okane.store") / "schema.sql"
    return packaged.read_text() if packaged.is_file() else (Path(__file__).parents[2] / "schema.sql").read_text()


async def migrate(url: str, *, pause_s: float = PAUSE_S) -> bool:
    """Create the schema if the database has none, or bring it forward. True if something was done.

    Safe to run from many processes at once, and while others work on the database. A database of a newer version is refused
    rather than written to. Raises SetupError for that, and for a database that cannot be reached or does not let us.
    """
    try:
        return await asyncio.to_thread(_migrate, url, pause_s)
    except psycopg.Error as error:
        raise SetupError(f"the schema cannot be applied to the database: {str(error).strip()}") from error


def _migrate(url: str, pause_s: float) -> bool:
    with psycopg.connect(url, connect_timeout=5, autocommit=True) as connection:
        _wait_for_the_others(connection)
        connection.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}; SET timezone = 'UTC'")
        found = _version(connection)
        if found is None:
            with connection.transaction():
                connection.execute(schema_sql())
            return True
        if found > VERSION:
            raise SetupError(f"the database has schema version {found}, this okane knows {VERSION}: upgrade okane")
        if found < VERSION:
            _bring_forward(connection, pause_s)
        return found < VERSION


def _wait_for_the_others(connection: psycopg.Connection) -> None:
    """Take the right to migrate, for as long as the connection lives.

    Asked for again and again: a statement that waited would have a snapshot, and CREATE INDEX CONCURRENTLY waits for those.
    """
    while True:
        row = connection.execute("SELECT pg_try_advisory_lock(hashtext('okane.migrate'))").fetchone()
        if row is not None and row[0]:
            return
        time.sleep(_POLL_S)


def _bring_forward(connection: psycopg.Connection, pause_s: float) -> None:
    """Take the steps that are missing. One that does not get its locks is taken back, and tried again."""
    from okane.store import migrations  # noqa: PLC0415 - half a second, for what is hardly ever needed

    for left in reversed(range(TRIES)):
        found = _version(connection) or 0
        try:
            migrations.upgrade(connection, found=found)
            break
        except psycopg.errors.LockNotAvailable:
            if not left:
                raise
        time.sleep(pause_s)


async def version(url: str) -> int | None:
    """The schema version of a database, None if it has none."""
    async with await psycopg.AsyncConnection.connect(url, connect_timeout=5) as connection:
        row = await (await connection.execute(_EXISTS)).fetchone()
        return _number(row and row[0] and await (await connection.execute(_LATEST)).fetchone())


def _version(connection: psycopg.Connection) -> int | None:
    row = connection.execute(_EXISTS).fetchone()
    return _number(row and row[0] and connection.execute(_LATEST).fetchone())


_EXISTS = "SELECT to_regclass('okane_schema')::text"
_LATEST = "SELECT max(version) FROM okane_schema"


def _number(row: object) -> int | None:
    return row[0] if isinstance(row, tuple) and isinstance(row[0], int) else None
