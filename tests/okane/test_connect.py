"""Sessions: libpq's variables apply to all processes and commands, and okane's own settings override them."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from okane.app import process as lifecycle
from okane.app.api import run_api
from okane.app.console import run_console
from okane.app.dispatcher import run_dispatcher
from okane.app.worker import run_worker
from okane.cli.context import Context
from okane.config import Settings
from okane.errors import SetupError, StoreUnavailable
from okane.local.postgres import PostgresServer
from okane.monitoring import doctor
from okane.store import ApiKeyStore, PaymentStore, schema
from okane.store.connect import open_connection
from okane.store.pooler import PoolerRefused
from okane.store.server_facts import read_postgres_facts
from okane.store.session import Session
from tests.forked_process import run_okane
from tests.okane.pgbouncer import pooling
from tests.okane.stored_payments import GRACE, LEASE, accept_one, new

SHOWN = "SELECT current_setting('statement_timeout'), current_setting('timezone'), current_setting('search_path')"


async def shown(url: str) -> tuple[Any, ...]:
    session = Session(url, name="test", timeout=timedelta(seconds=7), index_only=True)
    try:
        [row] = await session.fetch(SHOWN)
    finally:
        await session.aclose()
    return row


@pytest.fixture
def empty_database(postgres_server: PostgresServer) -> Iterator[str]:
    """The address of a database that is empty but for a schema `app`."""
    name = sql.Identifier("opening_empty")
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        url = postgres_server.database_url("opening_empty")
        with psycopg.connect(url, autocommit=True) as inside:
            inside.execute("CREATE SCHEMA app")
        yield url
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def store_of(url: str) -> PaymentStore:
    return PaymentStore(url, actor="api", lease=LEASE, grace=GRACE)


async def test_options_of_the_environment_and_of_the_url_hold(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await shown(f"{database_url}?options=-c%20search_path%3Dapp") == ("7s", "UTC", "app")
    monkeypatch.setenv("PGOPTIONS", "-c search_path=app -c statement_timeout=5000 -c timezone=Asia/Tokyo")
    assert await shown(database_url) == ("7s", "UTC", "app")


async def test_what_is_read_and_written_does_not_depend_on_the_environment(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGTZ": "Asia/Tokyo", "PGCLIENTENCODING": "latin1", "PGAPPNAME": "x"}.items():
        monkeypatch.setenv(name, value)
    async with await open_connection(database_url, name="test") as connection:
        row = await (
            await connection.execute("SELECT current_setting('timezone'), current_setting('application_name'), 'é€'")
        ).fetchone()
    assert row == ("UTC", "okane test", "é€")


async def test_every_command_finds_the_tables_where_pgoptions_says(
    empty_database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c search_path=app")
    assert await schema.migrate(empty_database) is True
    assert await schema.read_version(empty_database) == schema.VERSION
    assert (await read_postgres_facts(empty_database)).schema_version == schema.VERSION
    store, keys = store_of(empty_database), ApiKeyStore(empty_database)
    await store.check_writable()
    await accept_one(store, new("k"))
    assert await keys.list() == []
    await store.aclose()
    await keys.aclose()
    with psycopg.connect(empty_database) as connection:
        found = connection.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'payments'").fetchall()
    assert found == [("app",)]
    monkeypatch.delenv("PGOPTIONS")
    assert await schema.read_version(empty_database) is None


async def test_a_session_that_may_only_read_is_said_to_be_by_all(
    database_url: str, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c default_transaction_read_only=on")
    store = store_of(database_url)
    with pytest.raises(StoreUnavailable, match="read-only"):
        await store.check_writable()
    with pytest.raises(StoreUnavailable, match="read-only"):
        await accept_one(store, new("k"))
    await store.aclose()
    with pytest.raises(SetupError, match="read-only"):
        await schema.migrate(empty_database)


@pytest.mark.parametrize(
    "statement", ["DROP TABLE payment_events", "DROP TABLE okane_schema", "DELETE FROM okane_schema"]
)
async def test_a_database_without_its_tables_is_not_ready(database_url: str, statement: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(statement.encode())
    store = store_of(database_url)
    with pytest.raises(StoreUnavailable, match=r"does not exist|run `okane migrate`"):
        await store.check_writable()
    await store.aclose()


async def test_what_a_missing_table_stops_is_away_and_comes_back(database_url: str) -> None:
    store = store_of(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE payments RENAME TO elsewhere")
        with pytest.raises(StoreUnavailable, match="does not exist"):
            await accept_one(store, new("k"))
        connection.execute("ALTER TABLE elsewhere RENAME TO payments")
    assert (await accept_one(store, new("k"))).created
    await store.aclose()


async def test_readiness_is_asked_once_a_second_at_most(database_url: str) -> None:
    store = store_of(database_url)
    await store.check_writable()
    await store.aclose()  # a query would open a new connection
    with psycopg.connect(database_url, autocommit=True) as connection:
        before = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        await asyncio.gather(*(store.check_writable() for _ in range(20)))
        after = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    assert before is not None
    assert after is not None
    assert after[0] - before[0] <= 2  # its own, and one more if the second was over


@contextmanager
def migrating(url: str) -> Iterator[int]:
    """Hold the migration lock in another session inside the block; yield its process id."""
    with closing(psycopg.connect(url, autocommit=True, application_name="a strange one")) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtext('okane.migrate'))")
        yield connection.info.backend_pid


async def test_a_migration_that_waits_says_for_whom_and_gives_up(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("okane.store.migration_lock._QUIET_S", 0.0)
    said: list[str] = []
    with migrating(database_url) as pid, pytest.raises(SetupError, match=rf"held by pid {pid}.*'a strange one'"):
        await schema.migrate(database_url, wait=timedelta(seconds=0.5), report=said.append)
    assert said[0].startswith(f"waiting for another migration: its lock is held by pid {pid}, application_name")
    assert f"pg_terminate_backend({pid})" in said[0]
    assert await schema.migrate(database_url) is False


def test_the_command_that_gives_up_ends_with_a_code(database_url: str) -> None:
    with migrating(database_url) as pid:
        done = okane(database_url, "migrate", "--wait", "200ms")
    assert done.returncode == 2
    assert f"held by pid {pid}" in done.stderr


def okane(url: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return run_okane(*arguments, env={**os.environ, "DATABASE_URL": url, "COLUMNS": "300", **env})


def settings(database_url: str, redis_url: str, port: int) -> Settings:
    return Settings(
        _env_file=None,
        database_url=database_url,
        redis_url=redis_url,
        provider_base_url="http://127.0.0.1:9",
        port=port,
        metrics_port=0,
        auth="none",
        webhook_master="m" * 48,
    )


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_a_pooler_that_keeps_no_session_is_refused_by_all(
    mode: str, database_url: str, redis_url: str, free_port: int
) -> None:
    refusal = f"connection pooler in {mode} mode"
    with pooling(database_url, mode) as url:
        where = settings(url, redis_url, free_port)
        with pytest.raises(SetupError, match=refusal):
            await run_api(where)
        with pytest.raises(SetupError, match=refusal):
            await run_worker(where, name="w")
        with pytest.raises(SetupError, match=refusal):
            await run_dispatcher(where, name="d")
        with pytest.raises(SetupError, match=refusal):
            await run_console(where)
        with pytest.raises(SetupError, match=refusal):
            await schema.migrate(url)
        store, keys = store_of(url), ApiKeyStore(url)
        for call in (accept_one(store, new("k")), store.check_writable(), keys.list()):
            with pytest.raises(StoreUnavailable, match=refusal):
                await call
        await store.aclose()
        await keys.aclose()
        [found] = await doctor._postgres(context(where))
        assert (found.name, found.state) == ("postgres pooler", "fail")
        assert refusal in found.found
        for command in (("migrate",), ("keys", "create", "--account", "a")):
            done = okane(url, *command)
            assert (done.returncode, refusal in done.stderr) == (2, True), (command, done.stderr)
    assert await schema.migrate(database_url, wait=timedelta(seconds=1)) is False, "nothing was left locked"
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SHOW lock_timeout").fetchone() == ("0",), "nor set"


async def test_a_pooler_that_keeps_sessions_works_for_all(
    database_url: str, empty_database: str, redis_url: str, free_port: int
) -> None:
    with pooling(database_url, "session") as url:
        assert await shown(url) == ("7s", "UTC", '"$user", public')
        store, keys = store_of(url), ApiKeyStore(url)
        await store.check_writable()
        made = await asyncio.gather(*(accept_one(store, new(f"k{number}")) for number in range(50)))
        assert all(accepted.created for accepted in made)
        assert await keys.list() == []
        await store.aclose()
        await keys.aclose()
        found = {check.name: check for check in await doctor._postgres(context(settings(url, redis_url, free_port)))}
        assert found["postgres pooler"].state == "ok"
        assert "session" in found["postgres pooler"].found
        assert await schema.migrate(url) is False
    with pooling(empty_database, "session") as url:
        changed = await asyncio.gather(*(schema.migrate(url) for _ in range(3)))
        assert sum(changed) == 1
        assert await schema.migrate(url, wait=timedelta(seconds=5)) is False


@pytest.mark.parametrize("process", ["api", "worker"])
async def test_processes_start_behind_a_pooler_that_keeps_sessions(
    process: str, database_url: str, redis_url: str, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = lifecycle.StopSignal()
    stop.set()  # as soon as it has started
    monkeypatch.setattr(lifecycle, "stop_on_signals", lambda: stop)
    monkeypatch.setattr(lifecycle, "tune_gc", lambda: None)
    with pooling(database_url, "session") as url:
        where = settings(url, redis_url, free_port)
        await (run_api(where) if process == "api" else run_worker(where, name="w"))


async def test_a_pooler_under_load_is_found_out_all_the_same(database_url: str) -> None:
    """The pooler lends the connections that ours leaves idle to other clients."""
    with pooling(database_url, "transaction") as url:
        stop = asyncio.Event()

        async def busy() -> None:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                while not stop.is_set():
                    await connection.execute("SELECT pg_sleep(0.001)", prepare=False)

        others = [asyncio.create_task(busy()) for _ in range(8)]
        try:
            for _ in range(5):
                with pytest.raises(PoolerRefused):
                    await open_connection(url, name="test")
        finally:
            stop.set()
            await asyncio.gather(*others)


async def test_a_pooler_that_takes_no_options_says_which(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pooling(database_url, "session") as url:
        monkeypatch.setenv("PGOPTIONS", "-c search_path=app")
        with pytest.raises(PoolerRefused, match="takes no `options`"):
            await open_connection(url, name="test")


def context(where: Settings) -> Context:
    return Context(
        settings=where,
        source="a test",
        database=where.database_url,
        redis=where.redis,
        provider_base_url=where.provider_base_url,
        api_url="http://127.0.0.1:9",
    )
