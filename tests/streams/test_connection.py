"""Connections send the same bytes as redis-py's, and return each reply to the caller of its command alone."""

from __future__ import annotations

import asyncio
import errno
import os
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Connection, Redis
from redis.connection import HiredisRespSerializer
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

import streams.pool
from streams import connect
from streams.connection import replies
from streams.pool import Command, packed

URLS = ("redis://127.0.0.1", "rediss://127.0.0.1", "unix:///tmp/redis.sock")


@pytest.mark.parametrize("url", URLS)
def test_commands_are_packed_by_hiredis_to_the_same_bytes(url: str) -> None:
    pool: Any = connect(url).connection_pool
    ours = pool.make_connection()
    theirs = Connection()
    assert isinstance(ours.pack_command.__self__, HiredisRespSerializer)
    for command in (
        ("EVALSHA", "0" * 40, 1, "{s}:lane", b"\x00\xff", -1, "Grüße", ""),
        ("XGROUP CREATE", "key", "group", "0", "MKSTREAM"),
        ("XADD", "key", "*", "b", b"x" * 100_000),
    ):
        assert b"".join(ours.pack_command(*command)) == b"".join(theirs.pack_command(*command))


def test_what_is_sent_past_redis_py_is_packed_to_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("EVALSHA", "0" * 40, 1, "{s}:lane", b"\x00\xff", -1, "Grüße", "")
    theirs = b"".join(Connection().pack_command(*command))
    assert b"".join(packed(Connection(), command)) == theirs
    untyped: Any = bytearray(b"x")
    assert b"".join(packed(Connection(), ("ECHO", untyped))) == b"*2\r\n$4\r\nECHO\r\n$1\r\nx\r\n"
    wrong: Any = None
    with pytest.raises(DataError):
        packed(Connection(), ("ECHO", wrong))
    monkeypatch.setattr(streams.pool, "HIREDIS_AVAILABLE", False)
    pool: Any = connect(URLS[0]).connection_pool
    assert b"".join(packed(pool.make_connection(), command)) == theirs


def idle(client: Redis) -> list[Any]:
    """Return the pool's connections; assert that none is in use."""
    pool: Any = client.connection_pool
    assert not pool._in_use_connections
    return list(pool._available_connections)


async def test_commands_are_answered_in_their_order_and_errors_are_answers(client: Redis, redis_url: str) -> None:
    commands: list[Command] = [("ECHO", "a"), ("NO", "COMMAND"), ("ECHO", b"\x00"), ("EVAL", "return {1, 'b', {}}", 0)]
    any_client = Redis.from_url(redis_url, protocol=2)
    for one in (client, any_client):
        first, error, *rest = await replies(one, commands)
        assert (first, rest) == (b"a", [b"\x00", [1, b"b", []]])
        assert isinstance(error, ResponseError)
        assert await replies(one, [("ECHO", "c")]) == [b"c"]
    assert len(idle(client)) == 1
    await any_client.aclose()


async def test_those_who_ask_at_the_same_time_get_their_own_answers(client: Redis) -> None:
    async def call(number: int) -> None:
        for _ in range(20):
            assert await replies(client, [("ECHO", number), ("ECHO", "x")]) == [str(number).encode(), b"x"]

    await asyncio.gather(*(call(number) for number in range(8)))
    assert len(idle(client)) <= 8


async def test_the_reply_to_a_cancelled_command_is_not_taken_for_another(client: Redis) -> None:
    for pause_s in (0.0, 0.0, 0.001, 0.001, 0.01):
        asking = asyncio.create_task(replies(client, [("ECHO", "late"), ("EVAL", "for i = 1, 300000 do end", 0)]))
        await asyncio.sleep(pause_s)
        asking.cancel()
        await asyncio.wait([asking])
        assert await replies(client, [("ECHO", "mine")]) == [b"mine"]
    assert len(idle(client)) == 1


async def test_a_connection_that_the_server_has_closed_is_made_anew(client: Redis) -> None:
    [number] = await replies(client, [("CLIENT", "ID")])
    async with Redis.from_url(f"redis://127.0.0.1:{client.connection_pool.connection_kwargs['port']}") as other:
        await other.client_kill_filter(_id=number)
    await asyncio.sleep(0.05)
    [another] = await replies(client, [("CLIENT", "ID")])
    assert another != number
    assert len(idle(client)) == 1


async def test_a_silent_server_is_not_waited_for_and_ordinary_commands_keep_their_time_limit() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = connect(f"redis://127.0.0.1:{port}", timeout=timedelta(milliseconds=100))
    with pytest.raises(RedisTimeoutError):
        await replies(client, [("PING",)])
    [connection] = idle(client)
    assert not connection.is_connected
    assert connection.socket_timeout == 0.1
    with pytest.raises(RedisTimeoutError):
        await client.ping()
    await client.aclose()
    server.close()
    await server.wait_closed()


async def test_a_connection_that_the_system_gives_up_has_not_answered(client: Redis) -> None:
    """ETIMEDOUT is a TimeoutError in Python, which redis-py mistakes for the end of a time-out of the caller."""
    asking = asyncio.create_task(replies(client, [("BLPOP", "nothing", 1)]))
    pool: Any = client.connection_pool
    async with asyncio.timeout(5):
        while not (pool._in_use_connections and next(iter(pool._in_use_connections)).is_connected):
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    [connection] = pool._in_use_connections
    connection._reader.set_exception(TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
    with pytest.raises(RedisTimeoutError):
        await asking
    assert not connection.is_connected
    assert idle(client) == [connection]
    assert await replies(client, [("ECHO", "a")]) == [b"a"]


async def test_a_refused_connection_raises_the_error_of_redis_py() -> None:
    client = connect("redis://127.0.0.1:1")
    with pytest.raises(RedisConnectionError):
        await replies(client, [("PING",)])
    idle(client)
    await client.aclose()
