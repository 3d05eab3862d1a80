"""A cluster on loopback: three primaries, each with a replica, and more nodes on demand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from streams.slots import SLOTS, SlotRange, parse_slots, slot_of
from tests.streams.servers import HOST, Server, cluster_options

NODE_TIMEOUT_MS = 2_000  # a busy machine may not run a node for a second
NEVER = Retry(NoBackoff(), 0)
PRIMARIES = 3


class ClusterNode(Server):
    """One node. Its `id` is known once it runs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        ports = cluster_options()
        timeouts = ("--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-require-full-coverage", "no")
        super().__init__(folder, *ports, *timeouts, "--repl-diskless-sync-delay", "0")
        self.bus_port = int(ports[-1])
        self.id = ""

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Redis]:
        """A client of this node alone."""
        async with Redis(host=HOST, port=self.port, protocol=2, socket_timeout=2, retry=NEVER) as client:
            yield client

    async def run(self, *command: str | int) -> object:
        """Run one command on this node."""
        async with self.client() as client:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py has no types there

    async def slots(self) -> Sequence[SlotRange]:
        """Return the map of the slots as this node knows it."""
        reply: Any = await self.run("CLUSTER", "SLOTS")
        return parse_slots(reply, asked=(HOST, self.port))


class ClusterNodes:
    """The nodes: the first `PRIMARIES` share the slots, and the node `PRIMARIES + n` is the replica of the node n."""

    def __init__(self, folder: Path, *, replicas: bool = True) -> None:
        self._folder = folder
        self.nodes: list[ClusterNode] = []
        self._replicas = int(replicas)

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes[:PRIMARIES])

    async def start(self) -> None:
        """Start the cluster, and wait until each node serves, and each replica follows its primary."""
        for _ in range(PRIMARIES * (1 + self._replicas)):
            await self._started()
        edges = [SLOTS * at // PRIMARIES for at in range(PRIMARIES + 1)]
        for at, node in enumerate(self.nodes[:PRIMARIES]):
            await node.run("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
            await node.run("CLUSTER", "ADDSLOTSRANGE", edges[at], edges[at + 1] - 1)
        await self._introduce(self.nodes[1:])
        for at, node in enumerate(self.nodes[PRIMARIES:]):
            await node.run("CLUSTER", "REPLICATE", self.nodes[at].id)
        await self.until(self._agree)

    async def _started(self) -> ClusterNode:
        node = ClusterNode(self._folder / str(len(self.nodes)))
        self.nodes.append(node)
        await asyncio.to_thread(node.start)
        node.id = _text(await node.run("CLUSTER", "MYID"))
        return node

    async def _introduce(self, nodes: Sequence[ClusterNode]) -> None:
        first = self.nodes[0]
        for node in nodes:
            await node.run("CLUSTER", "MEET", HOST, first.port, first.bus_port)
        for node in self.nodes:
            await self.until(partial(self._knows_all, node))

    async def _knows_all(self, node: ClusterNode) -> bool:
        lines = _text(await node.run("CLUSTER", "NODES")).splitlines()
        return len(lines) == len(self.nodes) and not any("handshake" in line for line in lines)

    async def heal(self) -> None:
        """Start the nodes that were killed, resume those that were paused, and wait until every primary with slots has a
        replica again."""
        for node in self.nodes:
            if node.is_running:
                node.resume()
            else:
                await asyncio.to_thread(node.start)
        await self.until(self._agree)

    async def _agree(self) -> bool:
        """Return True if all nodes serve, and know a replica of every primary, which follows it."""
        for node in self.nodes:
            if not await _serves(node) or any(len(one.replicas) < self._replicas for one in await node.slots()):
                return False
        return all([await _is_connected(node) for node in self.nodes])

    async def add(self) -> ClusterNode:
        """Add a node without slots, and wait until it would serve them: a new node waits for some seconds."""
        node = await self._started()
        await self._introduce([node])
        await self.until(partial(_serves, node))
        return node

    async def owner(self, key: str) -> ClusterNode:
        """Return the node that serves the key's slot, by the word of all nodes that run."""
        found: set[int] = set()
        async with asyncio.timeout(30):
            while len(found) != 1:
                found = set()
                for node in self.nodes:
                    with contextlib.suppress(RedisError, OSError):
                        for one in await node.slots():
                            if one.first <= slot_of(key) <= one.last:
                                found.add(one.primary[1])
                await asyncio.sleep(0.02)
        return next(node for node in self.nodes if node.port in found)

    async def promoted(self, key: str, lost: ClusterNode) -> ClusterNode:
        """Return the node that serves the key's slot after the loss of another, once all know it."""
        async with asyncio.timeout(30):
            while (found := await self.owner(key)) is lost:
                await asyncio.sleep(0.02)
        return found

    @contextlib.asynccontextmanager
    async def slot_moving(self, key: str) -> AsyncIterator[None]:
        """Inside the block, the slot of this key is on its way to another primary, and no key has been moved."""
        slot, source = slot_of(key), await self.owner(key)
        primaries = {one.primary[1] for one in await source.slots()}
        target = next(node for node in self.nodes if node.port in primaries and node is not source)
        await target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        await source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        try:
            yield
        finally:
            for node in (source, target):
                await node.run("CLUSTER", "SETSLOT", slot, "STABLE")

    async def move_slot(self, key: str, target: ClusterNode, *, pause_s: float = 0.0) -> None:
        """Move the slot of this key to another node, its keys one by one, while both serve what they have."""
        slot, source = slot_of(key), await self.owner(key)
        await target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        await source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        while keys := await source.run("CLUSTER", "GETKEYSINSLOT", slot, 1):
            assert isinstance(keys, list)
            await source.run("MIGRATE", HOST, target.port, keys[0], 0, 5_000)
            await asyncio.sleep(pause_s)
        for node in (target, source, *(one for one in self.nodes if one not in (source, target))):
            with contextlib.suppress(RedisError, OSError):  # a replica refuses, and learns it from its primary
                await node.run("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    async def until(self, condition: Callable[[], Awaitable[bool]], *, within_s: float = 30) -> None:
        """Return when the condition is true. It polls, since nodes do not signal what they learn."""
        async with asyncio.timeout(within_s):
            while True:
                with contextlib.suppress(RedisError, OSError):
                    if await condition():
                        return
                await asyncio.sleep(0.02)

    def end(self) -> None:
        for node in self.nodes:
            node.kill()


async def _serves(node: ClusterNode) -> bool:
    return "cluster_state:ok" in _text(await node.run("CLUSTER", "INFO"))


async def _is_connected(node: ClusterNode) -> bool:
    """Return True for a primary, and for a replica that follows one."""
    async with node.client() as client:
        role: Any = await client.role()
        return bool(role[0] == b"master" or role[3] == b"connected")


def _text(reply: object) -> str:
    return reply.decode() if isinstance(reply, bytes) else str(reply)
