"""Sequencing in a worker: it costs nothing without webhooks, and keeps the outbox empty while no dispatcher runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from okane.metrics import OkaneMetrics
from okane.store import SweepStore, WebhookEventStore
from okane.worker.sequencing import Sequencing
from tests.okane.stored_payments import GRACE, execute

SUBSCRIBE = "INSERT INTO webhook_accounts VALUES ('default')"
WRITE = (
    "INSERT INTO webhook_outbox (payment_ids, versions, account_id, type)"
    " VALUES (ARRAY[%s::uuid], '{2}', 'default', 'payment.failed')"
)
SESSIONS = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%webhook%'"


@contextlib.asynccontextmanager
async def sequencing(url: str) -> AsyncIterator[tuple[Sequencing, OkaneMetrics]]:
    sweep_store, events, metrics = (
        SweepStore(url, grace=GRACE),
        WebhookEventStore(url),
        OkaneMetrics(CollectorRegistry()),
    )
    try:
        yield (
            Sequencing(sweep_store=sweep_store, events=events, metrics=metrics, interval=timedelta(milliseconds=1)),
            metrics,
        )
    finally:
        await events.aclose()
        await sweep_store.aclose()


async def count(url: str, query: str) -> int:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        return (await connection.execute(query.encode())).rowcount


async def test_without_an_endpoint_no_connection_is_opened(database_url: str) -> None:
    async with sequencing(database_url) as (duty, _):
        assert await duty.run_once() == 0
        assert await count(database_url, SESSIONS) == 0
        await execute(database_url, SUBSCRIBE, [])
        assert await duty.run_once() == 0
        assert await count(database_url, SESSIONS) == 1


async def test_events_are_counted_by_type_with_the_age_of_the_oldest(database_url: str) -> None:
    async with sequencing(database_url) as (duty, metrics):
        await execute(database_url, SUBSCRIBE, [])
        for _ in range(3):
            await execute(database_url, WRITE, [uuid4()])
        assert [await duty.run_once() for _ in range(2)] == [3, 0]
        counted = metrics.registry.get_sample_value("okane_webhook_events_sequenced_total", {"type": "payment.failed"})
        assert counted == 3
        assert metrics.registry.get_sample_value("okane_webhook_sequence_lag_seconds_count") == 1


async def test_changes_of_an_account_without_endpoints_any_more_still_leave_the_outbox(database_url: str) -> None:
    await execute(database_url, WRITE, [uuid4()])
    async with sequencing(database_url) as (duty, _):
        assert await duty.run_once() == 1


async def test_it_runs_until_it_is_stopped_and_outlives_an_error(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sequencing(database_url) as (duty, _):
        await execute(database_url, WRITE, [uuid4()])
        sequence, calls = WebhookEventStore.sequence, 0

        async def failing_once(store: WebhookEventStore) -> object:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise RuntimeError("a bug")
            return await sequence(store)

        monkeypatch.setattr(WebhookEventStore, "sequence", failing_once)
        stop = asyncio.Event()
        running = asyncio.create_task(duty.run(stop))
        async with asyncio.timeout(10):
            while await count(database_url, "SELECT FROM webhook_events") == 0:
                await asyncio.sleep(0.005)
        stop.set()
        await running
        assert calls > 1
