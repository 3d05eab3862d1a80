from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from okane.redis.presence import Presence, presence_key
from streams import Stream, connect
from streams.errors import GroupLost, StreamError, StreamUnavailable
from streams.testing import FakeClock
from tests.streams.conftest import Connected, until
from tests.streams.refusals import REPLIES
from tests.streams.servers import RefusingServer, Server


async def names(presence: Presence) -> list[str]:
    return [one.name for one in await presence.processes()]


async def test_processes_are_listed_by_role_and_name(client: Redis, stream: Stream) -> None:
    presence = Presence(client, stream)
    assert await presence.processes() == ()
    await presence.announce("127.0.0.1:9103", role="worker", name="east 2")
    await presence.announce("127.0.0.1:9102", role="worker", name="east 1")
    await presence.announce("127.0.0.1:9101", role="api", name="api")
    found = await presence.processes()
    assert [(one.role, one.name, one.address) for one in found] == [
        ("api", "api", "127.0.0.1:9101"),
        ("worker", "east 1", "127.0.0.1:9102"),
        ("worker", "east 2", "127.0.0.1:9103"),
    ]
    assert all(one.alive for one in found)


async def test_an_address_has_one_process(client: Redis, stream: Stream) -> None:
    presence = Presence(client, stream)
    await presence.announce("127.0.0.1:9101", role="worker", name="killed")
    await presence.announce("127.0.0.1:9101", role="worker", name="its-successor")
    assert await names(presence) == ["its-successor"]


async def test_one_that_died_is_silent_and_then_forgotten(client: Redis, stream: Stream) -> None:
    presence = Presence(client, stream, forget=timedelta(minutes=15))
    await presence.announce("here:1", role="worker", name="dead")
    note = await client.hget(presence_key(stream), "here:1")
    assert note is not None
    for minutes, left in ((14, ["alive", "dead"]), (15, ["alive"])):
        seen_ms = int(note.split()[0]) - minutes * 60_000
        await client.hset(presence_key(stream), "here:1", f"{seen_ms} worker dead")
        await presence.announce("here:2", role="worker", name="alive")
        assert await names(presence) == left
        assert [one.name for one in await presence.processes() if one.alive] == ["alive"]


async def test_a_list_without_heartbeats_expires(client: Redis, stream: Stream) -> None:
    presence = Presence(client, stream, forget=timedelta(milliseconds=50))
    await presence.announce("here:1", role="worker", name="dead")

    async def gone() -> bool:
        return not await client.exists(presence_key(stream))

    await until(gone)


async def test_a_process_speaks_up_again_and_again_and_leaves_when_it_ends(client: Redis, stream: Stream) -> None:
    clock, stop = FakeClock(), asyncio.Event()
    presence = Presence(client, stream, clock=clock)
    running = asyncio.ensure_future(presence.run("here:1", stop, role="worker", name="w"))
    await clock.until_asleep()
    await client.delete(presence_key(stream))  # as a flush would
    await clock.advance(timedelta(seconds=5))

    async def back() -> bool:
        return await names(presence) == ["w"]

    await until(back)
    stop.set()
    await running
    assert await presence.processes() == ()


async def test_a_full_server_still_takes_note(own_server: Callable[..., Server], connected: Connected) -> None:
    stream = Stream("full")
    client = connected(own_server())
    presence = Presence(client, stream)
    await presence.announce("here:1", role="worker", name="w")
    await client.config_set("maxmemory", "1")
    await presence.announce("here:1", role="worker", name="again")
    await presence.announce("here:2", role="worker", name="new")
    assert await names(presence) == ["again", "new"]


@pytest.mark.parametrize("text", REPLIES)
async def test_every_error_reply_is_an_outage_of_its_kind(text: str, stream: Stream) -> None:
    async with RefusingServer(f"-{text}") as server, connect(server.url) as client:
        with pytest.raises(StreamError) as raised:
            await Presence(client, stream).processes()
        assert type(raised.value) is REPLIES[text]
        assert isinstance(raised.value, StreamUnavailable | GroupLost)


async def test_an_absent_server_is_unavailable_and_does_not_delay_the_end(
    own_server: Callable[..., Server], connected: Connected
) -> None:
    server = own_server()
    presence = Presence(connected(server), Stream("away"))
    stop = asyncio.Event()
    running = asyncio.ensure_future(presence.run("here:1", stop, role="worker", name="w"))
    server.stop()
    with pytest.raises(StreamUnavailable):
        await presence.processes()
    stop.set()
    async with asyncio.timeout(20):
        await running
