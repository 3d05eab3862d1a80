"""Several consumer groups on one stream: each gets everything, independently of the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

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
    Stream,
)
from tests.streams.conftest import Connected, pretend_idle
from tests.streams.running import Running, consumer, done
from tests.streams.servers import Server

NOW = timedelta(0)


class Log:
    """A handler that records its messages, and returns the given outcomes, then Done."""

    def __init__(self, *answers: Outcome) -> None:
        self.bodies: list[bytes] = []
        self._answers = list(answers)

    async def __call__(self, message: Message) -> Outcome:
        self.bodies.append(message.body)
        return self._answers.pop(0) if self._answers else Done()


class Settled(Metrics):
    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()

    def settled(self, lane: str, outcome: str, count: int) -> None:
        self.outcomes[outcome] += count


async def left(client: Redis, stream: Stream) -> int:
    return sum([int(await client.xlen(key)) for key in stream.lane_keys])


async def started(client: Redis, stream: Stream, *groups: str) -> None:
    for group in groups:
        await consumer(client, stream, done, group=group).run_once()


async def test_two_groups_at_work_at_once_get_every_message_and_leave_nothing(client: Redis, stream: Stream) -> None:
    await started(client, stream, "a", "b")
    logs, total = (Log(), Log()), 500
    running = [
        Running(consumer(client, stream, log, group=group, name=name))
        for group, log in zip("ab", logs, strict=True)
        for name in ("c1", "c2")
    ]
    lanes = stream.lane_names
    async with running[0], running[1], running[2], running[3]:
        for number in range(0, total, 50):
            drafts = [Draft(b"%d" % each, lanes[each % 3]) for each in range(number, number + 50)]
            await Producer(client, stream).publish_many(drafts)
        async with asyncio.timeout(30):
            while await left(client, stream):
                await asyncio.sleep(0.01)
    expected = Counter(b"%d" % number for number in range(total))
    assert [Counter(log.bodies) == expected for log in logs] == [True, True]


async def test_a_group_that_comes_later_gets_what_no_other_has_acked_yet(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish_many([Draft(b"1"), Draft(b"2")])
    assert await consumer(client, stream, done, group="a", concurrency=1).run_once() == 1
    log = Log()
    assert await consumer(client, stream, log, group="b").run_once() == 1
    assert (log.bodies, await left(client, stream)) == ([b"2"], 1)
    assert await consumer(client, stream, done, group="a").run_once() == 1
    assert await left(client, stream) == 0


async def test_a_group_that_starts_at_the_end_holds_nothing_older_back(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish(b"1", lane="low")
    await client.xgroup_create(stream.lane_key("low"), "late", "$")
    await Producer(client, stream).publish(b"2", lane="low")
    assert await consumer(client, stream, done, group="a").run_once() == 2
    [(_, fields)] = cast(Any, await client.xrange(stream.lane_key("low")))
    assert fields == {b"b": b"2"}


async def test_a_group_that_is_destroyed_holds_nothing_back(client: Redis, stream: Stream) -> None:
    await started(client, stream, "a", "b")
    await Producer(client, stream).publish(b"1")
    for key in stream.lane_keys:
        await client.xgroup_destroy(key, "b")
    assert await consumer(client, stream, done, group="a").run_once() == 1
    assert await left(client, stream) == 0


async def test_a_retry_comes_back_for_its_own_group_only(client: Redis, stream: Stream) -> None:
    await started(client, stream, "a", "b")
    await Producer(client, stream).publish(b"x")
    a, b = Log(Retry("again", NOW), Retry("again", NOW)), Log(Retry("again", NOW))
    counted = {"a": Settled(), "b": Settled()}
    for _ in range(4):
        await asyncio.sleep(0.002)  # a delay of nothing is over
        await Delayed(client, stream).run_once()
        for group, log in (("a", a), ("b", b)):
            await consumer(client, stream, log, group=group, metrics=counted[group]).run_once()
    assert (len(a.bodies), len(b.bodies)) == (3, 2)
    assert counted["a"].outcomes == {"retry": 2, "done": 1}  # what was passed over is not counted
    assert counted["b"].outcomes == {"retry": 1, "done": 1}
    assert (await left(client, stream), await Delayed(client, stream).count()) == (0, 0)


async def test_a_retry_that_a_dead_consumer_of_another_group_had_read_is_passed_over_and_is_no_poison(
    client: Redis, stream: Stream
) -> None:
    await started(client, stream, "a", "b")
    await Producer(client, stream).publish(b"x")
    await consumer(client, stream, Log(Retry("again", NOW)), group="a").run_once()
    await consumer(client, stream, done, group="b").run_once()
    await asyncio.sleep(0.002)
    await Delayed(client, stream).run_once()
    [[_, [(entry_id, _)]]] = cast(Any, await client.xreadgroup("b", "dead", {stream.lane_key("critical"): ">"}))
    held = Message(entry_id.decode(), "critical", b"x", deliveries=9)
    await pretend_idle(client, stream, held, group="b", consumer="dead")
    log = Log()
    assert await consumer(client, stream, log, group="b").run_once() == 0
    assert (log.bodies, await DeadLetters(client, stream).count(), await left(client, stream)) == ([], 0, 1)
    assert await consumer(client, stream, log, group="a").run_once() == 1
    assert await left(client, stream) == 0


async def test_a_dead_letter_names_its_group_and_is_replayed_for_it_only(client: Redis, stream: Stream) -> None:
    await started(client, stream, "a", "b")
    await Producer(client, stream).publish(b"x", headers={"h": "v"})
    a, b = Log(Dead("no")), Log()
    await consumer(client, stream, a, group="a").run_once()
    await consumer(client, stream, b, group="b").run_once()
    letters = DeadLetters(client, stream)
    [letter] = (await letters.list()).letters
    assert (letter.group, letter.body, letter.headers) == ("a", b"x", {"h": "v"})
    assert await letters.replay() == 1
    await consumer(client, stream, b, group="b").run_once()
    await consumer(client, stream, a, group="a").run_once()
    assert (len(a.bodies), len(b.bodies), await left(client, stream)) == (2, 1, 0)


async def test_what_comes_back_for_a_group_that_is_gone_comes_back_for_all(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish_many([Draft(b"retried"), Draft(b"buried")])
    await consumer(client, stream, Log(Retry("again", NOW), Dead("no")), group="old", concurrency=1).run_once()
    await consumer(client, stream, Log(Dead("no")), group="old").run_once()
    for key in stream.lane_keys:
        await client.xgroup_destroy(key, "old")
    await started(client, stream, "new")
    await asyncio.sleep(0.002)
    assert await Delayed(client, stream).run_once() == 1
    assert await DeadLetters(client, stream).replay() == 1
    log = Log()
    await consumer(client, stream, log, group="new").run_once()
    assert sorted(log.bodies) == [b"buried", b"retried"]


async def test_the_depth_of_a_group_is_its_own(client: Redis, stream: Stream) -> None:
    await started(client, stream, "a", "b")
    await Producer(client, stream).publish_many([Draft(b"x")] * 5)
    await consumer(client, stream, done, group="a").run_once()

    async def depths() -> Any:
        return [(await Inspector(client, stream, group=group).stats()).depth for group in "ab"]

    assert await depths() == [0, 5]
    await consumer(client, stream, done, group="b").run_once()
    assert await depths() == [0, 0]


async def test_where_the_groups_may_not_be_seen_nothing_is_deleted(
    own_server: Callable[..., Server], connected: Connected, stream: Stream
) -> None:
    client = connected(own_server())
    await started(client, stream, "a", "b")
    await Producer(client, stream).publish(b"x")
    await client.acl_setuser("default", enabled=True, commands=["-xinfo"])
    worker = consumer(client, stream, done, group="a")
    worker._acker._stop_retrying.set()  # one try: it counts as an outage
    assert await worker.run_once() == 0
    await client.acl_setuser("default", enabled=True, commands=["+xinfo"])
    stats = await Inspector(client, stream, group="a").stats()
    assert (await left(client, stream), stats.pending) == (1, 1)
