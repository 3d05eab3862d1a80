"""A dispatcher under load: Postgres away, many queues with due rows, and the burst of one account."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from aiohttp import web

from okane.local.postgres import PostgresServer
from okane.store.webhook_queues import LeaseRules
from okane.webhooks.feed import MOST_READ
from okane.webhooks.repeats import QUEUES_AT_ONCE
from tests.okane.dispatching import DispatchDesk, arrived, change, dispatch_desk, payments, retry_late, serves, until
from tests.okane.webhook_receiver import Received, receiving
from tests.okane.webhook_rows import fetch


@pytest.fixture(name="desk")
async def make_desk(database_url: str) -> AsyncIterator[DispatchDesk]:
    async with receiving() as receiver, dispatch_desk(database_url, receiver) as desk:
        yield desk


async def test_results_wait_for_postgres_and_nothing_is_sent_twice(
    private_postgres: PostgresServer,
) -> None:
    async with receiving() as receiver, dispatch_desk(private_postgres.url, receiver) as desk:
        await desk.endpoint(max_in_flight=4)
        running = await desk.dispatch(rules=LeaseRules(lease=timedelta(seconds=60)))  # longer than any restart
        ids = payments(100)
        await change(desk.url, ids)
        blocked = asyncio.Event()

        async def answer(_one: Received) -> web.Response:
            if len(receiver.received) > 20:
                await blocked.wait()
            return web.Response()

        receiver.answers = answer
        await receiver.until(24)
        await asyncio.to_thread(private_postgres.kill)
        blocked.set()
        await receiver.until(60)  # from memory, within the lease
        assert not running.dispatcher.results.is_empty
        await asyncio.to_thread(private_postgres.start)
        await receiver.until(100)
        await desk.at_rest()
        assert len(receiver.received) == 100


async def test_many_queues_with_due_rows_take_turns(desk: DispatchDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    retry_late(monkeypatch)
    desk.receiver.answers = 500
    for number in range(QUEUES_AT_ONCE + 8):
        await desk.endpoint(f"/{number}", account_id=f"account {number}")
        await change(desk.url, payments(2), account_id=f"account {number}")
    running = await desk.dispatch()  # only now: the first retry is due 2.5 s after the first failure
    count = 2 * (QUEUES_AT_ONCE + 8)
    await until(lambda: desk.has_rows(count))
    await running.end()
    desk.receiver.answers = 200
    await fetch(desk.url, "UPDATE webhook_deliveries SET next_at = now()")
    await desk.dispatch()
    await desk.receiver.until(2 * count)
    await desk.at_rest()
    assert len(desk.receiver.received) == 2 * count


async def test_the_burst_of_one_account_delays_no_other(desk: DispatchDesk) -> None:
    await desk.endpoint("/burst", account_id="loud", max_in_flight=1, rate_limit=20)
    await desk.endpoint("/hook")
    running = await desk.dispatch()
    await until(lambda: serves(running, 2))
    await change(desk.url, payments(MOST_READ + 100), account_id="loud")
    await change(desk.url, payments(10))
    await until(lambda: arrived(desk, "/hook", 10))
    assert not await arrived(desk, "/burst", 1000)
    [loud] = running.dispatcher.queues.of_account("loud")
    assert loud in running.dispatcher.queues.behind
