"""The primary's address from sentinels: found, checked, and found again after a failover."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis

from streams import connect
from streams.connection import redis_errors, replies
from streams.errors import StreamForbidden, StreamUnavailable
from streams.sentinel import parse_sentinel_url
from tests.streams.sentinels import PASSWORD, WatchedServers
from tests.streams.servers import HOST, RefusingServer, Server


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[WatchedServers]:
    one = WatchedServers(tmp_path)
    try:
        await one.start()
        yield one
    finally:
        one.end()


async def leads_to(client: Redis, server: Server) -> None:
    """Wait until the client writes to `server`."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(StreamUnavailable), redis_errors():
                [reply] = await replies(client, [("SET", "key", "value")])
                if reply == b"OK" and await port_of(client) == server.port:
                    return
            await asyncio.sleep(0.05)


async def port_of(client: Redis) -> int:
    """Return the port of the server that answers the client."""
    with redis_errors():
        [reply] = await replies(client, [("CONFIG", "GET", "port")])
    return int(reply[1])


async def test_the_primary_is_used_that_the_sentinels_name_and_another_one_after_a_failover(
    watched: WatchedServers,
) -> None:
    first, second = watched.servers
    async with connect(watched.url(), timeout=timedelta(seconds=2)) as client:
        assert await port_of(client) == first.port
        watched.sentinels[0].kill()  # the others are asked
        first.kill()
        await watched.primary_is(second)
        promoted_s = time.monotonic()
        await leads_to(client, second)
        # Two sentinels need a moment to hear of it from the one that led the failover.
        assert time.monotonic() - promoted_s < 5
        for sentinel in watched.sentinels:
            sentinel.kill()
        assert await port_of(client) == second.port  # a connection that is there needs no sentinel
        await client.connection_pool.disconnect(inuse_connections=False)
        with pytest.raises(StreamUnavailable, match="no sentinel names a primary"):
            await port_of(client)


async def test_a_forced_failover_moves_kept_connections(watched: WatchedServers) -> None:
    """Both servers live on: the old primary answers READONLY, and is not asked again."""
    _, second = watched.servers
    async with connect(watched.url(), timeout=timedelta(seconds=2)) as client:
        await port_of(client)
        await watched.fail_over()
        await leads_to(client, second)


async def test_a_wrong_password_of_the_sentinels_is_named_and_not_shown(watched: WatchedServers) -> None:
    async with connect(watched.url(password="wrong-" + PASSWORD)) as client:
        with pytest.raises(StreamForbidden, match="invalid username-password pair") as refused:
            await port_of(client)
    assert PASSWORD not in str(refused.value)


async def test_a_server_that_calls_itself_a_replica_is_not_used(tmp_path: Path) -> None:
    """A sentinel that has not heard of a failover names the old primary."""
    server = Server(tmp_path, "--replicaof", f"{HOST} 1")
    server.start()
    fields = {"name": "main", "ip": HOST, "port": server.port, "flags": "master"}
    words = [str(word) for pair in fields.items() for word in pair]
    reply = f"*{len(words)}\r\n" + "\r\n".join(f"${len(word)}\r\n{word}" for word in words)
    try:
        async with (
            RefusingServer(reply) as sentinel,
            connect(f"redis+sentinel://{HOST}:{sentinel.port}/main") as client,
        ):
            with pytest.raises(StreamUnavailable, match="is not the primary: its role is slave"):
                await port_of(client)
    finally:
        server.stop()


@pytest.mark.parametrize("url", ["redis+sentinel://h", "redis+sentinel://h,/main", "redis+sentinel:///main"])
def test_an_incomplete_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="names no"):
        parse_sentinel_url(url)


def test_a_url_tells_the_credentials_of_both_apart() -> None:
    found = parse_sentinel_url(
        "rediss+sentinel://u:p%40@a,b:1/main/3?sentinel_username=s&sentinel_password=q&ssl_ca_certs=c"
    )
    assert found.hosts == (("a", 26379), ("b", 1))
    assert found.name == "main"
    assert found.of_primary == {"username": "u", "password": "p@", "db": 3, "ssl_ca_certs": "c"}
    assert found.of_sentinels == {"username": "s", "password": "q", "ssl_ca_certs": "c", "ssl": True}
    assert "p@" not in repr(found)
    assert "'q'" not in repr(found)
