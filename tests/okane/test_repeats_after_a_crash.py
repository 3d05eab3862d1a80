"""A request that finds its work done is answered once a standby has that work, as if this request had done it. The log of
events is read as far as a standby has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psycopg
import pytest

from okane.operation import OperationStatus
from okane.payment import Status
from okane.store import PaymentStore, WebhookEventStore, schema
from okane.store.operations import OperationStore
from okane.store.partition_bounds import DAY
from okane.store.partition_conversion import convert
from okane.store.payment_methods import PaymentMethodStore
from okane.store.table_partitions import run_locked
from tests.okane.standbys import ReplicatedPostgres, replicated_postgres
from tests.okane.stored_operations import REFUND, asked, charged
from tests.okane.stored_payments import GRACE, LEASE, accept_one, execute, new
from tests.okane.test_payment_method_store import new as new_method


@pytest.fixture
async def replicated(tmp_path: Path) -> AsyncIterator[ReplicatedPostgres]:
    with replicated_postgres(tmp_path / "servers") as one:
        await schema.migrate(one.url)
        yield one


@pytest.mark.parametrize("partitioned", [False, True], ids=["one table", "table partitions"])
async def test_repeats_wait_for_a_standby(replicated: ReplicatedPostgres, partitioned: bool) -> None:
    url, (_, *standbys) = replicated.url, replicated.servers
    if partitioned:
        work = partial(convert, every=DAY, ahead=8 * DAY, now=datetime.now(UTC) - 7 * DAY)
        await run_locked(url, work, wait=schema.WAIT, report=lambda _line: None)
    payments = PaymentStore(url, actor="test", lease=LEASE, grace=GRACE)
    operations = OperationStore(url, actor="test", lease=LEASE, grace=GRACE)
    methods = PaymentMethodStore(url)
    events, other_events = WebhookEventStore(url), WebhookEventStore(url)
    await execute(url, "INSERT INTO webhook_accounts VALUES ('default')", [])
    canceled = (await accept_one(payments, new("canceled"))).payment.id
    await payments.cancel(canceled, account_id="default", actor="test")
    refund = (await operations.request(asked((await charged(payments, "charged")).id, REFUND))).operation
    await operations.cancel(refund.id, account_id="default", actor="test")
    method, _ = await methods.create(new_method())
    repeats: dict[str, Callable[[], Awaitable[object]]] = {
        "a payment": lambda: accept_one(payments, new("canceled")),
        "a payment that is looked for": lambda: payments.find(new("canceled")),
        "a cancellation": lambda: payments.cancel(canceled, account_id="default", actor="test"),
        "an operation": lambda: operations.request(asked(refund.payment_id, REFUND)),
        "the cancellation of an operation": lambda: operations.cancel(refund.id, account_id="default", actor="test"),
        "a method": lambda: methods.find("a", "m", b"f" * 32),
        "the feed": lambda: events.read(0, 10),
        "the events of an account": lambda: other_events.read_account("default", 0, 10),
    }
    await events.sequence()
    assert await events.read(0, 10)
    try:
        for repeat in repeats.values():
            await asyncio.wait_for(repeat(), 10)
        for standby in standbys:
            await asyncio.to_thread(standby.kill)
        # Reads that acknowledge nothing do not wait.
        assert (await payments.get(canceled, account_id="default")).status is Status.CANCELED
        assert (await operations.get(refund.id)).status is OperationStatus.CANCELED
        assert await methods.get("a", method.id) is not None
        last = await events.last_position()
        assert not await events.read(last, 10)  # nor do those that find nothing
        assert not (await other_events.read_account("default", last, 10)).rows
        waiting = {what: asyncio.ensure_future(repeat()) for what, repeat in repeats.items()}
        await asyncio.wait(waiting.values(), timeout=1)
        answered = [what for what, one in waiting.items() if one.done()]
        await asyncio.to_thread(standbys[0].start)
        await asyncio.wait_for(asyncio.gather(*waiting.values()), 30)
        assert answered == []
    finally:
        for store in (payments, operations, methods, events, other_events):
            await store.aclose()


async def test_without_standbys_a_repeat_writes_nothing(database_url: str, payments: PaymentStore) -> None:
    await accept_one(payments, new())
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:

        async def next_id() -> int:
            row = await (
                await connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
            ).fetchone()
            assert row is not None
            return int(row[0])

        before = await next_id()
        assert await payments.find(new()) is not None
        assert await next_id() == before
