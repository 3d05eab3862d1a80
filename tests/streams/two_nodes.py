"""A client of a cluster of two scripted nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from redis.asyncio import Redis

from streams import connect
from streams.cluster import ClusterPool
from streams.connection import redis_errors, replies
from streams.pool import Command
from streams.slots import SLOTS, slot_of
from tests.streams.scripted_node import Reply, ScriptedNode, Words, slots
from tests.streams.servers import HOST

KEY = "{s}:lane"
SET = ("SET", KEY, "value")
HALF = SLOTS // 2


class TwoNodes:
    """A client, and two nodes: `owner` has the slot of `KEY` by the map, `other` the other half of the slots."""

    def __init__(self, client: Redis, owner: ScriptedNode, other: ScriptedNode) -> None:
        self.client = client
        self.owner = owner
        self.other = other

    @property
    def pool(self) -> ClusterPool:
        pool: Any = self.client.connection_pool
        assert isinstance(pool, ClusterPool)
        return pool

    def redirected(self, code: str, node: ScriptedNode) -> Reply:
        """Return a script that sends every command with a key away to this node."""

        async def reply(words: Words) -> str:
            return "+OK" if words == [b"ASKING"] else f"-{code} {slot_of(KEY)} {HOST}:{node.port}"

        return reply

    def moved(self) -> None:
        """Give the slot to the other node, by the word of both."""
        self.owner.reply = self.redirected("MOVED", self.other)
        self.owner.map = self.other.map = slots((0, SLOTS - 1, self.other))

    async def send(self, *commands: Command) -> list[Any]:
        with redis_errors():
            return await replies(self.client, commands)

    @property
    def maps(self) -> int:
        """The number of requests for the map."""
        return self.owner.maps + self.other.maps


async def reached(condition: Callable[[], bool]) -> None:
    """Return when the condition is true."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def two_nodes() -> AsyncIterator[TwoNodes]:
    """Run the nodes, and connect to them."""
    async with ScriptedNode() as low, ScriptedNode() as high:
        low.map = high.map = slots((0, HALF - 1, low), (HALF, SLOTS - 1, high))
        owner, other = (low, high) if slot_of(KEY) < HALF else (high, low)
        url = f"redis+cluster://{HOST}:{owner.port},{HOST}:{other.port}"
        async with connect(url, timeout=timedelta(seconds=1)) as client:
            yield TwoNodes(client, owner, other)
