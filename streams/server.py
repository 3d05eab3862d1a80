"""The server's version and configuration, and the refusal of one that would lose messages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from redis.asyncio import Redis

from streams.cluster import ClusterPool, node_clients, text_of
from streams.connection import translating
from streams.errors import StreamRefused, StreamUnavailable, UnsafeServer

OLDEST: Final = {"redis": (6, 2), "valkey": (7, 2)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """The server: `kind` is "redis" or "valkey", `role` "master" or "slave"; no `maxmemory_bytes` (0) is no limit.
    `sent_at` is this machine's clock right before `now`, the server's, was read."""

    kind: str
    version: str
    role: str
    maxmemory_bytes: int
    maxmemory_policy: str
    used_memory_bytes: int
    appendonly: bool
    now: datetime
    sent_at: datetime

    @property
    def supported(self) -> bool:
        """True if the library supports this version."""
        parts = tuple(int(part) for part in self.version.split(".")[:2] if part.isdigit())
        return parts >= OLDEST[self.kind]

    @property
    def noeviction(self) -> bool:
        return self.maxmemory_policy == "noeviction"


@translating
async def server_facts(client: Redis) -> ServerFacts:
    """Read the facts from INFO: managed servers often refuse CONFIG."""
    async with client.pipeline(transaction=False) as pipe:
        pipe.info()
        pipe.time()
        sent_at = datetime.now(UTC)
        info, (seconds, microseconds) = await pipe.execute()
    return _facts(info, datetime.fromtimestamp(seconds + microseconds / 1_000_000, UTC), sent_at)


def _facts(info: dict[str, Any], now: datetime, sent_at: datetime) -> ServerFacts:
    # For old clients, Valkey reports itself as redis 7.2.4 in the old field.
    valkey = info.get("valkey_version")
    return ServerFacts(
        kind="redis" if valkey is None else "valkey",
        version=str(valkey or info["redis_version"]),
        role=str(info["role"]),
        maxmemory_bytes=int(info["maxmemory"]),
        maxmemory_policy=str(info["maxmemory_policy"]),
        used_memory_bytes=int(info["used_memory"]),
        appendonly=bool(info["aof_enabled"]),
        now=now,
        sent_at=sent_at,
    )


@translating
async def require_noeviction(client: Redis) -> ServerFacts:
    """Return the server's facts; of a cluster, those of one node. Raises `UnsafeServer` if the server, or a node that
    answers, may evict keys when memory is full. Raises `StreamRefused` if one that serves slots refuses INFO, TIME or the
    login; a replica that does is passed over."""
    answered: ServerFacts | None = None
    error: StreamUnavailable | None = None
    for address, node in (await node_clients(client)).items():
        try:
            facts = await server_facts(node)
        except StreamRefused as failure:
            if _serves(client, address):
                raise type(failure)(f"{address}: {failure}" if address else str(failure)) from failure
            continue  # okane doctor tells
        except StreamUnavailable as failure:
            error = failure  # a replica may be away
            continue
        if not facts.noeviction:
            raise UnsafeServer(_eviction(facts, address))
        answered = answered or facts
    if answered is None:
        raise error or StreamUnavailable("no node answers")
    return answered


def _serves(client: Redis, address: str) -> bool:
    """Return True if the node has slots, or is the one server."""
    pool = client.connection_pool
    return not isinstance(pool, ClusterPool) or any(text_of(one.primary) == address for one in pool.ranges)


def _eviction(facts: ServerFacts, address: str) -> str:
    where = f" at {address}" if address else ""
    return (
        f"{facts.kind} {facts.version}{where} has maxmemory-policy {facts.maxmemory_policy}: when memory is full it "
        "deletes keys, streams included. Set it to noeviction (CONFIG SET maxmemory-policy noeviction, and in the "
        "server's configuration file), or use another server for the streams."
    )
