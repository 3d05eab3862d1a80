from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from streams import (
    METRICS,
    Dead,
    Done,
    Draft,
    Inspector,
    Janitor,
    Message,
    Outcome,
    Producer,
    Retry,
    Stream,
    UnsafeServer,
    require_noeviction,
    server_facts,
)
from streams.prometheus import PrometheusMetrics
from tests.streams.conftest import Connected
from tests.streams.running import GROUP, Running, consumer, done, read_and_die
from tests.streams.servers import Server


async def test_a_stream_that_does_not_exist_yet_is_empty(client: Redis, stream: Stream) -> None:
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert (stats.depth, stats.pending, stats.delayed, stats.dead, stats.oldest_ms, stats.consumers) == (
        0, 0, 0, 0, None, ()
    )  # fmt: skip
    assert [lane.lane for lane in stats.lanes] == list(stream.lane_names)


async def test_a_stream_without_its_group_has_depth_and_no_consumers(client: Redis, stream: Stream) -> None:
    entry_id = await Producer(client, stream).publish(b"x", lane="low")
    stats = await Inspector(client, stream, group=GROUP).stats()
    low = stats.lanes[2]
    assert (low.length, low.depth, low.pending, low.consumers, low.last_id) == (1, 1, 0, 0, entry_id)
    assert low.oldest_ms == stats.oldest_ms == int(entry_id.split("-")[0])
    assert low.oldest_ms <= stats.now_ms


async def test_a_snapshot_tells_waiting_from_being_worked_on(client: Redis, stream: Stream) -> None:
    producer = Producer(client, stream)
    await producer.publish_many([Draft(b"1"), Draft(b"2")])
    both, release = asyncio.Event(), asyncio.Event()
    entered = 0

    async def slow(message: Message) -> Outcome:
        nonlocal entered
        entered += 1
        if entered == 2:
            both.set()
        await release.wait()
        return Done()

    async with Running(consumer(client, stream, slow, concurrency=2)):
        await both.wait()
        await producer.publish_many([Draft(b"3")])
        stats = await Inspector(client, stream, group=GROUP).stats()
        assert (stats.lanes[0].length, stats.pending, stats.depth) == (3, 2, 1)
        [busy] = [each for each in stats.consumers if each.pending]
        assert (busy.name, busy.lane, busy.pending) == ("c1", "critical", 2)
        assert 0 <= busy.idle_ms < 60_000
        release.set()


async def test_a_consumer_that_finds_nothing_shows_that_it_lives(client: Redis, stream: Stream) -> None:
    """On every server: before Redis 7.2 a read that finds nothing does not reset the idle time."""
    idler = consumer(client, stream, done)
    await idler.run_once()
    await asyncio.sleep(0.3)
    await idler.run_once()
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert {each.lane for each in stats.consumers} == set(stream.lane_names)
    assert all(each.idle_ms < 250 for each in stats.consumers)


