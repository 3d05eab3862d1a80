"""Table partitions that workers make ahead of time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from structlog.testing import capture_logs

from okane.errors import SetupError
from okane.store import SweepStore, table_partitions
from okane.store.partition_bounds import AHEAD_PARTS, DAY
from okane.store.partition_conversion import convert
from okane.store.partition_making import read_parts
from okane.worker import partitions_ahead
from okane.worker.partitions_ahead import PartitionsAhead
from tests.okane.stored_payments import GRACE

NOW = datetime.now(UTC)
LANES = {"low": None}


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as one:
        yield one


@pytest.fixture
async def sweep(database_url: str) -> AsyncIterator[SweepStore]:
    store = SweepStore(database_url, grace=GRACE)
    yield store
    await store.aclose()


def into_parts(connection: psycopg.Connection[Any]) -> None:
    """Make parts of ten days that end before the next two lengths."""
    convert(connection, every=10 * DAY, ahead=20 * DAY, now=NOW - 20 * DAY, pause_s=0.01)


async def test_the_next_parts_are_made_once(
    database_url: str, connection: psycopg.Connection[Any], sweep: SweepStore
) -> None:
    into_parts(connection)
    ahead = PartitionsAhead(url=database_url, sweep_store=sweep)
    assert not await ahead.run_once()  # the sweep has not looked yet
    await sweep.take_due(LANES, limit=1)
    others = [PartitionsAhead(url=database_url, sweep_store=sweep) for _ in range(2)]
    with mock.patch.object(partitions_ahead, "LOCK_WAIT", timedelta(minutes=1)):
        made = await asyncio.gather(*(one.run_once() for one in (ahead, *others)))
    assert sorted(made)[:2] == [0, 0]
    assert max(made) >= 1
    parts = read_parts(connection)
    assert parts[-1].end >= NOW + AHEAD_PARTS * 10 * DAY
    assert not await table_partitions.make_parts(database_url)


async def test_one_table_costs_no_statement(database_url: str, sweep: SweepStore) -> None:
    await sweep.take_due(LANES, limit=1)
    with mock.patch.object(table_partitions, "make_parts", side_effect=AssertionError):
        assert not await PartitionsAhead(url=database_url, sweep_store=sweep).run_once()


async def test_a_user_that_does_not_own_the_tables_changes_nothing_and_says_so(
    database_url: str, connection: psycopg.Connection[Any], sweep: SweepStore
) -> None:
    into_parts(connection)
    before = read_parts(connection)
    await sweep.take_due(LANES, limit=1)
    connection.execute("CREATE ROLE guest_of_parts LOGIN PASSWORD 'p'")
    try:
        connection.execute("GRANT ALL ON SCHEMA public TO guest_of_parts")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO guest_of_parts")
        url = make_conninfo(database_url, options="-c role=guest_of_parts")
        ahead = PartitionsAhead(url=url, sweep_store=sweep)
        with pytest.raises(SetupError, match="cannot be changed"):
            await ahead.run_once()
        stop = asyncio.Event()
        with capture_logs() as logs, mock.patch.object(partitions_ahead, "INTERVAL_S", 0.01):
            running = asyncio.create_task(ahead.run(stop))
            async with asyncio.timeout(30):
                while not logs:
                    await asyncio.sleep(0.01)
            stop.set()
            await running
        assert [line["event"] for line in logs] == ["table_partitions_not_made"]
    finally:
        connection.execute("DROP OWNED BY guest_of_parts")
        connection.execute("DROP ROLE guest_of_parts")
    assert read_parts(connection) == before
