from __future__ import annotations

from datetime import timedelta

import pytest
from redis.asyncio import Redis

from streams import Consumer, ConsumerOptions, Dead, DeadLetters, Done, Draft, Lane, Message, Outcome, Producer, Stream


async def bury(client: Redis, stream: Stream, count: int, lane: str = "default") -> DeadLetters:
    async def handler(message: Message) -> Outcome:
        return Dead(f"reason {message.body.decode()}")

    await Producer(client, stream).publish_many(
        [Draft(b"%d" % number, lane, {"n": str(number)}) for number in range(count)]
    )
    worker = Consumer(client, stream, group="g", name="c", handler=handler, options=ConsumerOptions(concurrency=1))
    while await worker.run_once():
        pass
    return DeadLetters(client, stream)


async def test_pages_go_from_the_newest_to_the_oldest_and_back(client: Redis, stream: Stream) -> None:
    dead = await bury(client, stream, 5)
    first = await dead.list(2)
    assert [letter.body for letter in first.letters] == [b"4", b"3"]
    assert first.newer is None
    second = await dead.list(2, before=first.older)
    assert [letter.body for letter in second.letters] == [b"2", b"1"]
    third = await dead.list(2, before=second.older)
    assert [letter.body for letter in third.letters] == [b"0"]
    assert third.older is None
    back = await dead.list(2, after=third.newer)
    assert back.letters == second.letters
    assert (await dead.list(2, after=back.newer)).newer is None


async def test_an_empty_list_has_no_pages(client: Redis, stream: Stream) -> None:
    dead = DeadLetters(client, stream)
    page = await dead.list()
    assert (page.letters, page.older, page.newer, await dead.count()) == ((), None, None, 0)
    with pytest.raises(ValueError, match="not both"):
        await dead.list(before="1-1", after="1-1")


async def test_a_letter_is_found_by_its_id(client: Redis, stream: Stream) -> None:
    dead = await bury(client, stream, 2)
    letter = (await dead.list()).letters[0]
    assert await dead.get(letter.id) == letter
    assert await dead.get("1-1") is None


async def test_a_very_long_reason_is_cut(client: Redis, stream: Stream) -> None:
    async def handler(message: Message) -> Outcome:
        return Dead("x" * 100_000)

    await Producer(client, stream).publish(b"x")
    await Consumer(client, stream, group="g", name="c", handler=handler).run_once()
    assert len((await DeadLetters(client, stream).list()).letters[0].reason) == 1_000


async def test_replay_puts_letters_back_as_new_messages(client: Redis, stream: Stream) -> None:
    dead = await bury(client, stream, 3)
    chosen = (await dead.list()).letters[1]
    assert await dead.replay(ids=[chosen.id, "1-1"]) == 1
    assert await dead.count() == 2
    seen: list[Message] = []

    async def handler(message: Message) -> Outcome:
        seen.append(message)
        return Done()

    await Consumer(client, stream, group="g", name="c", handler=handler).run_once()
    assert [(each.lane, each.body, each.headers, each.attempt) for each in seen] == [("default", b"1", {"n": "1"}, 1)]


async def test_replay_of_all_takes_the_oldest_first_and_stops_at_its_limit(client: Redis, stream: Stream) -> None:
    dead = await bury(client, stream, 250)
    assert await dead.replay(limit=120) == 120
    assert [letter.body for letter in (await dead.list(1)).letters] == [b"249"]
    assert await dead.replay() == 130
    assert await dead.replay() == 0
    assert await client.xlen(stream.lane_key("default")) == 250


async def test_a_letter_whose_lane_is_gone_is_replayed_to_the_last_one(client: Redis, stream: Stream) -> None:
    await bury(client, stream, 1, lane="low")
    smaller = Stream(stream.name, lanes=(Lane("critical", 6), Lane("default", 3)))
    assert await DeadLetters(client, smaller).replay() == 1
    assert await client.xlen(stream.lane_key("default")) == 1


async def test_purge_deletes_the_chosen_letters_and_no_others(client: Redis, stream: Stream) -> None:
    dead = await bury(client, stream, 5)
    newest = (await dead.list()).letters[0]
    assert await dead.purge(ids=[newest.id, "1-1"]) == 1
    assert await dead.purge(older_than=timedelta(hours=1)) == 0
    assert await dead.count() == 4
    assert await dead.purge(everything=True) == 4
    assert await dead.count() == 0


async def test_purge_by_age_goes_by_the_servers_clock(client: Redis, stream: Stream) -> None:
    seconds, _ = await client.time()
    for age_s in (7_200, 3_700, 10):
        await client.xadd(stream.dead_key, {"b": str(age_s), "reason": "r"}, id=f"{(seconds - age_s) * 1000}-0")
    dead = DeadLetters(client, stream)
    assert await dead.purge(older_than=timedelta(hours=1)) == 2
    assert [letter.body for letter in (await dead.list()).letters] == [b"10"]


async def test_purge_without_saying_what_is_refused(client: Redis, stream: Stream) -> None:
    dead = DeadLetters(client, stream)
    with pytest.raises(ValueError, match="exactly one"):
        await dead.purge()
    with pytest.raises(ValueError, match="exactly one"):
        await dead.purge(ids=[], everything=True)
