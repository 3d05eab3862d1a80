"""Whole payments under too much of something: no Redis, more waiting than Redis takes, a lane whose provider is slow."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import psycopg

from okane.lanes import payments_stream
from okane.local.redis_server import RedisServer
from streams import Inspector, connect
from tests.flow.system import System

ALWAYS = ("--unavailable", "0", "--decline", "0")
LANES = ("critical", "default", "low")


async def test_payments_settle_while_redis_is_down(system_own_redis: tuple[System, RedisServer]) -> None:
    system, redis = system_own_redis
    await system.start("w1", "w2", provider=("--unavailable", "20", "--decline", "10", "--latency-ms", "5"))
    before = await system.pay(50, prefix="before")
    await asyncio.to_thread(redis.kill)
    during = await system.pay(300, prefix="during")
    counts = await system.settled([*before, *during], within_s=60)
    assert set(counts) == {"success", "failed_final"}
    runs = [
        await system.metric(name, f'okane_direct_runs_total{{lane="{lane}"}}')
        for name in ("w1", "w2")
        for lane in LANES
    ]
    assert sum(runs) >= 300
    redis.start()
    after = await system.pay(50, prefix="after")
    await system.settled(after)
    await system.check([*before, *during, *after])


async def test_payments_settle_while_redis_is_full(system_own_redis: tuple[System, RedisServer]) -> None:
    """At maxmemory nothing can be added; what is there can still be taken out."""
    system, redis = system_own_redis
    await system.start("w1", provider=ALWAYS)
    before = await system.pay(20, prefix="before")
    async with connect(redis.url) as client:
        await client.config_set("maxmemory", 1)
        during = await system.pay(100, prefix="during")
        counts = await system.settled([*before, *during], within_s=60)
        assert counts == Counter(success=120)
        await client.config_set("maxmemory", 0)
    await system.check([*before, *during])


async def test_a_backlog_beyond_what_redis_takes_waits_in_postgres_and_drains(system: System, redis_url: str) -> None:
    system.env["OKANE_MAX_STREAM_LENGTH"] = "50"
    await system.start(provider=ALWAYS)
    ids = await system.pay(1_000)
    async with connect(redis_url) as client:
        stats = await Inspector(client, payments_stream(system.stream), group="workers").stats()
    assert {lane.length for lane in stats.lanes} == {50}
    await asyncio.gather(system.start_worker("w1"), system.start_worker("w2"))
    assert await system.settled(ids, within_s=90) == Counter(success=1_000)
    await system.check(ids)


async def test_a_slow_provider_in_one_lane_does_not_starve_the_others(system: System, database_url: str) -> None:
    """Every critical charge runs into the time-out, with fifteen times the payments that fit in hand."""
    system.env["WORKER_COUNT"] = "20"
    await system.start(provider=(*ALWAYS, "--magic-amounts"))
    slow = await asyncio.gather(*(system.accepted(f"slow-{number}", 15_005) for number in range(300)))
    await system.start_worker("w1")
    quick = await system.pay(60, prefix="quick", amounts=(440, 5_100))
    assert await system.settled(quick) == Counter(success=60)
    assert await claimed_before(database_url, slow, settled=quick) < 280


async def claimed_before(database_url: str, ids: Sequence[str], *, settled: Sequence[str]) -> int:
    """Return how many of `ids` had been claimed when the last of `settled` was, by the events in the database."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute(
            "SELECT count(DISTINCT payment_id) FROM payment_events WHERE payment_id = ANY(%s::uuid[]) AND at <"
            " (SELECT max(at) FROM payment_events WHERE payment_id = ANY(%s::uuid[]) AND status = 'success')",
            (list(ids), list(settled)),
        )
        row = await cursor.fetchone()
    assert row is not None
    return int(row[0])
