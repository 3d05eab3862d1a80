"""The state of a cluster and of each node, as an operator needs to know them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from streams.cluster import ClusterPool, node_clients, text_of
from streams.connection import replies, translating
from streams.errors import StreamError, StreamRefused
from streams.keys import Stream
from streams.server import ServerFacts, server_facts
from streams.slots import SlotRange, slot_of


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """One node: the `slots` that it serves (0 for a replica) and the addresses of its `replicas`. `serves` is the cluster's
    state by its own words, None if it may not tell; `full_coverage` the setting `cluster-require-full-coverage`. `server` is
    None if the node does not answer or, with `refused`, refuses INFO, TIME or the login, for the reason in `error`."""

    address: str
    slots: int
    replicas: Sequence[str] = ()
    serves: bool | None = None
    full_coverage: bool | None = None
    server: ServerFacts | None = None
    error: str = ""
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """The nodes, primaries first, and the address of the node that has each of the streams asked for."""

    nodes: Sequence[NodeFacts]
    node_of_stream: Sequence[tuple[str, str]]

    @property
    def slots(self) -> int:
        """The number of slots that a node serves."""
        return sum(node.slots for node in self.nodes)


@translating
async def cluster_facts(client: Redis, streams: Sequence[Stream] = ()) -> ClusterFacts | None:
    """Return the facts about the cluster, None for a client of one server. A node that does not answer, or refuses, is
    named with its error. Raises `StreamUnavailable` if none tells who has which slots."""
    pool = client.connection_pool
    if not isinstance(pool, ClusterPool):
        return None
    nodes = await node_clients(client)
    ranges = pool.ranges
    facts = await asyncio.gather(*(_node_facts(address, node, ranges) for address, node in nodes.items()))
    owners = [
        (stream.name, text_of(one.primary))
        for stream in streams
        for one in ranges
        if one.first <= slot_of(stream.dead_key) <= one.last
    ]
    return ClusterFacts(nodes=sorted(facts, key=lambda node: not node.slots), node_of_stream=owners)


async def _node_facts(address: str, client: Redis, ranges: Sequence[SlotRange]) -> NodeFacts:
    its = [one for one in ranges if text_of(one.primary) == address]
    slots = sum(one.last + 1 - one.first for one in its)
    replicas = sorted({text_of(replica) for one in its for replica in one.replicas})
    try:
        server = await server_facts(client)
        serves, full_coverage = await _settings(client)
    except StreamError as error:
        refused = isinstance(error, StreamRefused)
        return NodeFacts(address=address, slots=slots, replicas=replicas, error=str(error), refused=refused)
    return NodeFacts(
        address=address,
        slots=slots,
        replicas=replicas,
        serves=serves,
        full_coverage=full_coverage,
        server=server,
    )


@translating
async def _settings(client: Redis) -> tuple[bool | None, bool | None]:
    """Return whether the node serves, and its setting of full coverage; managed servers often refuse both commands."""
    info: Any
    info, setting = await replies(client, [("CLUSTER", "INFO"), ("CONFIG", "GET", "cluster-require-full-coverage")])
    serves = None if isinstance(info, ResponseError) else b"cluster_state:ok" in info
    coverage = None if isinstance(setting, ResponseError) or not setting else setting[1] == b"yes"
    return serves, coverage
