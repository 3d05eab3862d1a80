from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, cast

from redis.asyncio import Redis

from streams import Dead, DeadLetters, Done, Draft, Inspector, Message, Outcome, Producer, Stream
from streams.clock import SystemClock
from streams.group import Group
from streams.lost_deliveries import LostDeliveries
from streams.reclaim import Reclaimer
from streams.testing import Dice, FakeClock
from tests.streams.abandoned import Counts, abandon
from tests.streams.conftest import pretend_idle, until
from tests.streams.running import GROUP, Running, consumer, done


async def test_what_a_dead_consumer_held_is_taken_over_and_counted(client: Redis, stream: Stream) -> None:
    await abandon(client, stream, [Draft(b"1"), Draft(b"2", "low", {"trace": "x"})])
    seen: list[Message] = []
    counts = Counts()

    async def handler(message: Message) -> Outcome:
        seen.append(message)
        return Done()

    assert await consumer(client, stream, handler, metrics=counts).run_once() == 2
    assert [(each.lane, each.body, each.headers, each.deliveries) for each in seen] == [
        ("critical", b"1", {}, 2),
        ("low", b"2", {"trace": "x"}, 2),
    ]
    assert counts.taken == 2
    assert (await Inspector(client, stream, group=GROUP).stats()).pending == 0


