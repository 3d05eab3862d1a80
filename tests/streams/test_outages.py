from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from streams import (
    Dead,
    DeadLetters,
    Delayed,
    Done,
    Draft,
    Inspector,
    Janitor,
    Message,
    Metrics,
    Outcome,
    Producer,
    Retry,
    Stream,
    StreamError,
    StreamUnavailable,
)
from tests.streams.conftest import Connected, until
from tests.streams.running import GROUP, Running, consumer, done
from tests.streams.servers import Proxy, Server
from tests.streams.waiting import RecordingHandler
from torture.network.link_faults import LoseReplies


class Recreated(Metrics):
    def __init__(self) -> None:
        self.times = 0
        self.happened = asyncio.Event()

    def group_recreated(self) -> None:
        self.times += 1
        self.happened.set()


async def test_a_restarted_server_is_found_again_and_logged_once(
    own_server: Callable[..., Server], connected: Connected, stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_server("--appendonly", "yes", "--appendfsync", "always")
    client = connected(server)
    producer, handler = Producer(client, stream), RecordingHandler()
    async with Running(consumer(client, stream, handler)):
        await producer.publish(b"before")
        await handler.wait_for(b"before")
        server.kill()

        async def noticed() -> bool:
            return "cannot use Redis now" in caplog.text

        await until(noticed)
        server.start()
        await until(lambda: _published(producer, b"after"))
        await handler.wait_for(b"after")
    messages = [record.getMessage() for record in caplog.records]
    assert sum(message.startswith("consumer c1: cannot use Redis now") for message in messages) == 1
    assert sum(message.startswith("consumer c1: Redis works again") for message in messages) == 1
    assert (await Inspector(client, stream, group=GROUP).stats()).pending == 0


async def _published(producer: Producer, body: bytes) -> bool:
    try:
        await producer.publish(body)
    except StreamUnavailable:
        return False
    return True


async def test_a_lost_group_is_created_again_and_nothing_is_skipped(
    own_server: Callable[..., Server], connected: Connected, stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    client = connected(own_server())
    producer, handler, recreated = Producer(client, stream), RecordingHandler(), Recreated()
    async with Running(consumer(client, stream, handler, metrics=recreated)):
        await producer.publish(b"before")
        await handler.wait_for(b"before")
        await client.flushall()
        await producer.publish(b"after")
        await handler.wait_for(b"after")
        assert recreated.times == 1
    assert "had vanished" in caplog.text


async def test_a_group_destroyed_under_load_is_created_again_and_no_handler_runs_twice_at_once(
    client: Redis, stream: Stream
) -> None:
    producer, recreated = Producer(client, stream), Recreated()
    entered, release, later = asyncio.Event(), asyncio.Event(), asyncio.Event()
    seen: list[bytes] = []

    async def handler(message: Message) -> Outcome:
        seen.append(message.body)
        if message.body == b"slow":
            entered.set()
            await release.wait()
        else:
            later.set()
        return Done()

    async with Running(consumer(client, stream, handler, metrics=recreated)):
        await producer.publish(b"slow")
        await entered.wait()
        await client.xgroup_destroy(stream.lane_key("critical"), GROUP)
        await recreated.happened.wait()
        await producer.publish(b"later")
        await later.wait()
        assert seen == [b"slow", b"later"]
        release.set()
    assert (await Inspector(client, stream, group=GROUP).stats()).pending == 0


@pytest.mark.parametrize("outcome", [Done(), Retry("r", after=timedelta(0)), Dead("d")])
async def test_acking_after_everything_was_flushed_keeps_what_has_to_live_on(
    own_server: Callable[..., Server], connected: Connected, stream: Stream, outcome: Outcome
) -> None:
    client = connected(own_server())
    await Producer(client, stream).publish(b"x")

    async def handler(message: Message) -> Outcome:
        await client.flushall()
        return outcome

    assert await consumer(client, stream, handler).run_once() == 1
    assert await Delayed(client, stream).run_once() == int(isinstance(outcome, Retry))
    assert await DeadLetters(client, stream).count() == int(isinstance(outcome, Dead))


async def test_a_full_server_can_still_be_drained_and_loses_no_retry(
    own_server: Callable[..., Server], connected: Connected, stream: Stream
) -> None:
    """At maxmemory XADD is refused, but starting, reading, acking, retrying, burying and promoting go on."""
    client = connected(own_server("--maxmemory-policy", "noeviction"))
    await Producer(client, stream).publish_many([Draft(b"done"), Draft(b"retry"), Draft(b"dead")])
    await client.config_set("maxmemory", "1")
    with pytest.raises(StreamUnavailable, match="OOM"):
        await Producer(client, stream).publish(b"more")
    assert await consumer(client, stream, _by_body).run_once() == 3
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert (stats.depth, stats.pending, stats.delayed, stats.dead) == (0, 0, 1, 1)
    assert await Delayed(client, stream).run_once() == 1
    assert await DeadLetters(client, stream).replay() == 1
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert (stats.depth, stats.delayed, stats.dead) == (2, 0, 0)


async def _by_body(message: Message) -> Outcome:
    outcomes: dict[bytes, Outcome] = {b"done": Done(), b"retry": Retry("r", after=timedelta(0)), b"dead": Dead("d")}
    return outcomes[message.body]


async def test_an_ack_whose_reply_is_lost_is_repeated_and_makes_one_retry(
    own_server: Callable[..., Server], connected: Connected, stream: Stream
) -> None:
    server = own_server()
    direct = connected(server)
    async with Proxy(server) as proxy:
        client = connected(proxy)
        producer = Producer(client, stream)
        await producer.publish(b"makes the server know the scripts")
        assert await consumer(client, stream, done).run_once() == 1
        await producer.publish(b"x")

        async def handler(message: Message) -> Outcome:
            proxy.strike(LoseReplies())
            return Retry("r", after=timedelta(0))

        consuming = asyncio.create_task(consumer(client, stream, handler).run_once())
        await proxy.lost()
        proxy.heal()
        assert await consuming == 1
        assert await Delayed(direct, stream).count() == 1
    assert (await Inspector(direct, stream, group=GROUP).stats()).pending == 0


async def test_messages_whose_delivery_was_lost_on_the_way_come_again_before_the_lease_is_over(
    own_server: Callable[..., Server], connected: Connected, stream: Stream
) -> None:
    server = own_server()
    direct = connected(server)
    producer, handler = Producer(direct, stream), RecordingHandler()
    async with Proxy(server) as proxy:
        client = connected(proxy)
        async with Running(consumer(client, stream, handler, lease=timedelta(hours=1))):
            await producer.publish(b"first")
            await handler.wait_for(b"first")

            async def acked() -> bool:
                return (await Inspector(direct, stream, group=GROUP).stats()).pending == 0

            await until(acked)
            proxy.strike(LoseReplies())
            await producer.publish(b"lost on the way")
            await proxy.lost()
            proxy.heal()
            await handler.wait_for(b"lost on the way")


async def test_a_consumer_that_stops_while_the_server_is_away_ends_in_time_and_loses_nothing(
    own_server: Callable[..., Server], connected: Connected, stream: Stream
) -> None:
    server = own_server("--appendonly", "yes", "--appendfsync", "always")
    client = connected(server)
    await Producer(client, stream).publish(b"x")
    acking, stop = asyncio.Event(), asyncio.Event()

    async def handler(message: Message) -> Outcome:
        server.kill()
        acking.set()
        return Done()

    worker = consumer(client, stream, handler, drain=timedelta(milliseconds=100))
    running = asyncio.create_task(worker.run(stop))
    await acking.wait()
    stop.set()
    async with asyncio.timeout(10):
        await running
    assert worker.in_flight == 0
    server.start()
    assert (await Inspector(client, stream, group=GROUP).stats()).pending == 1


async def test_a_master_that_becomes_a_replica_is_waited_out(
    own_server: Callable[..., Server], connected: Connected, stream: Stream
) -> None:
    server, master = own_server(), own_server()
    client = connected(server)
    producer, handler = Producer(client, stream), RecordingHandler()
    delayed_stop = asyncio.Event()
    delayed = asyncio.create_task(Delayed(client, stream, poll=timedelta(milliseconds=10)).run(delayed_stop))
    async with Running(consumer(client, stream, handler)):
        await producer.publish(b"before")
        await handler.wait_for(b"before")
        await client.replicaof("127.0.0.1", master.port)

        async def refused() -> bool:
            return not await _published(producer, b"refused")

        await until(refused)
        await until(lambda: _promoted(client))
        await until(lambda: _published(producer, b"after"))
        await handler.wait_for(b"after")
    delayed_stop.set()
    await delayed


async def _promoted(client: Redis) -> bool:
    try:
        await client.replicaof("NO", "ONE")
    except RedisConnectionError:  # a server that changes its role closes connections
        return False
    return True


async def test_the_loops_outlive_a_server_that_is_away(
    own_server: Callable[..., Server], connected: Connected, stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streams")
    server = own_server()
    client = connected(server)
    stop = asyncio.Event()
    every = timedelta(milliseconds=10)
    janitor = Janitor(client, stream, group=GROUP, every=every)
    loops = [asyncio.create_task(loop.run(stop)) for loop in (Delayed(client, stream, poll=every), janitor)]
    server.kill()

    async def both(text: str) -> bool:
        return caplog.text.count(text) == 2

    await until(lambda: both("cannot use Redis now"))
    server.start()
    await until(lambda: both("Redis works again"))
    stop.set()
    await asyncio.gather(*loops)


async def test_one_calls_for_errors_are_ours(
    own_server: Callable[..., Server], connected: Connected, stream: Stream
) -> None:
    server = own_server()
    client = connected(server)
    await client.set(stream.lane_key("critical"), "not a stream")
    with pytest.raises(StreamError, match="WRONGTYPE"):
        await consumer(client, stream, done).run_once()
    with pytest.raises(StreamError, match="WRONGTYPE"):
        await Inspector(client, stream, group=GROUP).stats()
    server.kill()
    for asking in (
        consumer(client, stream, done).run_once,
        Inspector(client, stream, group=GROUP).stats,
        Delayed(client, stream).run_once,
        Delayed(client, stream).count,
        DeadLetters(client, stream).count,
        Janitor(client, stream, group=GROUP).run_once,
    ):
        with pytest.raises(StreamUnavailable):
            await asking()


async def test_one_broken_lane_does_not_hold_back_what_the_others_gave(client: Redis, stream: Stream) -> None:
    producer, worker = Producer(client, stream), consumer(client, stream, done)
    await worker.run_once()
    await client.delete(stream.lane_key("low"))
    await client.set(stream.lane_key("low"), "not a stream")
    await producer.publish(b"x")
    with pytest.raises(StreamError, match="WRONGTYPE"):
        await worker.run_once()
    await client.delete(stream.lane_key("low"))
