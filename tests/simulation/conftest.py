"""The real store and the model of it, for the tests that compare them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest
import uuid_utils
from psycopg.conninfo import make_conninfo

from okane.store import sweep as sweep_module
from tests.simulation.twins import START, VIRTUAL_CLOCK, WINDOW, Twins


@pytest.fixture
async def twins(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Twins]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(VIRTUAL_CLOCK)
        await connection.execute("UPDATE virtual.clock SET at = %s", [START])
        await connection.execute("UPDATE sweep_horizon SET seen_at = %s", [START])
        await connection.execute("SET timezone = 'UTC'")
        both = Twins(connection, make_conninfo(database_url, options="-c search_path=virtual,pg_catalog,public"))
        monkeypatch.setattr(uuid_utils, "uuid7", lambda: both.next_id)
        monkeypatch.setattr(sweep_module, "WINDOW", WINDOW)
        yield both
        await both.aclose()
