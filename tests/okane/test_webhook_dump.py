"""A dump of the log, loaded into another server: its transaction ids are ahead of that server's own, or behind them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from okane.local.postgres import PostgresServer
from okane.local.postgres_binaries import find_programs
from okane.store import WebhookEventStore
from tests.okane.stored_payments import execute
from tests.okane.webhook_rows import fetch

WRITE = (
    "INSERT INTO webhook_outbox (payment_ids, versions, account_id, type)"
    " VALUES (ARRAY[%s::uuid], ARRAY[%s::integer], 'default', 'payment.failed')"
)
LOG = "SELECT position, payment_id, version FROM webhook_events ORDER BY position"
XMAX = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"


@pytest.mark.parametrize("is_ahead", [True, False])
async def test_a_dump_that_is_loaded_elsewhere_goes_on_where_it_was(
    database_url: str, private_postgres: PostgresServer, tmp_path: Path, is_ahead: bool
) -> None:
    """The fresh server has given out few ids: those of the other one are ahead of it."""
    source, target = (database_url, private_postgres.url) if is_ahead else (private_postgres.url, database_url)
    listed, held, waiting, new = uuid4(), uuid4(), uuid4(), uuid4()
    if is_ahead:
        await burn_ids(source, until_after=target)
    async with await psycopg.AsyncConnection.connect(source) as open_one:
        await open_one.execute(WRITE, [held, 2])
        await execute(source, WRITE, [listed, 2])
        await sequence(source)  # its snapshot has the open transaction in progress
        await open_one.commit()
    await execute(source, WRITE, [waiting, 2])
    load(dump(source, tmp_path), target)

    await execute(target, WRITE, [new, 2])
    await sequence(target)
    await execute(target, WRITE, [new, 3])
    await sequence(target)
    log = await fetch(target, LOG)
    assert log[0] == (1, listed, 2)
    assert {row[1:] for row in log[1:4]} == {(held, 2), (waiting, 2), (new, 2)}
    assert log[4:] == [(5, new, 3)]
    assert await fetch(target, "SELECT versions FROM webhook_outbox") == []


async def burn_ids(url: str, *, until_after: str) -> None:
    [(other,)] = await fetch(until_after, XMAX)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while (await (await connection.execute(XMAX)).fetchall())[0][0] <= other + 100:
            await connection.execute("SELECT pg_current_xact_id()")


async def sequence(url: str) -> None:
    store = WebhookEventStore(url)
    assert await store.sequence() is not None
    await store.aclose()


def dump(url: str, folder: Path) -> Path:
    file = folder / "okane.sql"
    file.write_bytes(program("pg_dump", "-d", url, "--no-owner"))
    return file


def load(file: Path, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    program("psql", "-d", url, "-q", "-v", "ON_ERROR_STOP=1", "-f", str(file))


def program(name: str, *arguments: str) -> bytes:
    done = subprocess.run([find_programs(None) / name, *arguments], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