async def test_a_sign_of_life_is_no_delivery(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish(b"x", lane="low")
    await read_and_die(client, stream, name="c1")
    holder = consumer(client, stream, done)
    for _ in range(3):
        await holder.run_once()
    [pending] = await client.xpending_range(stream.lane_key("low"), GROUP, "-", "+", 10)
    assert pending["times_delivered"] == 1


async def test_server_facts_tell_kind_version_and_clock(client: Redis) -> None:
    facts = await server_facts(client)
    assert facts.kind in {"redis", "valkey"}
    assert facts.supported
    assert facts.noeviction
    assert facts.role == "master"
    assert abs(facts.now - datetime.now(UTC)) < timedelta(minutes=1)
    assert await require_noeviction(client) is not None


async def test_a_server_that_evicts_is_refused_with_what_to_do(
    own_server: Callable[..., Server], connected: Connected
) -> None:
    client = connected(own_server("--maxmemory-policy", "allkeys-lru", "--appendonly", "yes"))
    with pytest.raises(UnsafeServer, match=r"allkeys-lru.*CONFIG SET maxmemory-policy noeviction"):
        await require_noeviction(client)
    assert (await server_facts(client)).appendonly


async def test_the_janitor_removes_idle_consumers_that_hold_nothing(client: Redis, stream: Stream) -> None:
    producer = Producer(client, stream)
    await producer.publish(b"x", lane="low")
    await read_and_die(client, stream, name="holds")
    await producer.publish_many([Draft(b"x", lane) for lane in stream.lane_names])
    await consumer(client, stream, done, name="empty").run_once()
    assert await Janitor(client, stream, group=GROUP, idle=timedelta(hours=1)).run_once() == 0
    # Before Redis 7.2 a consumer exists on a lane once it has got something from it, or has found them all empty.
    assert await Janitor(client, stream, group=GROUP, idle=timedelta(0)).run_once() in {3, 5}
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert [(each.name, each.lane, each.pending) for each in stats.consumers] == [("holds", "low", 1)]


async def test_the_janitor_has_nothing_to_do_without_a_group(client: Redis, stream: Stream) -> None:
    assert await Janitor(client, stream, group=GROUP).run_once() == 0


async def test_gauges_follow_the_snapshot_and_forget_consumers_that_are_gone(client: Redis, stream: Stream) -> None:
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(prefix="okane", registry=registry)
    inspector = Inspector(client, stream, group=GROUP)

    async def handler(message: Message) -> Outcome:
        return Retry("r", after=timedelta(hours=1)) if message.body == b"later" else Dead("d")

    await Producer(client, stream).publish_many([Draft(b"later"), Draft(b"dead"), Draft(b"waits", "low")])
    await consumer(client, stream, handler, concurrency=2).run_once()
    metrics.show(await inspector.stats())
    names = {"stream": stream.name}
    low, critical = names | {"lane": "low"}, names | {"lane": "critical"}
    idle = "okane_stream_group_consumer_idle_seconds", critical | {"group": GROUP, "consumer": "c1"}
    assert registry.get_sample_value("okane_delayed_messages", names) == 1
    assert registry.get_sample_value("okane_dead_letter_messages", names) == 1
    assert registry.get_sample_value("okane_stream_length", low) == 1
    assert registry.get_sample_value(*idle) is not None
    await Janitor(client, stream, group=GROUP, idle=timedelta(0)).run_once()
    metrics.show(await inspector.stats())
    assert registry.get_sample_value(*idle) is None
    assert registry.get_sample_value("okane_stream_group_consumers", low | {"group": GROUP}) == 0


async def test_counters_and_histograms_tell_what_happened(client: Redis, stream: Stream) -> None:
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry=registry).for_stream(stream.name)

    async def handler(message: Message) -> Outcome:
        if message.body == b"bad":
            raise ValueError
        return Done()

    await Producer(client, stream, metrics=metrics).publish_many([Draft(b"1"), Draft(b"2"), Draft(b"bad")])
    await consumer(client, stream, handler, metrics=metrics).run_once()
    lane = {"stream": stream.name, "lane": "critical"}
    assert registry.get_sample_value("streams_messages_published_total", lane) == 3
    assert registry.get_sample_value("streams_messages_settled_total", lane | {"outcome": "done"}) == 2
    assert registry.get_sample_value("streams_messages_settled_total", lane | {"outcome": "retry"}) == 1
    assert registry.get_sample_value("streams_handler_errors_total", lane) == 1
    assert registry.get_sample_value("streams_message_wait_seconds_count", lane) == 3
    waited = registry.get_sample_value("streams_message_wait_seconds_sum", lane)
    assert waited is not None
    assert 0 <= waited < 30
    assert registry.get_sample_value("streams_handler_seconds_count", lane) == 3
    for step in ("publish", "read", "settle"):
        labels = {"stream": stream.name, "step": step}
        assert registry.get_sample_value("streams_batch_size_sum", labels) == 3
    for step in ("publish", "settle"):
        labels = {"stream": stream.name, "step": step}
        assert registry.get_sample_value("streams_round_trip_seconds_count", labels) == 1
    assert registry.get_sample_value("streams_in_flight_messages", {"stream": stream.name}) == 0
    assert registry.get_sample_value("streams_leases_lost_total", {"stream": stream.name}) == 0


def test_every_metric_has_a_help_text() -> None:
    for name, spec in METRICS.items():
        assert spec.help, name
        assert (spec.kind == "histogram") == bool(spec.buckets), name
