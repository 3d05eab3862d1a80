"""A Redis Cluster of three primaries, each with a replica.

Nodes hand out the addresses of each other, so a process has no link of its own to Redis: each node announces one proxy,
through which all processes and its replicas reach it. A fault of such a link strikes the node; the bus is not touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from redis.asyncio import Redis

from okane.lanes import payments_stream
from okane.local.ports import LOOPBACK
from streams import connect
from streams.slots import slot_of
from torture.system import cluster_nodes
from torture.system.links import Links
from torture.system.program_factory import ProgramFactory
from torture.system.shape import CLUSTER_LINKS

NODE_TIMEOUT_MS: Final = 1_000
_TIMEOUT: Final = timedelta(seconds=0.5)
_KEY_PAUSE_S: Final = 0.05  # so that the slot is on its way for a while


@dataclass(slots=True, kw_only=True)
class _Node:
    """One node, reached past its proxy."""

    number: int
    port: int
    bus_port: int
    client: Redis = field(repr=False)
    id: str = ""

    async def run(self, *command: str | int) -> Any:
        return await self.client.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py has no types there


class RedisCluster:
    """The cluster of the payments' stream. `aclose` closes the connections to its nodes."""

    def __init__(self, factory: ProgramFactory, links: Links) -> None:
        self._factory = factory
        self._slot = slot_of(payments_stream(factory.stream).dead_key)
        self._nodes = [
            _Node(
                number=number,
                port=links[link].port,
                bus_port=factory.port(f"redis-{number} bus"),
                client=connect(factory.redis_url(factory.port(f"redis-{number}")), timeout=_TIMEOUT),
            )
            for number, link in enumerate(CLUSTER_LINKS)
        ]

    @property
    def url(self) -> str:
        """The address of the cluster, for every process."""
        hosts = ",".join(f"{LOOPBACK}:{node.port}" for node in self._nodes)
        return f"redis+cluster://:{self._factory.redis_password}@{hosts}"

    def settings(self, number: int) -> Mapping[str, str]:
        """Return the settings of a node: it announces its proxy."""
        node = self._nodes[number]
        return {
            "cluster-enabled": "yes",
            "cluster-port": str(node.bus_port),
            "cluster-announce-ip": LOOPBACK,
            "cluster-announce-port": str(node.port),
            "cluster-announce-bus-port": str(node.bus_port),
            "cluster-node-timeout": str(NODE_TIMEOUT_MS),
            "cluster-require-full-coverage": "no",
            "masterauth": self._factory.redis_password,
            "repl-diskless-sync-delay": "0",
        }

    async def form(self) -> None:
        """Make the cluster of the nodes, which are new. Raises TimeoutError."""
        await cluster_nodes.form(self._nodes)

    async def primary(self) -> int | None:
        """Return the number of the node that serves the payments' slot, by the word of most nodes that answer."""
        named = await cluster_nodes.named_owners(self._nodes, self._slot)
        numbers = {node.port: node.number for node in self._nodes}
        for port, count in named.most_common(1):
            if count * 2 > named.total():
                return numbers.get(port)
        return None

    async def settled(self) -> None:
        """Wait until all nodes agree, and each primary has a replica that follows it. Raises TimeoutError."""
        await cluster_nodes.until(lambda: cluster_nodes.agree(self._nodes, replicas=1))

    async def fail_over(self) -> None:
        """Have the replica of the payments' primary take its place, in agreement with it. Raises redis-py's errors."""
        primary = await self.primary()
        assert primary is not None, "the cluster has settled"
        ports = await self._ports_of_replicas(self._nodes[primary])
        replica = next(node for node in self._nodes if node.port in ports)
        await replica.run("CLUSTER", "FAILOVER")

    async def move_slot(self) -> None:
        """Move the payments' slot to another primary. Raises redis-py's errors."""
        number = await self.primary()
        assert number is not None, "the cluster has settled"
        source = self._nodes[number]
        ports = {one.primary[1] for one in await cluster_nodes.slots(source)} - {source.port}
        # Each of the others in turn, whatever the run does beside it.
        target = next(node for node in [*self._nodes[number:], *self._nodes[:number]] if node.port in ports)
        password = self._factory.redis_password
        await cluster_nodes.move_slot(
            self._nodes, self._slot, source=source, target=target, pause_s=_KEY_PAUSE_S, password=password
        )

    async def aclose(self) -> None:
        await asyncio.gather(*(node.client.aclose() for node in self._nodes))

    async def _ports_of_replicas(self, node: _Node) -> set[int]:
        found = await cluster_nodes.slots(node)
        return {port for one in found if one.primary[1] == node.port for _, port in one.replicas}
