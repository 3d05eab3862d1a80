"""Backpressure: when nothing new is taken, and what is answered all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import cast

import pytest

from okane.errors import StoreUnavailable
from okane.intake.load_shedding import LoadShedding
from okane.payment import Status
from okane.store import Overview
from tests.okane.api_requests import get, post, rows, settle
from tests.okane.served_api import Api, serve_api

OLD = '{"amount": 440, "idempotency_key": "old"}'
NEW = '{"amount": 440, "idempotency_key": "new"}'


@pytest.fixture
async def load_shedding(database_url: str) -> AsyncIterator[LoadShedding]:
    overview = Overview(database_url)
    yield LoadShedding(overview, max_due_age=timedelta(seconds=60))
    await overview.aclose()


@pytest.fixture
async def api(database_url: str, redis_url: str, load_shedding: LoadShedding) -> AsyncIterator[Api]:
    async for one in serve_api(database_url, redis_url, load_shedding=load_shedding):
        yield one


async def make_older(api: Api) -> None:
    await api.store._rare.fetch("UPDATE payments SET created_at = now() - interval '61 seconds'")


async def test_while_a_payment_waits_for_too_long_no_new_one_is_taken(api: Api, load_shedding: LoadShedding) -> None:
    _, old = await post(api, "/payments", OLD)
    payment_id = old["payment"]["id"]
    assert await load_shedding.run_once() == 0
    await make_older(api)
    assert await load_shedding.run_once() == 1
    for headers in ({}, {"Content-Encoding": "identity"}):  # on both paths
        response, said = await post(api, "/payments", NEW, **headers)
        assert (response.status, said["code"], said["retryable"]) == (503, "overloaded", True)
        assert int(response.headers["Retry-After"]) > 0
    assert await rows(api) == 1
    assert (await get(api, f"/payments/{payment_id}"))[0].status == 200
    await settle(api, payment_id, Status.SUCCESS)
    assert await load_shedding.run_once() == 0
    assert (await post(api, "/payments", NEW))[0].status == 202


async def test_the_repeat_of_an_earlier_request_is_answered_as_ever(api: Api, load_shedding: LoadShedding) -> None:
    await post(api, "/payments", OLD)
    await make_older(api)
    await load_shedding.run_once()
    again = await asyncio.gather(*(post(api, "/payments", OLD) for _ in range(20)))
    assert {response.status for response, _ in again} == {200}
    assert all(response.headers["Idempotent-Replayed"] == "true" for response, _ in again)
    response, said = await post(api, "/payments", OLD.replace("440", "441"))
    assert (response.status, said["code"]) == (422, "idempotency_key_reused")


async def test_it_is_looked_at_again_and_again(
    api: Api, load_shedding: LoadShedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("okane.intake.load_shedding.CHECK_INTERVAL_S", 0.01)
    stop = asyncio.Event()
    running = asyncio.create_task(load_shedding.run(stop))
    await post(api, "/payments", OLD)
    await make_older(api)
    async with asyncio.timeout(30):
        while not load_shedding.is_shedding:
            await asyncio.sleep(0.01)
    stop.set()
    await running


async def test_an_absent_database_changes_nothing() -> None:
    class Away:
        async def oldest_due(self) -> timedelta:
            raise StoreUnavailable("away")

    load_shedding = LoadShedding(cast("Overview", Away()), max_due_age=timedelta(seconds=1))
    for load_shedding.is_shedding in (False, True):
        assert await load_shedding.run_once() == int(load_shedding.is_shedding)
