from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from streams import (
    Consumer,
    Dead,
    Delayed,
    Done,
    Draft,
    Inspector,
    Message,
    Metrics,
    Outcome,
    Producer,
    Retry,
    Stream,
    scripts,
)
from streams.group import Group
from tests.streams.conftest import Connected, pretend_idle, until
from tests.streams.running import GROUP, Running, consumer, done
from tests.streams.servers import Server

LATER = Retry("later", after=timedelta(hours=1))


class Sizes(Metrics):
    def __init__(self) -> None:
        self.acked_by_call: list[int] = []
        self.dropped: list[tuple[str, int]] = []

    def stale(self, lane: str, count: int) -> None:
        self.dropped.append((lane, count))

    def batch(self, step: str, size: int) -> None:
        if step == "settle":
            self.acked_by_call.append(size)


async def test_what_is_settled_together_is_cut_into_calls_that_do_not_hold_the_server_for_long(
    client: Redis, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Producer(client, stream).publish_many([Draft(b"x")] * 300)
    trips = []
    ack = scripts.ack

    async def counted(group: Group, requests: Sequence[scripts.AckRequest]) -> Any:
        trips.append(len(requests))
        return await ack(group, requests)

    monkeypatch.setattr(scripts, "ack", counted)
    sizes = Sizes()
    assert await consumer(client, stream, done, concurrency=300, metrics=sizes).run_once() == 300
    assert sizes.acked_by_call == [128, 128, 44]
    assert trips == [3]
    assert (await Inspector(client, stream, group=GROUP).stats()).pending == 0


def losing(client: Redis, stream: Stream, outcome: Outcome, *, to: Consumer | None, metrics: Metrics) -> Consumer:
    """A consumer whose handler blocks for longer than its lease: another takes the message over, and may ack it."""

    async def handler(message: Message) -> Outcome:
        await pretend_idle(client, stream, message, group=GROUP, consumer="slow")
        if to is None:
            await client.xclaim(stream.lane_key(message.lane), GROUP, "other", 1, [message.id])
        else:
            assert await to.run_once() == 1
        return outcome

    return consumer(client, stream, handler, name="slow", metrics=metrics)


@pytest.mark.parametrize("outcome", [Done(), LATER, Dead("given up")], ids=lambda one: type(one).__name__)
async def test_a_worker_that_lost_its_lease_acks_nothing_that_another_one_holds(
    client: Redis, stream: Stream, outcome: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    await Producer(client, stream).publish(b"x", lane="low")
    sizes = Sizes()
    assert await losing(client, stream, outcome, to=None, metrics=sizes).run_once() == 0
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert [(each.name, each.lane) for each in stats.consumers if each.pending] == [("other", "low")]
    assert (stats.pending, stats.delayed, stats.dead) == (1, 0, 0)
    assert sizes.dropped == [("low", 1)]
    assert "another consumer has taken them over" in caplog.text


@pytest.mark.parametrize("outcome", [LATER, Dead("given up")], ids=lambda one: type(one).__name__)
async def test_what_another_one_has_taken_over_and_done_is_neither_delayed_nor_buried(
    client: Redis, stream: Stream, outcome: Outcome
) -> None:
    await Producer(client, stream).publish(b"x")
    other, sizes = consumer(client, stream, done, name="other"), Sizes()
    assert await losing(client, stream, outcome, to=other, metrics=sizes).run_once() == 0
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert (stats.depth, stats.pending, stats.delayed, stats.dead) == (0, 0, 0, 0)
    assert sizes.dropped == [("critical", 1)]


async def test_one_lost_lease_keeps_no_other_message_of_its_batch_from_being_acked(
    client: Redis, stream: Stream
) -> None:
    await Producer(client, stream).publish_many([Draft(b"%d" % number) for number in range(6)])

    async def handler(message: Message) -> Outcome:
        if message.body in (b"0", b"3", b"5"):
            await client.xclaim(stream.lane_key(message.lane), GROUP, "other", 0, [message.id])
        return Done()

    assert await consumer(client, stream, handler).run_once() == 3
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert [(each.name, each.pending) for each in stats.consumers if each.pending] == [("other", 3)]


async def test_what_was_in_hand_when_everything_was_flushed_lives_on_though_newer_messages_were_read_since(
    own_server: Callable[..., Server], connected: Connected, stream: Stream
) -> None:
    client = connected(own_server())
    producer = Producer(client, stream)
    await producer.publish(b"old")
    seen: list[bytes] = []

    async def handler(message: Message) -> Outcome:
        seen.append(message.body)
        if message.body == b"old":
            await client.flushall()
            await producer.publish(b"new")
            worker._group_exists = False  # as after its next read, which would fail
            assert await worker.run_once() == 1
        return LATER

    worker = consumer(client, stream, handler)
    assert await worker.run_once() == 1
    assert seen == [b"old", b"new"]
    assert await Delayed(client, stream).count() == 2


async def test_a_message_that_cannot_be_written_keeps_no_other_from_being_acked(
    client: Redis, stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    await Producer(client, stream).publish_many([Draft(b"x", headers={"n": str(number)}) for number in range(30)])

    async def handler(message: Message) -> Outcome:
        if message.headers["n"] == "7":
            cast(Any, message.headers)["n"] = object()
        return LATER if int(str(message.headers["n"])[-1], 36) % 2 else Dead("even")

    assert await consumer(client, stream, handler).run_once() == 29
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert stats.pending == 1
    assert stats.delayed + stats.dead == 29
    assert caplog.text.count("stays pending") == 1


@pytest.mark.parametrize("outcome", [LATER, Dead("d")])
async def test_an_entry_of_more_fields_than_a_script_can_take_keeps_no_other_from_being_acked(
    client: Redis, stream: Stream, outcome: Outcome
) -> None:
    """Another program wrote it. The retries beside it were once delayed again with every try, and never acked."""
    key = stream.lane_key("critical")
    await Producer(client, stream).publish_many([Draft(b"x")] * 3)
    fields: dict[Any, Any] = {"b": b"wide"} | {f"h:{number}": b"" for number in range(4_000)}
    await client.xadd(key, fields)

    async def handler(message: Message) -> Outcome:
        return outcome

    assert await consumer(client, stream, handler).run_once() == 3
    [left] = cast(Any, await client.xrange(key))
    assert left[1][b"b"] == b"wide"
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert stats.delayed + stats.dead == 3


@pytest.mark.parametrize("broken", ["delayed", "dead"])
async def test_a_set_or_stream_that_cannot_take_a_message_loses_none(
    client: Redis, stream: Stream, broken: str
) -> None:
    """The delayed or the dead-letter key has another type: messages for it stay pending."""
    key = stream.delayed_key if broken == "delayed" else stream.dead_key
    await client.set(key, "not what belongs here")
    await Producer(client, stream).publish_many([Draft(b"done"), Draft(b"delayed"), Draft(b"dead"), Draft(b"done")])

    async def handler(message: Message) -> Outcome:
        outcomes: dict[bytes, Outcome] = {b"done": Done(), b"delayed": LATER, b"dead": Dead("d")}
        return outcomes[message.body]

    worker = consumer(client, stream, handler)
    worker._acker._stop_retrying.set()  # one try, whatever counts as an outage
    assert await worker.run_once() == 3
    [left] = cast(Any, await client.xrange(stream.lane_key("critical")))
    assert left[1][b"b"] == broken.encode()
    await client.delete(key)


async def test_a_message_that_is_refused_keeps_no_later_one_from_being_acked(
    client: Redis, stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    """There are more later messages than slots; the refused one is acked once the server takes it."""
    await client.set(stream.delayed_key, "not what belongs here")
    producer = Producer(client, stream)

    async def handler(message: Message) -> Outcome:
        return LATER if message.body == b"delayed" else Done()

    async def acked() -> bool:
        return int(await client.xlen(stream.lane_key("critical"))) == 1

    worker = consumer(client, stream, handler, concurrency=4)
    async with Running(worker):
        await producer.publish(b"delayed")
        await until(lambda: _is(worker.unable_for > timedelta(0)))
        await producer.publish_many([Draft(b"done")] * 20)
        await until(acked)
        assert worker.in_flight == 1
        assert worker.unable_for > timedelta(0)
        await client.delete(stream.delayed_key)
        await until(lambda: _is(worker.in_flight == 0))
        assert worker.unable_for == timedelta(0)
    assert await Delayed(client, stream).count() == 1
    assert caplog.text.count("cannot use Redis now") == caplog.text.count("Redis works again") == 1


async def _is(found: bool) -> bool:
    return found
