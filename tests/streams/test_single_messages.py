"""Single messages that a stream holds, by pages: pending entries with their owner, delayed messages, the entry of a body."""

from __future__ import annotations

from datetime import timedelta

import pytest
from redis.asyncio import Redis

from streams import DeadLetters, Delayed, Draft, EntrySearch, Inspector, Message, Outcome, Producer, Retry, Stream
from tests.streams.running import GROUP, consumer, read_and_die


@pytest.fixture
def inspector(client: Redis, stream: Stream) -> Inspector:
    return Inspector(client, stream, group=GROUP)


async def delay(client: Redis, stream: Stream, bodies: list[bytes], by: timedelta) -> None:
    await Producer(client, stream).publish_many([Draft(body, lane="low") for body in bodies])

    async def later(_message: Message) -> Outcome:
        return Retry("later", after=by)

    await consumer(client, stream, later, concurrency=100).run_once()


async def test_a_stream_that_does_not_exist_has_no_messages(inspector: Inspector) -> None:
    assert await inspector.pending("low") == ()
    page = await inspector.delayed()
    assert (page.messages, page.next) == ((), None)
    found = await inspector.entry_of(b"x", "low", since_ms=0, until_ms=page.now_ms)
    assert found == EntrySearch(found=None, complete=True)


async def test_nothing_comes_behind_the_last_id_that_there_can_be(
    client: Redis, stream: Stream, inspector: Inspector
) -> None:
    await Producer(client, stream).publish_many([Draft(b"x", lane="low")])
    await read_and_die(client, stream, name="c1")
    last = f"{2**64 - 1}-{2**64 - 1}"
    assert await inspector.pending("low", after=last) == ()
    assert len(await inspector.pending("low", after="0-0")) == 1
    letters = DeadLetters(client, stream)
    assert (await letters.list(after=last)).letters == ()
    assert (await letters.list(before="0-0")).letters == ()


async def test_pending_entries_come_in_pages_with_their_owner(
    client: Redis, stream: Stream, inspector: Inspector
) -> None:
    ids = await Producer(client, stream).publish_many([Draft(str(n).encode(), lane="low") for n in range(5)])
    await read_and_die(client, stream, name="c1")
    first = await inspector.pending("low", count=3)
    assert [(one.id, one.consumer, one.deliveries, one.body) for one in first] == [
        (entry_id, "c1", 1, str(n).encode()) for n, entry_id in enumerate(ids[:3])
    ]
    assert all(0 <= one.idle_ms < 60_000 for one in first)
    second = await inspector.pending("low", after=first[-1].id, count=3)
    assert [one.id for one in second] == ids[3:]
    assert await inspector.pending("low", after=second[-1].id) == []
    assert await inspector.pending("critical") == []


async def test_a_pending_entry_that_was_deleted_has_no_body(
    client: Redis, stream: Stream, inspector: Inspector
) -> None:
    entry_id = await Producer(client, stream).publish(b"x", lane="low")
    await read_and_die(client, stream, name="c1")
    await client.xdel(stream.lane_key("low"), entry_id)
    [one] = await inspector.pending("low")
    assert (one.id, one.body) == (entry_id, None)


async def test_delayed_messages_come_in_pages_by_due_time(client: Redis, stream: Stream, inspector: Inspector) -> None:
    await delay(client, stream, [b"later"], timedelta(hours=2))
    await delay(client, stream, [b"sooner"], timedelta(hours=1))
    page = await inspector.delayed(count=1)
    [sooner] = page.messages
    assert (sooner.body, sooner.lane, sooner.attempt) == (b"sooner", "low", 2)
    assert 0 < sooner.due_ms - page.now_ms <= 3_600_000
    rest = await inspector.delayed(after=page.next)
    assert [one.body for one in rest.messages] == [b"later"]
    assert rest.next is None


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_messages_that_are_due_at_once_are_each_on_one_page(
    client: Redis, stream: Stream, inspector: Inspector, size: int
) -> None:
    await client.zadd(stream.delayed_key, {f"m{n}": 5_000 + n // 3 for n in range(7)})
    found, cursor = [], None
    while True:
        page = await inspector.delayed(after=cursor, count=size)
        found += [one.body for one in page.messages]
        if (cursor := page.next) is None:
            break
    assert found == [f"m{n}".encode() for n in range(7)]


async def test_a_member_that_another_program_wrote_is_listed_with_its_beginning(
    client: Redis, stream: Stream, inspector: Inspector
) -> None:
    await client.zadd(stream.delayed_key, {b"\xff" + b"x" * 5_000: 1_000})
    [one] = (await inspector.delayed()).messages
    assert (one.due_ms, one.lane, one.attempt, one.body) == (1_000, "", None, b"\xff" + b"x" * 199)


async def test_the_entry_of_a_body_is_the_newest_with_its_owner(
    client: Redis, stream: Stream, inspector: Inspector
) -> None:
    producer = Producer(client, stream)
    bodies = [b"other", b"mine", b"other", b"mine"]
    ids = await producer.publish_many([Draft(body, lane="low") for body in bodies])
    window = {"since_ms": int(ids[0].split("-")[0]), "until_ms": int(ids[-1].split("-")[0])}
    waiting = (await inspector.entry_of(b"mine", "low", **window)).found
    assert waiting is not None
    assert (waiting.id, waiting.pending) == (ids[3], None)
    await read_and_die(client, stream, name="c1")
    held = (await inspector.entry_of(b"mine", "low", **window)).found
    assert held is not None
    assert held.pending is not None
    assert (held.pending.id, held.pending.consumer, held.pending.body) == (ids[3], "c1", b"mine")
    assert await inspector.entry_of(b"mine", "low", since_ms=0, until_ms=1) == EntrySearch(found=None, complete=True)


async def test_a_window_with_more_entries_than_are_read_says_so(
    client: Redis, stream: Stream, inspector: Inspector
) -> None:
    await Producer(client, stream).publish_many([Draft(b"mine", lane="low")] + [Draft(b"other", lane="low")] * 3)
    far_ms = 2**47
    found = await inspector.entry_of(b"mine", "low", since_ms=0, until_ms=far_ms, limit=3)
    assert found == EntrySearch(found=None, complete=False)
    assert (await inspector.entry_of(b"mine", "low", since_ms=0, until_ms=far_ms, limit=4)).found is not None


async def test_wrong_lanes_ids_cursors_and_sizes_are_refused(
    client: Redis, stream: Stream, inspector: Inspector
) -> None:
    with pytest.raises(ValueError, match="no lane 'x'"):
        await inspector.pending("x")
    with pytest.raises(ValueError, match="no lane"):
        await inspector.entry_of(b"", "delayed", since_ms=0, until_ms=1)
    for wrong in ("", "1", "+", "1-1 COUNT", "99999999999999999999-0"):
        with pytest.raises(ValueError, match="not an entry's id"):
            await inspector.pending("low", after=wrong)
        with pytest.raises(ValueError, match="not an entry's id"):
            await inspector.delayed(after=wrong)
    for count in (0, 1_001):
        with pytest.raises(ValueError, match="1 to 1,000"):
            await inspector.pending("low", count=count)
    assert await Delayed(client, stream).count() == 0
