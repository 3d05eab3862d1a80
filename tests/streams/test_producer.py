from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from streams import Draft, Metrics, Producer, Stream, StreamFull, StreamUnavailable
from streams.entry import flatten, to_message
from tests.streams.conftest import Connected
from tests.streams.servers import Proxy, Server
from torture.network.link_faults import LoseReplies


class Batches(Metrics):
    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.lanes: dict[str, int] = {}

    def batch(self, step: str, size: int) -> None:
        self.sizes.append(size)

    def published(self, lane: str, count: int) -> None:
        self.lanes[lane] = self.lanes.get(lane, 0) + count


async def _bodies(client: Redis, stream: Stream, lane: str) -> list[bytes]:
    entries: Any = await client.xrange(stream.lane_key(lane))
    return [fields[b"b"] for _, fields in entries]


async def test_a_message_lands_in_its_lane_with_its_headers(client: Redis, stream: Stream) -> None:
    producer = Producer(client, stream)
    entry_id = await producer.publish(b"\x00\xff", lane="low", headers={"trace": "äöü"})
    await producer.publish(b"plain")
    [(raw_id, fields)] = cast(Any, await client.xrange(stream.lane_key("low")))
    message = to_message(raw_id, flatten(fields), lane="low")
    assert (message.id, message.body, message.headers, message.attempt) == (entry_id, b"\x00\xff", {"trace": "äöü"}, 1)
    assert await _bodies(client, stream, "critical") == [b"plain"]


async def test_concurrent_callers_share_a_round_trip_and_keep_their_order(client: Redis, stream: Stream) -> None:
    batches = Batches()
    producer = Producer(client, stream, metrics=batches)
    ids = await asyncio.gather(*(producer.publish(b"%d" % number) for number in range(100)))
    assert batches.sizes == [100]
    assert batches.lanes == {"critical": 100}
    assert await _bodies(client, stream, "critical") == [b"%d" % number for number in range(100)]
    assert ids == sorted(ids, key=lambda entry_id: tuple(map(int, entry_id.split("-"))))


async def test_a_header_that_cannot_be_written_is_its_callers_error_alone(client: Redis, stream: Stream) -> None:
    producer = Producer(client, stream)
    odd, sound = await asyncio.gather(
        producer.publish(b"odd", headers={"name": "\ud800"}), producer.publish(b"sound"), return_exceptions=True
    )
    assert isinstance(odd, UnicodeEncodeError)
    assert isinstance(sound, str)


async def test_a_large_batch_is_cut_to_what_a_script_may_take(client: Redis, stream: Stream) -> None:
    batches = Batches()
    producer = Producer(client, stream, max_batch=2_000, metrics=batches)
    drafts = [Draft(b"%d" % number, headers={"one": "1", "two": "2"}) for number in range(1_000)]
    assert len(set(await producer.publish_many(drafts))) == 1_000
    assert sum(batches.sizes) == 1_000
    assert max(batches.sizes) * 8 <= 1_000
    assert await _bodies(client, stream, "critical") == [draft.body for draft in drafts]


async def test_a_full_lane_refuses_and_leaves_the_other_lanes_open(client: Redis, stream: Stream) -> None:
    producer = Producer(client, stream, max_length=3)
    answers = await asyncio.gather(*(producer.publish(b"x") for _ in range(5)), return_exceptions=True)
    assert [isinstance(answer, StreamFull) for answer in answers] == [False, False, False, True, True]
    await producer.publish(b"x", lane="low")
    with pytest.raises(StreamFull):
        await producer.publish(b"x")


async def test_publish_many_identifies_the_refused_messages(client: Redis, stream: Stream) -> None:
    producer = Producer(client, stream, max_length=2)
    with pytest.raises(StreamFull, match="1 of 4") as full:
        await producer.publish_many([Draft(b"1"), Draft(b"2"), Draft(b"3"), Draft(b"4", "low")])
    assert [entry_id is None for entry_id in full.value.published] == [False, False, True, False]
    assert await client.xlen(stream.lane_key("low")) == 1


async def test_an_unknown_lane_is_refused_before_anything_is_sent(client: Redis, stream: Stream) -> None:
    producer = Producer(client, stream)
    with pytest.raises(ValueError, match="no lane 'nope'"):
        await producer.publish_many([Draft(b"1"), Draft(b"2", "nope")])
    assert await client.exists(*stream.lane_keys) == 0


async def test_a_server_that_is_away_is_unavailable_and_works_when_it_is_back(
    own_server: Callable[..., Server], connected: Connected, stream: Stream
) -> None:
    server = own_server()
    client = connected(server)
    producer = Producer(client, stream)
    await producer.publish(b"before")
    server.kill()
    with pytest.raises(StreamUnavailable):
        await producer.publish_many([Draft(b"during"), Draft(b"too")])
    server.start()
    await producer.publish(b"after")  # a restarted server has forgotten the script: it is sent again
    assert await _bodies(client, stream, "critical") == [b"after"]


async def test_a_lost_reply_is_reported_and_the_message_is_not_sent_twice(
    own_server: Callable[..., Server], connected: Connected, stream: Stream
) -> None:
    server = own_server()
    direct = connected(server)
    async with Proxy(server) as proxy:
        client = connected(proxy)
        producer = Producer(client, stream)
        await producer.publish(b"loads the script")
        proxy.strike(LoseReplies())
        with pytest.raises(StreamUnavailable):
            await producer.publish(b"once")
        assert await _bodies(direct, stream, "critical") == [b"loads the script", b"once"]


async def test_a_server_out_of_memory_is_unavailable(
    own_server: Callable[..., Server], connected: Connected, stream: Stream
) -> None:
    server = own_server("--maxmemory", "1mb", "--maxmemory-policy", "noeviction")
    client = connected(server)
    await client.config_set("maxmemory", "1")
    with pytest.raises(StreamUnavailable, match="OOM"):
        await Producer(client, stream).publish(b"x")


async def test_closing_waits_for_what_is_under_way(client: Redis, stream: Stream) -> None:
    producer = Producer(client, stream)
    publishing = asyncio.create_task(producer.publish(b"x"))
    await asyncio.sleep(0)
    await producer.aclose()
    assert (await publishing).count("-") == 1
