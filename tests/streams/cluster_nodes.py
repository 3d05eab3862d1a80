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

from streams.slots import SlotRange, slot_of
from tests.streams.servers import HOST, Server, cluster_options
from torture.system import cluster_nodes
from torture.system.cluster_nodes import PRIMARIES, text

NODE_TIMEOUT_MS = 2_000  # a busy machine may not run a node for a second
NEVER = Retry(NoBackoff(), 0)


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

    async def run(self, *command: str | int) -> Any:
        """Run one command on this node."""
        async with self.client() as client:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py has no types there

    async def slots(self) -> Sequence[SlotRange]:
        """Return the map of the slots as this node knows it."""
        return await cluster_nodes.slots(self)


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
        await cluster_nodes.form(self.nodes)

    async def _started(self) -> ClusterNode:
        node = ClusterNode(self._folder / str(len(self.nodes)))
        self.nodes.append(node)
        await asyncio.to_thread(node.start)
        node.id = text(await node.run("CLUSTER", "MYID"))
        return node

    async def heal(self) -> None:
        """Start the nodes that were killed, resume those that were paused, and wait until every primary with slots has a
        replica again."""
        for node in self.nodes:
            if node.is_running:
                node.resume()
            else:
                await asyncio.to_thread(node.start)
        await self.until(lambda: cluster_nodes.agree(self.nodes, replicas=self._replicas))

    async def add(self) -> ClusterNode:
        """Add a node without slots, and wait until it would serve them: a new node waits for some seconds."""
        node = await self._started()
        await cluster_nodes.introduce(self.nodes, [node])
        await self.until(partial(cluster_nodes.serves, node))
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
        source = await self.owner(key)
        await cluster_nodes.move_slot(self.nodes, slot_of(key), source=source, target=target, pause_s=pause_s)

    async def until(self, condition: Callable[[], Awaitable[bool]], *, within_s: float = 30) -> None:
        """Return when the condition is true. It polls, since nodes do not signal what they learn."""
        await cluster_nodes.until(condition, within_s=within_s)

    def end(self) -> None:
        for node in self.nodes:
            node.kill()