async def test_what_another_holds_within_its_lease_is_left_alone(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish(b"x")
    entered, release = asyncio.Event(), asyncio.Event()

    async def slow(message: Message) -> Outcome:
        entered.set()
        await release.wait()
        return Done()

    async with Running(consumer(client, stream, slow, name="alive")):
        await entered.wait()
        assert await consumer(client, stream, done, name="other").run_once() == 0
        release.set()


def lost(client: Redis, stream: Stream) -> LostDeliveries:
    return LostDeliveries(Group(client, stream, GROUP, "c1"), lease=timedelta(minutes=1), clock=SystemClock())


async def test_no_more_is_taken_over_than_there_are_free_slots_and_the_scan_goes_on(
    client: Redis, stream: Stream
) -> None:
    await abandon(client, stream, [Draft(b"%d" % number, stream.lane_names[number % 3]) for number in range(250)])
    reclaimer = Reclaimer(
        Group(client, stream, GROUP, "c1"),
        min_idle=timedelta(minutes=1),
        every=timedelta(hours=1),
        max_deliveries=5,
        lost=lost(client, stream),
        clock=SystemClock(),
        roll=Dice(0.5),
    )
    taken: list[Message] = []
    while not reclaimer.due_in:
        step = await reclaimer.run_once(7)
        assert len(step) <= 7
        taken += step
    assert len({message.body for message in taken}) == 250
    assert reclaimer.due_in > timedelta(minutes=50)


async def test_a_scan_does_not_start_before_its_time(client: Redis, stream: Stream) -> None:
    await consumer(client, stream, done).run_once()
    clock = FakeClock()
    reclaimer = Reclaimer(
        Group(client, stream, GROUP, "c1"),
        min_idle=timedelta(minutes=1),
        every=timedelta(seconds=10),
        max_deliveries=5,
        lost=lost(client, stream),
        clock=clock,
        roll=Dice(0.5),
    )
    assert reclaimer.due_in == timedelta(0)
    await reclaimer.run_once(10)
    assert reclaimer.due_in == timedelta(seconds=10)
    await clock.advance(timedelta(seconds=10))
    assert reclaimer.due_in == timedelta(0)


async def test_entries_deleted_by_hand_leave_the_pending_list(client: Redis, stream: Stream) -> None:
    await abandon(client, stream, [Draft(b"1"), Draft(b"2"), Draft(b"3")])
    key = stream.lane_key("critical")
    [(first, _), *_] = cast(Any, await client.xrange(key))
    await client.xdel(key, first)
    assert await consumer(client, stream, done).run_once() == 2
    assert (await Inspector(client, stream, group=GROUP).stats()).pending == 0


async def test_poison_is_buried_after_too_many_deliveries(client: Redis, stream: Stream) -> None:
    await abandon(client, stream, [Draft(b"kills its worker")], deliveries=5)

    async def never(message: Message) -> Outcome:
        raise AssertionError("poison must not reach the handler")

    assert await consumer(client, stream, never, max_deliveries=5).run_once() == 1
    [letter] = (await DeadLetters(client, stream).list()).letters
    assert (letter.reason, letter.deliveries) == ("poison: delivered 6 times", 6)


async def test_the_last_delivery_still_reaches_the_handler(client: Redis, stream: Stream) -> None:
    await abandon(client, stream, [Draft(b"x")], deliveries=4)
    assert await consumer(client, stream, done, max_deliveries=5).run_once() == 1
    assert await DeadLetters(client, stream).count() == 0


async def test_the_last_delivery_is_handled_with_nothing_else_in_hand(client: Redis, stream: Stream) -> None:
    """Poison dies alone: what only died beside it gets a delivery without it."""
    await abandon(client, stream, [Draft(b"last", lane) for lane in stream.lane_names], deliveries=4)
    await Producer(client, stream).publish_many([Draft(b"new")] * 3)
    in_hand: list[bytes] = []
    most = {b"last": 0, b"new": 0}

    async def handler(message: Message) -> Outcome:
        in_hand.append(message.body)
        await asyncio.sleep(0.02)
        most[message.body] = max(most[message.body], len(in_hand))
        in_hand.remove(message.body)
        return Done()

    worker = consumer(client, stream, handler, max_deliveries=5)

    async def acked() -> bool:
        return all(lane.length == 0 for lane in (await Inspector(client, stream, group=GROUP).stats()).lanes)

    async with Running(worker):
        await until(acked)
    assert most[b"last"] == 1
    assert most[b"new"] > 1


async def test_a_last_delivery_that_is_left_stays_as_idle_as_it_was(client: Redis, stream: Stream) -> None:
    await abandon(client, stream, [Draft(b"1"), Draft(b"2")], deliveries=4)

    def reclaimer(name: str) -> Reclaimer:
        return Reclaimer(
            Group(client, stream, GROUP, name),
            min_idle=timedelta(minutes=1),
            every=timedelta(hours=1),
            max_deliveries=5,
            lost=lost(client, stream),
            clock=SystemClock(),
            roll=Dice(0.5),
        )

    cautious, other = reclaimer("cautious"), reclaimer("other")
    assert await cautious.run_once(10) == []
    assert cautious.has_last_deliveries
    first, second = await other.take_last_delivery(), await cautious.take_last_delivery()
    assert first is not None
    assert second is not None
    assert {first.body, second.body} == {b"1", b"2"}
    assert (first.deliveries, second.deliveries) == (5, 5)
    assert await other.take_last_delivery() is None


async def test_on_poison_decides_and_runs_again_if_it_fails(client: Redis, stream: Stream) -> None:
    await abandon(client, stream, [Draft(b"x")], deliveries=9)
    seen_poison: list[Message] = []

    async def on_poison(message: Message) -> Outcome:
        seen_poison.append(message)
        if len(seen_poison) == 1:
            raise OSError("the database is away")
        return Dead("reviewed")

    worker = consumer(client, stream, done, on_poison=on_poison)
    assert await worker.run_once() == 0
    assert (await Inspector(client, stream, group=GROUP).stats()).pending == 1
    await pretend_idle(client, stream, seen_poison[0], group=GROUP, consumer="c1")
    assert await worker.run_once() == 1
    [letter] = (await DeadLetters(client, stream).list()).letters
    assert letter.reason == "reviewed"


async def test_a_long_handler_keeps_its_lease(client: Redis, stream: Stream) -> None:
    """Over several leases no other consumer gets the message, because its lease is renewed every quarter."""
    await Producer(client, stream).publish(b"x")
    counts, release, entered = Counts(), asyncio.Event(), asyncio.Event()
    lease = timedelta(milliseconds=600)

    async def slow(message: Message) -> Outcome:
        entered.set()
        await release.wait()
        return Done()

    async def never(message: Message) -> Outcome:
        raise AssertionError("the lease was not kept")

    async with Running(consumer(client, stream, slow, lease=lease, metrics=counts)):
        await entered.wait()
        other = consumer(client, stream, never, name="other", lease=lease)

        async def renewed_often() -> bool:
            assert await other.run_once() == 0
            return counts.kept >= 6  # two leases

        await until(renewed_often)
        release.set()
    assert counts.gone == 0
    assert (await Inspector(client, stream, group=GROUP).stats()).pending == 0


async def test_a_lease_that_was_taken_over_is_counted_and_not_stolen_back(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish(b"x")
    clock, counts = FakeClock(), Counts()
    taken: list[Message] = []
    entered, release = asyncio.Event(), asyncio.Event()

    async def slow(message: Message) -> Outcome:
        taken.append(message)
        entered.set()
        await release.wait()
        return Done()

    async with Running(consumer(client, stream, slow, lease=timedelta(seconds=30), metrics=counts, clock=clock)):
        await entered.wait()
        await client.xclaim(stream.lane_key("critical"), GROUP, "thief", 0, [taken[0].id], justid=True)
        await clock.until_asleep()
        await clock.advance(timedelta(seconds=10))

        async def noticed() -> bool:
            return counts.gone == 1

        await until(noticed)
        [owner] = [each for each in (await Inspector(client, stream, group=GROUP).stats()).consumers if each.pending]
        assert owner.name == "thief"
        assert counts.kept == 0
        release.set()


async def test_what_we_reclaim_from_ourselves_does_not_get_a_second_handler(client: Redis, stream: Stream) -> None:
    """Renewals failed for longer than the lease (the server was away): the consumer finds its own message idle."""
    await Producer(client, stream).publish(b"x")
    taken: list[Message] = []
    entered, release = asyncio.Event(), asyncio.Event()

    async def slow(message: Message) -> Outcome:
        taken.append(message)
        entered.set()
        await release.wait()
        return Done()

    worker = consumer(client, stream, slow)
    first = asyncio.create_task(worker.run_once())
    await entered.wait()
    await pretend_idle(client, stream, taken[0], group=GROUP, consumer="c1")
    assert await worker.run_once() == 0
    assert len(taken) == 1
    release.set()
    assert await first == 1


async def test_a_running_consumer_takes_over_while_it_is_idle(client: Redis, stream: Stream) -> None:
    await abandon(client, stream, [Draft(b"x")])
    handled = asyncio.Event()

    async def handler(message: Message) -> Outcome:
        handled.set()
        return Done()

    async with Running(consumer(client, stream, handler, reclaim_every=timedelta(milliseconds=20))):
        await handled.wait()
