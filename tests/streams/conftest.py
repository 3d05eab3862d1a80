"""Fixtures of the tests of `streams`: a shared server, clients, streams, and private servers to break."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from streams import Lane, Message, Stream, connect
from tests.streams.servers import Proxy, Server
from tests.streams.two_nodes import TwoNodes, two_nodes

_numbers = itertools.count(1)

Connected = Callable[[Server | Proxy], Redis]


@pytest.fixture(scope="session")
def stream_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The shared server: use the stream of the fixture, and never FLUSHALL."""
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(stream_server: Server) -> str:
    return stream_server.url


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def stream() -> Stream:
    """The stream of this test, with three lanes."""
    lanes = (Lane("critical", 6), Lane("default", 3), Lane("low", 1))
    return Stream(f"test:{next(_numbers)}", lanes=lanes)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A function that starts private servers of this test, with options."""
    servers: list[Server] = []

    def start(*options: str) -> Server:
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        servers.append(Server(folder, *options))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
async def connected() -> AsyncIterator[Connected]:
    """A function that makes clients of private servers; they are closed after the test."""
    clients: list[Redis] = []

    def to(server: Server | Proxy) -> Redis:
        clients.append(connect(server.url))
        return clients[-1]

    yield to
    for client in clients:
        await client.aclose()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return when the condition is true. It polls, since a server does not signal changes."""
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.01)


async def pretend_idle(client: Redis, stream: Stream, message: Message, *, group: str, consumer: str) -> None:
    """Set the idle time of a message as if `consumer` had read it an hour ago."""
    key = stream.lane_key(message.lane)
    await client.xclaim(
        key, group, consumer, 0, [message.id], idle=3_600_000, retrycount=message.deliveries, justid=True
    )


@pytest.fixture
async def nodes() -> AsyncIterator[TwoNodes]:
    """A cluster of two scripted nodes, and a client of it."""
    async with two_nodes() as found:
        yield found
