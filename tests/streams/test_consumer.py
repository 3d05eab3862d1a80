from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from streams import (
    Dead,
    DeadLetters,
    Delayed,
    Done,
    Draft,
    Inspector,
    Message,
    Metrics,
    Outcome,
    Producer,
    Retry,
    RetryPolicy,
    Stream,
    SystemClock,
)
from tests.streams.conftest import until
from tests.streams.running import GROUP, Running, consumer, done

NOW = timedelta(0)


async def test_what_is_done_leaves_nothing_behind(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish_many([Draft(b"1"), Draft(b"2", "low"), Draft(b"3", "default")])
    seen: list[Message] = []

    async def handler(message: Message) -> Outcome:
        seen.append(message)
        return Done()

    assert await consumer(client, stream, handler).run_once() == 3
    assert sorted((message.lane, message.body) for message in seen) == [
        ("critical", b"1"),
        ("default", b"3"),
        ("low", b"2"),
    ]
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert (stats.depth, stats.pending, stats.delayed, stats.dead) == (0, 0, 0, 0)
    assert [lane.length for lane in stats.lanes] == [0, 0, 0]


class Sleeping(SystemClock):
    """A clock that records its sleeps."""

    def __init__(self) -> None:
        self.slept: list[timedelta] = []

    async def sleep(self, delay: timedelta) -> None:
        self.slept.append(delay)
        await super().sleep(delay)


@pytest.mark.parametrize(
    ("published", "concurrency", "gathers"), [(1, 64, False), (10, 64, True), (10, 10, False)], ids=str
)
async def test_fast_messages_are_gathered_and_neither_a_trickle_nor_a_backlog_is(
    client: Redis, stream: Stream, published: int, concurrency: int, gathers: bool
) -> None:
    clock, gather = Sleeping(), timedelta(milliseconds=7)
    await Producer(client, stream).publish_many([Draft(b"x")] * published)
    running = Running(consumer(client, stream, done, concurrency=concurrency, clock=clock, gather=gather))
    inspector = Inspector(client, stream, group=GROUP)
    async with running:
        await until(lambda: nothing_left(inspector))
    assert (gather in clock.slept) == gathers


async def nothing_left(inspector: Inspector) -> bool:
    stats = await inspector.stats()
    return stats.depth == stats.pending == 0


async def test_a_group_starts_at_the_beginning_so_that_nothing_published_before_is_skipped(
    client: Redis, stream: Stream
) -> None:
    await Producer(client, stream).publish(b"early")
    assert await consumer(client, stream, done).run_once() == 1
    assert await consumer(client, stream, done).run_once() == 0


async def test_a_retry_comes_back_with_its_body_headers_and_the_next_attempt(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish(b"\x00x", lane="low", headers={"trace": "1"})
    seen: list[Message] = []

    async def handler(message: Message) -> Outcome:
        seen.append(message)
        return Retry("not yet", after=NOW) if len(seen) < 3 else Done()

    worker, delayed = consumer(client, stream, handler), Delayed(client, stream)
    for attempt in (1, 2, 3):
        assert await worker.run_once() == 1
        assert await delayed.run_once() == (1 if attempt < 3 else 0)
    assert [(each.attempt, each.lane, each.body, each.headers) for each in seen] == [
        (attempt, "low", b"\x00x", {"trace": "1"}) for attempt in (1, 2, 3)
    ]
    assert [each.deliveries for each in seen] == [1, 1, 1]


async def test_a_retry_waits_for_the_delay_of_the_handler(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish(b"x")

    async def handler(message: Message) -> Outcome:
        return Retry("later", after=timedelta(seconds=60))

    await consumer(client, stream, handler).run_once()
    delayed = Delayed(client, stream)
    assert await delayed.run_once() == 0
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert stats.next_due_ms is not None
    assert 55_000 < stats.next_due_ms - stats.now_ms <= 60_000


async def test_a_retry_without_a_delay_follows_the_policy_and_then_is_dead(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish(b"x")

    async def handler(message: Message) -> Outcome:
        return Retry("503")

    policy = RetryPolicy(base=timedelta(microseconds=1), max_attempts=3)
    worker, delayed, dead = (
        consumer(client, stream, handler, policy=policy),
        Delayed(client, stream),
        DeadLetters(client, stream),
    )
    for _ in range(2):
        await worker.run_once()
        assert await dead.count() == 0
        await until(lambda: _moved(delayed))
    await worker.run_once()
    [letter] = (await dead.list()).letters
    assert (letter.reason, letter.attempt) == ("gave up after 3 attempts: 503", 3)


async def _moved(delayed: Delayed) -> bool:
    return await delayed.run_once() == 1


async def test_a_dead_message_keeps_everything_a_human_needs(client: Redis, stream: Stream) -> None:
    entry_id = await Producer(client, stream).publish(b"\xff", lane="default", headers={"trace": "1"})

    async def handler(message: Message) -> Outcome:
        return Dead("declined")

    assert await consumer(client, stream, handler).run_once() == 1
    [letter] = (await DeadLetters(client, stream).list()).letters
    assert (letter.body, letter.headers, letter.lane, letter.reason, letter.original_id, letter.deliveries) == (
        b"\xff",
        {"trace": "1"},
        "default",
        "declined",
        entry_id,
        1,
    )


async def test_a_handler_that_raises_is_retried_and_the_others_go_on(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish_many([Draft(b"bad"), Draft(b"good")])

    async def handler(message: Message) -> Outcome:
        if message.body == b"bad":
            raise ValueError("bad")
        return Done()

    assert await consumer(client, stream, handler).run_once() == 2
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert (stats.delayed, stats.pending) == (1, 0)


async def test_no_more_handlers_run_at_once_than_concurrency_allows(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish_many([Draft(b"x", lane) for lane in stream.lane_names * 20])
    running = most = acked = 0
    finished = asyncio.Event()

    async def handler(message: Message) -> Outcome:
        nonlocal running, most, acked
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        acked += 1
        if acked == 60:
            finished.set()
        return Done()

    async with Running(consumer(client, stream, handler, concurrency=2)):
        await finished.wait()
    assert most == 2


async def test_a_waiting_read_that_brings_one_message_per_lane_does_not_exceed_concurrency(
    client: Redis, stream: Stream
) -> None:
    """It happens when they arrive between the read that found nothing and the one that waits; the test does it directly."""
    running = most = 0

    async def handler(message: Message) -> Outcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return Done()

    worker = consumer(client, stream, handler, concurrency=1)
    await worker.run_once()
    await Producer(client, stream).publish_many([Draft(b"x", lane) for lane in stream.lane_names])
    flights = worker._launch_read(await worker._reader.wait_for_messages(1, timedelta(seconds=1)))
    assert len(flights) == 3
    await worker._flights.wait_for(flights)
    assert all(flight.acked for flight in flights)
    assert most == 1


async def test_lanes_are_served_by_weight_even_one_slot_at_a_time(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish_many([Draft(b"x", lane) for lane in stream.lane_names * 60])
    seen: list[str] = []
    enough = asyncio.Event()

    async def handler(message: Message) -> Outcome:
        seen.append(message.lane)
        if len(seen) == 50:
            enough.set()
        return Done()

    async with Running(consumer(client, stream, handler, concurrency=1)):
        await enough.wait()
    assert Counter(seen[:50]) == {"critical": 30, "default": 15, "low": 5}


async def test_a_lane_whose_messages_take_for_ever_does_not_crowd_out_another(client: Redis, stream: Stream) -> None:
    """Every critical message waits until all of the default lane are done: both have a backlog all the time."""
    publish = Producer(client, stream).publish_many
    await publish([Draft(b"slow", "critical")] * 100 + [Draft(b"quick", "default")] * 60)
    quick, all_quick_done = 0, asyncio.Event()

    async def handler(message: Message) -> Outcome:
        nonlocal quick
        if message.body == b"slow":
            await all_quick_done.wait()
        else:
            quick += 1
            if quick == 60:
                all_quick_done.set()
        return Done()

    async with Running(consumer(client, stream, handler, concurrency=20)), asyncio.timeout(30):
        await all_quick_done.wait()


async def test_slots_that_a_lane_leaves_over_go_to_the_others(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish_many([Draft(b"x", "low")] * 40 + [Draft(b"x", "default")] * 5)
    assert await consumer(client, stream, done, concurrency=40).run_once() == 40
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert {lane.lane: lane.length for lane in stats.lanes} == {"critical": 0, "default": 0, "low": 5}


async def test_an_idle_consumer_starts_a_message_as_soon_as_it_is_published(client: Redis, stream: Stream) -> None:
    started = asyncio.Event()

    async def handler(message: Message) -> Outcome:
        started.set()
        return Done()

    producer = Producer(client, stream)
    async with Running(consumer(client, stream, handler, block=timedelta(seconds=4))) as running:
        for lane in stream.lane_names:
            await until(lambda: _blocked(client))
            started.clear()
            await producer.publish(b"x", lane=lane)
            async with asyncio.timeout(2):
                await started.wait()
        running.stop.set()
        await producer.publish(b"ends the wait")


async def _blocked(client: Redis) -> bool:
    return bool((await client.info("clients"))["blocked_clients"])


async def test_stop_drains_what_is_in_hand_and_reads_no_more(client: Redis, stream: Stream) -> None:
    producer = Producer(client, stream)
    await producer.publish(b"in hand")
    entered, release = asyncio.Event(), asyncio.Event()

    async def handler(message: Message) -> Outcome:
        entered.set()
        await release.wait()
        return Done()

    worker = consumer(client, stream, handler, concurrency=1)
    async with Running(worker) as running:
        await entered.wait()
        running.stop.set()
        await producer.publish(b"for another")
        assert worker.in_flight == 1
        release.set()
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert (stats.depth, stats.pending, worker.in_flight) == (1, 0, 0)


async def test_stopping_an_idle_consumer_again_and_again_loses_no_message(client: Redis, stream: Stream) -> None:
    """A message that arrives while a waiting read is being stopped is handled, and does not stay with a dead reader."""
    producer = Producer(client, stream)
    handled = published = 0

    async def handler(message: Message) -> Outcome:
        nonlocal handled
        handled += 1
        return Done()

    for round_ in range(30):
        async with Running(consumer(client, stream, handler, block=timedelta(milliseconds=20))) as running:
            await until(lambda: _blocked(client))
            if round_ % 2:
                running.stop.set()
            await producer.publish(b"x")
            published += 1
        assert (await Inspector(client, stream, group=GROUP).stats()).pending == 0
    while await consumer(client, stream, handler).run_once():
        pass
    assert handled == published


async def test_slots_are_refilled_in_chunks_under_load(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish_many([Draft(b"x")] * 400)
    handled = 0
    finished = asyncio.Event()

    class Reads(Metrics):
        sizes: list[int] = []  # noqa: RUF012 - one instance, in this test

        def batch(self, step: str, size: int) -> None:
            if step == "read":
                self.sizes.append(size)

    async def handler(message: Message) -> Outcome:
        nonlocal handled
        handled += 1
        if handled == 400:
            finished.set()
        return Done()

    reads = Reads()
    async with Running(consumer(client, stream, handler, concurrency=40, metrics=reads)):
        await finished.wait()
    assert sum(reads.sizes) == 400
    assert min(reads.sizes[:-1]) >= 10


async def test_a_consumer_can_run_again_after_it_was_stopped(client: Redis, stream: Stream) -> None:
    producer, worker = Producer(client, stream), consumer(client, stream, done)
    for _ in range(2):
        await producer.publish(b"x")
        async with Running(worker):
            await until(lambda: _empty(client, stream))


async def _empty(client: Redis, stream: Stream) -> bool:
    return sum([await client.xlen(key) for key in stream.lane_keys]) == 0


async def test_a_block_longer_than_the_clients_time_out_is_refused(client: Redis, stream: Stream) -> None:
    with pytest.raises(ValueError, match="shorter than the client's time-out"):
        consumer(client, stream, done, block=timedelta(seconds=5))
    with pytest.raises(ValueError, match="positive"):
        consumer(client, stream, done, concurrency=0)
