"""Whole payments while processes and servers die: nothing is lost or charged twice, and nothing needs a manual restart."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

import pytest

from okane.lanes import payments_stream
from okane.local.postgres import PostgresServer
from okane.local.redis_server import RedisServer
from streams import connect
from tests.flow.system import System

ALWAYS = ("--unavailable", "0", "--decline", "0")


async def in_flight(system: System, name: str) -> None:
    """Wait until a worker holds claims."""
    async with asyncio.timeout(10):
        while await system.metric(name, "okane_payments_in_flight") == 0:
            await asyncio.sleep(0.01)


async def test_a_worker_killed_in_mid_charge_costs_nothing(system: System) -> None:
    await system.start("w1", provider=(*ALWAYS, "--latency-ms", "400"))
    paying = asyncio.ensure_future(system.pay(150, pause_s=0.02))
    await in_flight(system, "w1")
    await system.kill("w1")
    ids = await paying
    statuses = Counter([(await system.payment(payment_id))["status"] for payment_id in ids])
    assert statuses["processing"] > 0
    await system.start_worker("w2")
    assert await system.settled(ids) == Counter(success=150)
    await system.check(ids)
    assert await system.metric("w2", 'okane_claims_total{result="granted"}') > 0


async def test_a_worker_stopped_beyond_its_lease_cannot_settle_or_charge_twice(system: System) -> None:
    await system.start("w1", "w2", provider=(*ALWAYS, "--latency-ms", "300"))
    paying = asyncio.ensure_future(system.pay(150, pause_s=0.02))  # long enough to see one in flight on a busy machine
    await in_flight(system, "w1")
    system.signal("w1", signal.SIGSTOP)
    ids = await paying
    assert await system.settled(ids) == Counter(success=150)
    system.signal("w1", signal.SIGCONT)
    more = await system.pay(10, prefix="more")  # it works again
    assert await system.settled(more) == Counter(success=10)
    await system.check([*ids, *more])


async def test_an_emptied_redis_loses_no_payment(system_own_redis: tuple[System, RedisServer]) -> None:
    system, redis = system_own_redis
    await system.start("w1", "w2", provider=(*ALWAYS, "--latency-ms", "20"))
    paying = asyncio.ensure_future(system.pay(200, pause_s=0.01))
    async with connect(redis.url) as client:
        for _ in range(3):
            await asyncio.sleep(0.5)
            await client.flushall()
    ids = await paying
    assert await system.settled(ids) == Counter(success=200)
    await system.check(ids)


async def test_a_lost_consumer_group_is_made_again(system: System, redis_url: str) -> None:
    await system.start("w1", provider=ALWAYS)
    await system.settled(await system.pay(3, prefix="first"))  # the group is there
    stream = payments_stream(system.stream)
    async with connect(redis_url) as client:
        for key in stream.lane_keys:
            await client.xgroup_destroy(key, "workers")
        ids = await system.pay(30)
        assert await system.settled(ids) == Counter(success=30)
    await system.check(ids)
    assert await system.metric("w1", f'okane_groups_recreated_total{{stream="{system.stream}"}}') >= 1


async def test_payments_are_accepted_while_redis_is_down(system_own_redis: tuple[System, RedisServer]) -> None:
    system, redis = system_own_redis
    await system.start("w1", provider=ALWAYS)
    before = await system.pay(20, prefix="before")
    await asyncio.to_thread(redis.kill)
    status, body = await system.post("during")
    assert (status, body["created"], body["enqueued"]) == (202, True, False)
    status, body = await system.post("during")  # the repeat that the Go ancestor never enqueued
    assert (status, body["created"]) == (200, False)
    during = await system.pay(20, prefix="during")
    redis.start()
    ids = {*before, *during, body["payment"]["id"]}
    assert await system.settled(ids) == Counter(success=len(ids))
    await system.check(ids)


async def test_a_restarted_postgres_interrupts_and_loses_nothing(
    system_own_postgres: tuple[System, PostgresServer],
) -> None:
    system, postgres = system_own_postgres
    await system.start("w1", "w2", provider=(*ALWAYS, "--latency-ms", "20"))
    paying = asyncio.ensure_future(system.pay(150, pause_s=0.02))
    await asyncio.sleep(1)
    await asyncio.to_thread(postgres.kill)
    status, problem = await system.post("down")
    assert (status, problem["code"], problem["retryable"]) == (503, "store_unavailable", True)
    await asyncio.sleep(0.5)
    postgres.start()
    ids = await paying
    assert await system.settled(ids, within_s=60) == Counter(success=150)
    await system.check(ids)


@pytest.mark.parametrize("rounds", [3])
async def test_workers_killed_again_and_again_leave_everything_settled(system: System, rounds: int) -> None:
    await system.start("w1", "w2", provider=("--latency-ms", "50", "--seed", "5"))
    paying = asyncio.ensure_future(system.pay(200, pause_s=0.02))
    for number in range(rounds):
        await asyncio.sleep(0.6)
        name = ("w1", "w2")[number % 2]
        await system.kill(name)
        await system.start_worker(name)
    ids = await paying
    assert set(await system.settled(ids, within_s=60)) <= {"success", "failed_final"}
    await system.check(ids)
