from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from streams import (
    Consumer,
    ConsumerOptions,
    DeadLetters,
    Delayed,
    Done,
    Draft,
    Lane,
    Message,
    Metrics,
    Outcome,
    Producer,
    Retry,
    Stream,
    StreamError,
)
from tests.streams.conftest import until


async def delay(client: Redis, stream: Stream, drafts: Sequence[Draft], after: timedelta = timedelta(0)) -> None:
    """Put messages into the delayed set, as a consumer does."""

    async def handler(message: Message) -> Outcome:
        return Retry("not now", after=after)

    await Producer(client, stream).publish_many(drafts)
    assert await Consumer(
        client, stream, group="g", name="c", handler=handler, options=ConsumerOptions(concurrency=1_000)
    ).run_once() == len(drafts)


async def lengths(client: Redis, stream: Stream) -> list[int]:
    return [await client.xlen(key) for key in stream.lane_keys]


async def test_what_is_due_goes_back_to_the_lane_it_came_from(client: Redis, stream: Stream) -> None:
    await delay(client, stream, [Draft(b"x", lane) for lane in ("low", "low", "default")])
    delayed = Delayed(client, stream)
    assert await delayed.count() == 3
    assert await delayed.run_once() == 3
    assert await lengths(client, stream) == [0, 1, 2]
    assert await delayed.count() == 0


async def test_what_is_not_due_stays(client: Redis, stream: Stream) -> None:
    await delay(client, stream, [Draft(b"x")], after=timedelta(hours=1))
    delayed = Delayed(client, stream)
    assert await delayed.run_once() == 0
    due = await delayed.next_due()
    assert due is not None
    assert timedelta(minutes=59) < due - datetime.now(UTC) < timedelta(minutes=61)


async def test_nothing_delayed_is_nothing_due(client: Redis, stream: Stream) -> None:
    delayed = Delayed(client, stream)
    assert (await delayed.count(), await delayed.next_due(), await delayed.run_once()) == (0, None, 0)


async def test_one_step_is_bounded_and_two_promoters_move_each_message_once(client: Redis, stream: Stream) -> None:
    await delay(client, stream, [Draft(b"%d" % number) for number in range(50)])
    promoters = [Delayed(client, stream, limit=10) for _ in range(2)]
    moved = 0
    while step := sum(await asyncio.gather(*(promoter.run_once() for promoter in promoters))):
        assert step <= 20
        moved += step
    assert moved == 50
    entries = await client.xrange(stream.lane_key("critical"))
    assert len({fields[b"b"] for _, fields in entries}) == 50  # type: ignore[union-attr,index] # redis-py allows for every reply


async def test_equal_messages_are_two_messages(client: Redis, stream: Stream) -> None:
    await delay(client, stream, [Draft(b"same"), Draft(b"same")])
    assert await Delayed(client, stream).run_once() == 2


async def test_a_lane_that_is_gone_hands_its_messages_to_the_last_one(client: Redis, stream: Stream) -> None:
    await delay(client, stream, [Draft(b"x", "default")])
    smaller = Stream(stream.name, lanes=(Lane("critical", 6), Lane("low")))
    assert await Delayed(client, smaller).run_once() == 1
    assert await lengths(client, smaller) == [0, 1]


async def test_a_member_that_is_not_ours_is_buried_and_does_not_stop_the_rest(client: Redis, stream: Stream) -> None:
    await client.zadd(stream.delayed_key, {b"\xc1 not ours": 1})
    await delay(client, stream, [Draft(b"x")])
    assert await Delayed(client, stream).run_once() == 2
    assert await lengths(client, stream) == [1, 0, 0]
    [letter] = (await DeadLetters(client, stream).list()).letters
    assert (letter.body, letter.reason) == (b"\xc1 not ours", "unreadable delayed message")


async def test_the_loop_promotes_until_it_is_stopped(client: Redis, stream: Stream) -> None:
    class Promoted(Metrics):
        total = 0

        def promoted(self, count: int) -> None:
            self.total += count

    await delay(client, stream, [Draft(b"x")] * 25, after=timedelta(milliseconds=20))
    stop, promoted = asyncio.Event(), Promoted()
    delayed = Delayed(client, stream, limit=10, poll=timedelta(milliseconds=20), metrics=promoted)
    task = asyncio.create_task(delayed.run(stop))

    async def none_left() -> bool:
        return await delayed.count() == 0

    await until(none_left)
    stop.set()
    await task
    assert promoted.total == 25


async def test_a_promotion_that_cannot_be_added_leaves_the_message_where_it_was(client: Redis, stream: Stream) -> None:
    await delay(client, stream, [Draft(b"x")])
    await client.delete(stream.lane_key("critical"))
    await client.set(stream.lane_key("critical"), "not a stream")
    delayed = Delayed(client, stream)
    with pytest.raises(StreamError, match="WRONGTYPE"):
        await delayed.run_once()
    assert await delayed.count() == 1
    await client.delete(stream.lane_key("critical"))
    assert await delayed.run_once() == 1


async def test_a_retried_message_is_handled_again(client: Redis, stream: Stream) -> None:
    await delay(client, stream, [Draft(b"x")])
    await Delayed(client, stream).run_once()
    attempts: list[int] = []

    async def handler(message: Message) -> Outcome:
        attempts.append(message.attempt)
        return Done()

    await Consumer(client, stream, group="g", name="c", handler=handler).run_once()
    assert attempts == [2]
