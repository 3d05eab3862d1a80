"""Brings a database to the schema that this version needs. `schema.sql` is the readable truth."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import psycopg

from okane.errors import SetupError

VERSION = 1


def schema_sql() -> str:
    """The text of `schema.sql`: from the installed package, or from the top of a checkout."""
    packaged = resources.files("okane.store") / "schema.sql"
    return packaged.read_text() if packaged.is_file() else (Path(__file__).parents[2] / "schema.sql").read_text()


async def migrate(url: str) -> bool:
    """Create the schema if the database has none. True if something was done.

    Safe to run from many processes at once. A database of a newer version is refused rather than written to. Raises
    SetupError for that, and for a database that cannot be reached or does not let us.
    """
    try:
        return await _migrate(url)
    except psycopg.Error as error:
        raise SetupError(f"the schema cannot be applied to the database: {str(error).strip()}") from error


async def _migrate(url: str) -> bool:
    async with await psycopg.AsyncConnection.connect(url, connect_timeout=5) as connection:
        # Held to the end of the transaction: a second process waits, and then finds everything done.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('okane.migrate'))")
        found = await _version(connection)
        if found is None:
            await connection.execute(schema_sql())
            return True
        if found > VERSION:
            raise SetupError(f"the database has schema version {found}, this okane knows {VERSION}: upgrade okane")
        return False


async def version(url: str) -> int | None:
    """The schema version of a database, None if it has none."""
    async with await psycopg.AsyncConnection.connect(url, connect_timeout=5) as connection:
        return await _version(connection)


async def _version(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> int | None:
    row = await (await connection.execute("SELECT to_regclass('okane_schema')::text")).fetchone()
    if row is None or row[0] is None:
        return None
    row = await (await connection.execute("SELECT max(version) FROM okane_schema")).fetchone()
    return row[0] if row is not None and isinstance(row[0], int) else None
