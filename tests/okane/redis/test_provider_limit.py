"""The rate limit of a provider: shared by workers through Redis, by their number without it, and served in turn."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from okane.app.provider_gates import ProviderLimits
from okane.metrics import OkaneMetrics
from okane.rate import Rate
from okane.redis import provider_limit
from okane.redis.buckets import TokenBuckets
from okane.redis.provider_limit import ProviderLimit
from okane.worker.provider_gate import ProviderGates
from streams import Stream
from tests.streams.conftest import Connected
from tests.streams.servers import Server


def limit_of(client: Redis, stream: Stream, rate: str, *, workers: int = 1) -> ProviderLimit:
    buckets = TokenBuckets(client, stream)
    return ProviderLimit("stripe", Rate.parse(rate), buckets=buckets, workers=lambda: workers, roll=lambda: 0.0)


async def permitted(limit: ProviderLimit, *, for_s: float, at_once: int = 10) -> int:
    """Return how many permits several callers get in this time, each asking again and again."""
    until_s, count = time.monotonic() + for_s, 0

    async def ask() -> None:
        nonlocal count
        while time.monotonic() < until_s:
            if await limit.permit() is None and time.monotonic() < until_s:
                count += 1

    await asyncio.gather(*(ask() for _ in range(at_once)))
    return count


async def test_workers_share_the_rate(client: Redis, stream: Stream) -> None:
    several = [limit_of(client, stream, "100/s", workers=3) for _ in range(3)]
    counts = await asyncio.gather(*(permitted(each, for_s=1.0) for each in several))
    assert 40 <= sum(counts) <= 100 + 10  # the burst: what passes in 100 ms


async def test_no_window_of_a_second_has_twice_the_rate(client: Redis, stream: Stream) -> None:
    limit = limit_of(client, stream, "50/s")
    await asyncio.sleep(0.2)  # an idle time fills the bucket, but only with its burst
    assert await permitted(limit, for_s=1.0) <= 50 + 5


async def test_a_burst_that_was_configured_counts(client: Redis, stream: Stream) -> None:
    limit = limit_of(client, stream, "1/h burst 3")
    assert [await limit.permit() for _ in range(3)] == [None] * 3


async def test_the_rate_limits_of_providers_are_apart(client: Redis, stream: Stream) -> None:
    buckets = TokenBuckets(client, stream)
    one, other = (
        ProviderLimit(name, Rate.parse("1/h burst 2"), buckets=buckets, workers=lambda: 1)
        for name in ("stripe", "payu")
    )
    assert await one.permit() is None
    assert await other.permit() is None


async def test_without_a_permit_within_its_patience_a_call_is_put_off(
    client: Redis, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_limit, "PATIENCE_S", 0.1)
    limit = limit_of(client, stream, "1/h burst 2")
    assert [await limit.permit(), await limit.permit()] == [None, None]
    started_s = time.monotonic()
    wait = await limit.permit()
    assert wait is not None
    assert wait > timedelta(0)
    assert time.monotonic() - started_s >= 0.099  # a timer of the loop may be early by its resolution


async def test_a_long_queue_is_put_off_at_once_and_behind_itself(client: Redis, stream: Stream) -> None:
    limit = limit_of(client, stream, "1/h burst 1")
    assert await limit.permit() is None
    first = asyncio.create_task(limit.permit())
    await asyncio.sleep(0)
    started_s = time.monotonic()
    wait = await limit.permit()  # the one before it alone would take an hour
    assert wait == timedelta(hours=1)
    assert time.monotonic() - started_s < 0.5
    await first
    await limit.aclose()


async def test_those_that_wait_are_served_in_turn(client: Redis, stream: Stream) -> None:
    limit = limit_of(client, stream, "50/s burst 1")
    served: list[int] = []

    async def ask(number: int) -> None:
        assert await limit.permit() is None
        served.append(number)

    await asyncio.gather(*(ask(number) for number in range(8)))
    assert served == list(range(8))


async def test_without_redis_a_worker_has_its_share(own_server: Callable[..., Server], connected: Connected) -> None:
    server = own_server()
    limit = limit_of(connected(server), Stream("test:share"), "100/s", workers=4)
    assert await limit.permit() is None
    server.stop()
    counted = await permitted(limit, for_s=1.0)
    assert 8 <= counted <= 25 + 3


async def test_redis_is_used_again_when_it_is_back(
    own_server: Callable[..., Server], connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_limit, "AWAY_S", 0.0)
    server = own_server()
    limit = limit_of(connected(server), Stream("test:back"), "1/h burst 2")
    server.stop()
    assert await limit.permit() is None, "its share"
    server.start()
    assert [await limit.permit(), await limit.permit()] == [None, None], "the bucket in Redis"


async def test_a_cancelled_caller_holds_up_no_other(client: Redis, stream: Stream) -> None:
    limit = limit_of(client, stream, "20/s burst 1")
    assert await limit.permit() is None
    cancelled, other = asyncio.create_task(limit.permit()), asyncio.create_task(limit.permit())
    await asyncio.sleep(0)
    cancelled.cancel()
    assert await other is None


async def test_the_gates_of_a_worker_take_the_new_rates(client: Redis, stream: Stream) -> None:
    gates = ProviderGates(("stripe", "payu"), metrics=OkaneMetrics(CollectorRegistry()))
    limits = ProviderLimits(gates, buckets=TokenBuckets(client, stream), workers=lambda: 1)
    stripe, payu = gates.by_name.values()
    rooms = []
    for rates in ({}, {"stripe": "20/s"}, {"stripe": "40/s", "payu": "20/s"}, {"payu": "20/s"}):
        limits.set({name: Rate.parse(rate) for name, rate in rates.items()})
        rooms.append((stripe.room(), payu.room()))
    assert rooms == [(math.inf, math.inf), (10, math.inf), (20, 10), (math.inf, 10)]
    assert await payu.permit() is None
    await limits.aclose()
