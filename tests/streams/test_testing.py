from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from streams import Dead, Done, Draft, Lane, Message, Outcome, Retry, RetryPolicy, Stream, StreamFull, StreamUnavailable
from streams.clock import pause
from streams.testing import Dice, FakeClock, MemoryQueue

STREAM = Stream("s", lanes=(Lane("critical", 6), Lane("low")))
SECOND = timedelta(seconds=1)


async def test_the_fake_clock_wakes_sleepers_in_order_and_only_when_due() -> None:
    clock = FakeClock()
    woken: list[int] = []

    async def sleeper(seconds: int) -> None:
        await clock.sleep(seconds * SECOND)
        woken.append(seconds)

    tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (3, 1, 2)]
    await asyncio.sleep(0)
    assert clock.sleepers == 3
    start = clock.now()
    await clock.advance(2 * SECOND)
    assert woken == [1, 2]
    assert clock.now() - start == 2 * SECOND
    assert clock.monotonic() == 2
    await clock.advance(SECOND)
    await asyncio.gather(*tasks)
    assert woken == [1, 2, 3]


async def test_a_pause_ends_with_its_time_or_with_stop() -> None:
    clock, stop = FakeClock(), asyncio.Event()
    first = asyncio.create_task(pause(clock, SECOND, stop))
    await clock.until_asleep()
    await clock.advance(SECOND)
    await first
    second = asyncio.create_task(pause(clock, SECOND, stop))
    await clock.until_asleep()
    stop.set()
    await second
    await pause(clock, SECOND, stop)


async def test_the_memory_queue_runs_a_message_through_retries_to_its_end() -> None:
    queue = MemoryQueue(STREAM, policy=RetryPolicy(base=2 * SECOND), dice=Dice(0.5))
    attempts: list[tuple[int, float]] = []

    async def handler(message: Message) -> Outcome:
        attempts.append((message.attempt, queue.clock.monotonic()))
        return Done() if message.attempt == 3 else Retry("not yet")

    await queue.publish(b"x", headers={"h": "1"})
    assert await queue.run_until_settled(handler) == 3
    assert attempts == [(1, 0), (2, 1), (3, 3)]
    assert [message.headers for message in queue.done] == [{"h": "1"}]
    assert (queue.depth, queue.delayed) == (0, 0)


async def test_the_memory_queue_buries_what_is_given_up() -> None:
    queue = MemoryQueue(STREAM, policy=RetryPolicy(max_attempts=2))

    async def handler(message: Message) -> Outcome:
        return Dead("no") if message.body == b"dead" else Retry("always")

    await queue.publish_many([Draft(b"dead"), Draft(b"again", "low")])
    await queue.run_until_settled(handler)
    assert [(buried.message.body, buried.reason) for buried in queue.dead] == [
        (b"dead", "no"),
        (b"again", "gave up after 2 attempts: always"),
    ]


async def test_the_memory_queue_serves_lanes_by_weight() -> None:
    queue = MemoryQueue(STREAM)
    seen: list[str] = []

    async def handler(message: Message) -> Outcome:
        seen.append(message.lane)
        return Done()

    for _ in range(10):
        await queue.publish(b"x", lane="low")
        await queue.publish(b"x", lane="critical")
    await queue.run_once(handler, concurrency=7)
    assert seen.count("critical") == 6
    await queue.run_once(handler, concurrency=7)
    assert seen.count("critical") == 10  # four were left, and the rest of the slots went to the other lane
    assert len(seen) == 14


async def test_the_memory_queue_can_be_down_or_full() -> None:
    queue = MemoryQueue(STREAM, max_length=1)
    queue.down = True
    with pytest.raises(StreamUnavailable):
        await queue.publish(b"x")
    queue.down = False
    await queue.publish(b"x")
    with pytest.raises(StreamFull):
        await queue.publish(b"x")
    with pytest.raises(ValueError, match="no lane"):
        await queue.publish(b"x", lane="nope")


async def test_a_handler_that_never_finishes_is_reported() -> None:
    queue = MemoryQueue(STREAM)

    async def handler(message: Message) -> Outcome:
        return Retry("again", after=SECOND)

    await queue.publish(b"x")
    with pytest.raises(AssertionError, match="not settled after 20 rounds"):
        await queue.run_until_settled(handler, rounds=20)
