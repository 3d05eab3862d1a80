"""Create or migrate the schema of a database.

An empty database gets `schema.sql`. An older one gets the steps that it lacks (`migrations`, run by alembic); a test compares
both results. `okane_schema` holds the version of a database.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from datetime import timedelta
from importlib import resources
from pathlib import Path

import psycopg

from okane.errors import SetupError, StoreUnavailable
from okane.store.connect import open_blocking_connection, open_connection
from okane.store.migration_lock import take_lock
from okane.store.prepared_statements import Row

LOCK_TIMEOUT_MS = 2000  # a waiting ALTER TABLE blocks every later query of the table: give up, and try again
TRIES = 15
PAUSE_S = 1.0
WAIT = timedelta(minutes=5)  # for the end of another migration


def schema_sql() -> str:
    """Return the text of `schema.sql`, from the installed package or from the top of a checkout."""
    packaged = resources.files("okane.store") / "schema.sql"
    return packaged.read_text() if packaged.is_file() else (Path(__file__).parents[2] / "schema.sql").read_text()


VERSION = int(re.findall(r"^INSERT INTO okane_schema \(version\) VALUES \((\d+)\);", schema_sql(), re.MULTILINE)[0])


async def migrate(
    url: str, *, pause_s: float = PAUSE_S, wait: timedelta = WAIT, report: Callable[[str], None] = lambda _line: None
) -> bool:
    """Create the schema if the database has none, or migrate it. Return True if anything was done.

    Safe from many processes at once and while others use the database: one migrates; the others wait up to `wait` and
    `report` the session that they wait for. Raises SetupError for a database of a newer version, one that cannot be reached,
    one without the necessary privileges, and one behind a pooler that keeps no session.
    """
    try:
        await (await open_connection(url, name="migrate")).close()  # raises for a pooler that would strand the lock
        settings = {"lock_timeout": str(LOCK_TIMEOUT_MS), "statement_timeout": "0"}  # an index may take an hour
        connection = await asyncio.to_thread(open_blocking_connection, url, name="migrate", settings=settings)
        try:
            await take_lock(connection, wait=wait, report=report)
            return await asyncio.to_thread(_migrate, connection, pause_s)
        finally:
            connection.close()
    except psycopg.Error as error:
        raise SetupError(f"the schema cannot be applied to the database: {str(error).strip()}") from error
    except StoreUnavailable as error:
        raise SetupError(str(error)) from error


def _migrate(connection: psycopg.Connection[Row], pause_s: float) -> bool:
    found = _version(connection)
    if found is None:
        with connection.transaction():
            connection.execute(schema_sql())
        return True
    if found > VERSION:
        raise SetupError(f"the database has schema version {found}, this okane needs {VERSION}: upgrade okane")
    if found < VERSION:
        _run_steps(connection, pause_s)
    return found < VERSION


def _run_steps(connection: psycopg.Connection[Row], pause_s: float) -> None:
    """Run the missing steps. A step that does not get its locks is rolled back, and tried again."""
    from okane.store import migrations  # noqa: PLC0415 - half a second to import, and rarely needed

    for left in reversed(range(TRIES)):
        found = _version(connection) or 0
        try:
            migrations.upgrade(connection, found=found)
            break
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if not left:
                raise
        time.sleep(pause_s)


async def read_version(url: str) -> int | None:
    """Return the schema version of a database, None if it has none."""
    async with await open_connection(url, name="version") as connection:
        return await read_version_on(connection)


async def read_version_on(connection: psycopg.AsyncConnection[Row]) -> int | None:
    """Return the schema version in this session's search path, None if there is none."""
    row = await (await connection.execute(_EXISTS)).fetchone()
    return _number(row and row[0] and await (await connection.execute(_LATEST)).fetchone())


def _version(connection: psycopg.Connection[Row]) -> int | None:
    row = connection.execute(_EXISTS).fetchone()
    return _number(row and row[0] and connection.execute(_LATEST).fetchone())


_EXISTS = "SELECT to_regclass('okane_schema')::text"
_LATEST = "SELECT max(version) FROM okane_schema"


def _number(row: object) -> int | None:
    return row[0] if isinstance(row, tuple) and isinstance(row[0], int) else None
