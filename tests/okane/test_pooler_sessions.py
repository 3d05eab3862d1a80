"""Poolers in session mode that are full or reset nothing, and poolers that hide their mode."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from okane.errors import StoreUnavailable
from okane.store import schema, server_facts
from okane.store.connect import open_connection
from okane.store.pooler import PoolerRefused, require_own_session
from okane.store.server_facts import read_postgres_facts
from okane.store.session import Session
from tests.okane.pgbouncer import pooling, running_pooler


async def test_a_full_pool_is_named_as_the_likely_reason_of_a_silent_server(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("okane.store.session.SETUP_TIMEOUT_S", 0.5)
    monkeypatch.setattr("okane.store.session.MIN_SETUP_S", 0.5)
    with running_pooler(database_url, "session", size=2) as pooler, contextlib.ExitStack() as closing:
        for _ in range(2):
            holder = closing.enter_context(contextlib.closing(psycopg.connect(pooler.url, autocommit=True)))
            holder.execute("SELECT 1")
        session = Session(pooler.url, name="test", timeout=timedelta(seconds=3))
        with pytest.raises(StoreUnavailable, match=r"no answer within 0\.5 s.*default_pool_size"):
            await session.fetch("SELECT 1")
        closing.close()
        monkeypatch.undo()
        assert await session.fetch("SELECT 1") == [(1,)]
        await session.aclose()


async def test_the_last_connection_of_a_pool_is_taken_for_a_session(database_url: str) -> None:
    """No other is left to compare it with; one that is shut down meanwhile, and lent to the other, shows nothing."""
    with running_pooler(database_url, "session", size=1) as pooler:
        async with await open_connection(pooler.url, name="test", timeout_s=2.0) as connection:
            assert (await (await connection.execute("SHOW timezone")).fetchone()) == ("UTC",)
        with pytest.MonkeyPatch.context() as patching:
            patching.setattr("okane.store.pooler.TIMEOUT_S", 10.0)
            with pytest.raises(psycopg.OperationalError, match="default_pool_size"):
                await open_connection(pooler.url, name="test", timeout_s=0.5)


async def test_a_pooler_that_resets_no_session_is_refused(database_url: str) -> None:
    with (
        running_pooler(database_url, "session", more="server_reset_query =\n") as pooler,
        pytest.raises(PoolerRefused, match="server_reset_query = DISCARD ALL"),
    ):
        await read_postgres_facts(pooler.url)


async def test_a_pooler_that_reports_the_process_ids_of_the_server_is_found_out(database_url: str) -> None:
    """Its mode cannot be seen; but the settings and statements of a session are gone once another client has used it."""
    with pooling(database_url, "transaction") as url:

        async def open_session() -> psycopg.AsyncConnection[Any]:
            connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
            await connection.execute("SELECT set_config('enable_seqscan', 'off', false)", prepare=False)
            return connection

        with pytest.raises(PoolerRefused, match="neither settings nor prepared statements"):
            await require_own_session(open_session)


async def test_sessions_are_tried_behind_a_pooler_and_for_the_doctor(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    async def note(_open_session: object) -> None:
        tried.append("once")

    monkeypatch.setattr(server_facts, "require_own_session", note)
    await read_postgres_facts(database_url)
    assert tried == []
    await read_postgres_facts(database_url, tries_sessions=True)
    with pooling(database_url, "session") as url:
        await read_postgres_facts(url)
    assert len(tried) == 2
    monkeypatch.undo()
    assert (await read_postgres_facts(database_url, tries_sessions=True)).pooled is False


async def test_a_pool_that_is_nearly_full_keeps_no_process_from_checking_the_schema(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_facts, "SESSIONS_PATIENCE_S", 1.0)
    with (
        running_pooler(database_url, "session", size=2) as pooler,
        contextlib.closing(psycopg.connect(pooler.url, autocommit=True)) as holder,
    ):
        holder.execute("SELECT 1")
        found = await read_postgres_facts(pooler.url)
        assert (found.pooled, found.schema_version) == (True, schema.VERSION)
        with pytest.raises(StoreUnavailable):  # the doctor is to tell
            await read_postgres_facts(pooler.url, tries_sessions=True)
