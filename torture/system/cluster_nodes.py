"""The nodes of a Redis Cluster: they are joined, agree, and hand slots over. Nothing here starts or stops one."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from redis.exceptions import RedisError

from okane.local.ports import LOOPBACK
from streams.slots import SLOTS, SlotRange, parse_slots

PRIMARIES: Final = 3
WITHIN_S: Final = 30.0
_POLL_S = 0.02
_MIGRATE_MS = 5_000


class ClusterNode(Protocol):
    """One node that runs. `port` is the one that it announces."""

    id: str

    @property
    def port(self) -> int: ...
    @property
    def bus_port(self) -> int: ...

    async def run(self, *command: str | int) -> Any:
        """Run one command on this node. Raises redis-py's errors."""


Node = TypeVar("Node", bound=ClusterNode)


async def form(nodes: Sequence[ClusterNode]) -> None:
    """Make a cluster of new nodes: the first `PRIMARIES` share the slots, and the node `PRIMARIES + n`, if there is one, is
    the replica of the node n. Return when every node serves. Raises TimeoutError."""
    for node in nodes:
        node.id = text(await node.run("CLUSTER", "MYID"))
    edges = [SLOTS * at // PRIMARIES for at in range(PRIMARIES + 1)]
    for at, node in enumerate(nodes[:PRIMARIES]):
        await node.run("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
        await node.run("CLUSTER", "ADDSLOTSRANGE", edges[at], edges[at + 1] - 1)
    await introduce(nodes, nodes[1:])
    for at, node in enumerate(nodes[PRIMARIES:]):
        await node.run("CLUSTER", "REPLICATE", nodes[at].id)
    await until(lambda: agree(nodes, replicas=len(nodes) // PRIMARIES - 1))


async def introduce(nodes: Sequence[ClusterNode], new: Sequence[ClusterNode]) -> None:
    """Have all `nodes`, of which some are new, know each other. Raises TimeoutError."""
    for node in new:
        await nodes[0].run("CLUSTER", "MEET", LOOPBACK, node.port, node.bus_port)

    async def know_all() -> bool:
        for node in nodes:
            lines = text(await node.run("CLUSTER", "NODES")).splitlines()
            if len(lines) != len(nodes) or any("handshake" in line for line in lines):
                return False
        return True

    await until(know_all)


async def agree(nodes: Sequence[ClusterNode], *, replicas: int) -> bool:
    """Return True if all nodes serve, and know so many replicas of every primary, which follow it."""
    for node in nodes:
        if not await serves(node) or any(len(one.replicas) < replicas for one in await slots(node)):
            return False
    roles = [await node.run("ROLE") for node in nodes]
    return all(role[0] == b"master" or role[3] == b"connected" for role in roles)


async def serves(node: ClusterNode) -> bool:
    """Return True if the cluster is up by the word of this node."""
    return "cluster_state:ok" in text(await node.run("CLUSTER", "INFO"))


async def slots(node: ClusterNode) -> Sequence[SlotRange]:
    """Return the map of the slots as this node knows it."""
    return parse_slots(await node.run("CLUSTER", "SLOTS"), asked=(LOOPBACK, node.port))


async def named_owners(nodes: Sequence[ClusterNode], slot: int) -> Counter[int]:
    """Return the ports of the nodes that serve a slot, by how many nodes say so, of those that answer."""

    async def named_by(node: ClusterNode) -> int | None:
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            return next((one.primary[1] for one in await slots(node) if one.first <= slot <= one.last), None)
        return None

    named = await asyncio.gather(*map(named_by, nodes))
    return Counter(port for port in named if port is not None)


async def move_slot(
    nodes: Sequence[Node], slot: int, *, source: Node, target: Node, pause_s: float = 0.0, password: str = ""
) -> None:
    """Move a slot to another node, its keys one by one, while both serve what they have. Raises redis-py's errors."""
    authorized = ("AUTH", password) if password else ()
    await target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    await source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
    while keys := await source.run("CLUSTER", "GETKEYSINSLOT", slot, 1):
        await source.run("MIGRATE", LOOPBACK, target.port, keys[0], 0, _MIGRATE_MS, *authorized)
        await asyncio.sleep(pause_s)
    for node in (target, source, *(one for one in nodes if one not in (source, target))):
        with contextlib.suppress(RedisError, OSError):  # a replica refuses, and learns it from its primary
            await node.run("CLUSTER", "SETSLOT", slot, "NODE", target.id)


async def until(condition: Callable[[], Awaitable[bool]], *, within_s: float = WITHIN_S) -> None:
    """Return when the condition is true. It polls, since nodes do not signal what they learn. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while True:
            with contextlib.suppress(RedisError, OSError):
                if await condition():
                    return
            await asyncio.sleep(_POLL_S)


def text(reply: object) -> str:
    """Return a reply as text."""
    return reply.decode() if isinstance(reply, bytes) else str(reply)
