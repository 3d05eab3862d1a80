"""A batch handler has the same guarantees as a handler of single messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from streams import Consumer, Dead, DeadLetters, Done, Draft, Inspector, Message, Outcome, Producer, Retry, Stream
from tests.streams.abandoned import Counts, abandon
from tests.streams.conftest import until
from tests.streams.running import GROUP, Running, batch_consumer, done


async def all_done(messages: Sequence[Message]) -> Sequence[Outcome]:
    return [Done()] * len(messages)


async def test_messages_are_handled_together_and_nothing_is_left_behind(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish_many([Draft(b"x", lane) for lane in stream.lane_names * 10])
    sizes = []

    async def handler(messages: Sequence[Message]) -> Sequence[Outcome]:
        sizes.append(len(messages))
        return [Done() for _ in messages]

    assert await batch_consumer(client, stream, handler).run_once() == 30
    assert sizes == [30]
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert (stats.depth, stats.pending, stats.delayed, stats.dead) == (0, 0, 0, 0)


async def test_each_message_gets_its_own_outcome(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish_many([Draft(b"done"), Draft(b"retry"), Draft(b"dead"), Draft(b"done")])
    outcomes: dict[bytes, Outcome] = {
        b"done": Done(),
        b"retry": Retry("later", after=timedelta(minutes=1)),
        b"dead": Dead("declined"),
    }

    async def handler(messages: Sequence[Message]) -> Sequence[Outcome]:
        return [outcomes[message.body] for message in messages]

    assert await batch_consumer(client, stream, handler).run_once() == 4
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert (stats.depth, stats.pending, stats.delayed, stats.dead) == (0, 0, 1, 1)
    [letter] = (await DeadLetters(client, stream).list()).letters
    assert (letter.body, letter.reason) == (b"dead", "declined")


async def test_an_exception_means_retry_for_all(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish_many([Draft(b"x")] * 3)

    async def handler(messages: Sequence[Message]) -> Sequence[Outcome]:
        raise OSError("the database is away")

    assert await batch_consumer(client, stream, handler).run_once() == 3
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert (stats.pending, stats.delayed) == (0, 3)


@pytest.mark.parametrize("answer", [[], [Done()], [Done()] * 4, None, Done()])
async def test_a_wrong_number_of_outcomes_is_a_bug_and_means_retry_for_all(
    client: Redis, stream: Stream, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await Producer(client, stream).publish_many([Draft(b"x")] * 3)

    async def handler(messages: Sequence[Message]) -> Any:
        return answer

    assert await batch_consumer(client, stream, handler).run_once() == 3
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert (stats.pending, stats.delayed) == (0, 3)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_what_is_not_an_outcome_is_retried_alone(
    client: Redis, stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    await Producer(client, stream).publish_many([Draft(b"x")] * 3)

    async def handler(messages: Sequence[Message]) -> Any:
        return [Done(), None, Done()]

    assert await batch_consumer(client, stream, handler).run_once() == 3
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert (stats.pending, stats.delayed) == (0, 1)
    assert "handler answered None" in caplog.text


async def test_no_batch_is_larger_than_max_batch_and_no_more_is_in_hand_than_concurrency(
    client: Redis, stream: Stream
) -> None:
    await Producer(client, stream).publish_many([Draft(b"x")] * 200)
    sizes = []
    running = most = handled = 0
    finished = asyncio.Event()

    async def handler(messages: Sequence[Message]) -> Sequence[Outcome]:
        nonlocal running, most, handled
        sizes.append(len(messages))
        running += len(messages)
        most = max(most, running)
        await asyncio.sleep(0)
        running -= len(messages)
        handled += len(messages)
        if handled == 200:
            finished.set()
        return [Done()] * len(messages)

    async with Running(batch_consumer(client, stream, handler, concurrency=20, max_batch=8)):
        await finished.wait()
    assert max(sizes) == 8
    assert most <= 20


async def test_a_lone_message_does_not_wait_for_others(client: Redis, stream: Stream) -> None:
    handled = asyncio.Event()

    async def handler(messages: Sequence[Message]) -> Sequence[Outcome]:
        assert len(messages) == 1
        handled.set()
        return [Done()]

    async with Running(batch_consumer(client, stream, handler)), asyncio.timeout(30):
        await Producer(client, stream).publish(b"x")
        await handled.wait()


async def test_poison_does_not_reach_the_handler_and_the_rest_of_its_batch_does(client: Redis, stream: Stream) -> None:
    await abandon(client, stream, [Draft(b"poison")] * 2, deliveries=5)
    await Producer(client, stream).publish_many([Draft(b"sound")] * 3)
    seen: list[bytes] = []

    async def handler(messages: Sequence[Message]) -> Sequence[Outcome]:
        seen.extend(message.body for message in messages)
        return [Done()] * len(messages)

    calls = 0

    async def on_poison(message: Message) -> Outcome:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError("the database is away")
        return Dead("poison")

    worker = batch_consumer(client, stream, handler, max_deliveries=5, on_poison=on_poison)
    assert await worker.run_once() == 4
    assert seen == [b"sound"] * 3
    assert await DeadLetters(client, stream).count() == 1
    assert (await Inspector(client, stream, group=GROUP).stats()).pending == 1


async def test_the_last_delivery_is_a_batch_of_its_own_with_nothing_else_in_hand(client: Redis, stream: Stream) -> None:
    await abandon(client, stream, [Draft(b"last")] * 3, deliveries=4)
    await Producer(client, stream).publish_many([Draft(b"new")] * 5)
    in_hand = 0
    beside_last: list[int] = []

    async def handler(messages: Sequence[Message]) -> Sequence[Outcome]:
        nonlocal in_hand
        in_hand += len(messages)
        await asyncio.sleep(0.02)
        if any(message.body == b"last" for message in messages):
            beside_last.append(in_hand)
        in_hand -= len(messages)
        return [Done()] * len(messages)

    async with Running(batch_consumer(client, stream, handler, max_deliveries=5)):
        await until(lambda: _empty(client, stream))
    assert beside_last == [1, 1, 1]


async def test_stopping_drains_the_batch_in_hand(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish_many([Draft(b"x")] * 5)
    entered, release = asyncio.Event(), asyncio.Event()

    async def handler(messages: Sequence[Message]) -> Sequence[Outcome]:
        entered.set()
        await release.wait()
        return [Done()] * len(messages)

    async with Running(batch_consumer(client, stream, handler)) as running:
        await entered.wait()
        running.stop.set()
        release.set()
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert (stats.depth, stats.pending) == (0, 0)


async def test_a_batch_that_outlasts_the_drain_is_cancelled_and_stays_pending(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish_many([Draft(b"x")] * 5)
    entered = asyncio.Event()

    async def handler(messages: Sequence[Message]) -> Sequence[Outcome]:
        entered.set()
        await asyncio.Event().wait()
        return []

    async with Running(batch_consumer(client, stream, handler, drain=timedelta(milliseconds=10))):
        await entered.wait()
    assert (await Inspector(client, stream, group=GROUP).stats()).pending == 5


async def test_a_long_handler_keeps_the_leases_of_its_batch(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish_many([Draft(b"x")] * 3)
    counts, release, entered = Counts(), asyncio.Event(), asyncio.Event()
    lease = timedelta(milliseconds=600)

    async def slow(messages: Sequence[Message]) -> Sequence[Outcome]:
        entered.set()
        await release.wait()
        return [Done()] * len(messages)

    async def never(messages: Sequence[Message]) -> Sequence[Outcome]:
        raise AssertionError("a lease was not kept")

    async with Running(batch_consumer(client, stream, slow, lease=lease, metrics=counts)):
        await entered.wait()
        other = batch_consumer(client, stream, never, name="other", lease=lease)

        async def renewed_often() -> bool:
            assert await other.run_once() == 0
            return counts.kept >= 3 * 6  # two leases

        await until(renewed_often)
        release.set()
    assert counts.gone == 0
    assert (await Inspector(client, stream, group=GROUP).stats()).pending == 0


async def test_a_consumer_has_one_handler_of_one_kind(client: Redis, stream: Stream) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Consumer(client, stream, group=GROUP, name="c1")
    with pytest.raises(ValueError, match="exactly one"):
        Consumer(client, stream, group=GROUP, name="c1", handler=done, batch_handler=all_done)
    with pytest.raises(ValueError, match="positive"):
        batch_consumer(client, stream, all_done, max_batch=0)


async def _empty(client: Redis, stream: Stream) -> bool:
    return sum([await client.xlen(key) for key in stream.lane_keys]) == 0
