"""The slots of a cluster: which one a key has, which key a command has, and which nodes serve each slot. Pure.

Source: Redis docs, "Redis cluster specification"; the reply is that of CLUSTER SLOTS, which Redis and Valkey have since 3.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from redis.crc import key_slot

from streams.pool import Command
from streams.server_url import Host, connection_options, parse_hosts
from streams.url_parts import split_url

SCHEMES: Final = ("redis+cluster://", "rediss+cluster://")
PORT: Final = 6379
SLOTS: Final = 16_384
_KEYLESS: Final = frozenset(
    {
        "ACL",
        "AUTH",
        "CLIENT",
        "CLUSTER",
        "COMMAND",
        "CONFIG",
        "DBSIZE",
        "ECHO",
        "FLUSHALL",
        "INFO",
        "KEYS",
        "PING",
        "ROLE",
    }
    | {"SCAN", "SCRIPT", "SLOWLOG", "TIME", "WAIT"}
)
_STREAMS: Final = ("STREAMS", b"STREAMS")  # the word before the keys, of which redis-py makes bytes
NAMELESS: Final = "?"  # the host of a node without a hostname, where the cluster prefers hostnames
_OF_THE_ASKED: Final = (None, b"")  # hosts: the one by which the node was asked


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAddress:
    """The parts of a URL: the nodes to ask for the map, and redis-py's options for connections to all nodes."""

    hosts: tuple[Host, ...]
    tls: bool
    options: Mapping[str, Any] = field(repr=False)


def parse_cluster_url(url: str) -> ClusterAddress:
    """Parse `redis+cluster://[user:password@]host[:port][,host[:port]...]`, or `rediss+cluster` for TLS. User and password
    are those of every node. Raises ValueError, also for a database other than 0: a cluster has one."""
    parts = split_url(url)
    userinfo, _, hosts = parts.netloc.rpartition("@")
    scheme = parts.scheme.partition("+")[0]
    database = parts.path.strip("/")
    options = connection_options(scheme, userinfo, database, parse_qsl(parts.query, keep_blank_values=True))
    if int(options.pop("db", None) or 0) != 0:
        raise ValueError("names a database, but a cluster has one: redis+cluster://host:6379,host:6379")
    return ClusterAddress(hosts=parse_hosts(hosts, port=PORT), tls=scheme == "rediss", options=options)


@dataclass(frozen=True, slots=True)
class SlotRange:
    """The slots from `first` to `last`, and the nodes that have them."""

    first: int
    last: int
    primary: Host
    replicas: tuple[Host, ...]


def parse_slots(reply: Sequence[Any], *, asked: Host) -> tuple[SlotRange, ...]:
    """Parse the reply to CLUSTER SLOTS of the node `asked`. Slots whose primary has no address are left out, and so are such
    replicas. Raises ValueError, TypeError or IndexError for another reply, or if no slot is left."""
    ranges = []
    for first, last, *nodes in reply:
        primary, *replicas = (_host(node, asked) for node in nodes)
        if not 0 <= first <= last < SLOTS:
            raise ValueError(f"slots from {first} to {last}")
        if primary is not None:
            ranges.append(SlotRange(first, last, primary, tuple(one for one in replicas if one is not None)))
    if reply and not ranges:
        raise ValueError("no node has a hostname, and cluster-preferred-endpoint-type is hostname")
    return tuple(ranges)


def _host(node: Sequence[Any], asked: Host) -> Host | None:
    host, port = node[0], int(node[1])
    if host == NAMELESS.encode():  # any node, not just the asked one; since Redis 7.0 its other addresses follow
        more = node[3] if len(node) > 3 else ()
        host = dict(zip(more[::2], more[1::2], strict=True)).get(b"ip", host)
        if host == NAMELESS.encode():
            return None
    return (asked[0] if host in _OF_THE_ASKED else host.decode()), port


def slot_of(key: str | bytes) -> int:
    """Return the slot of a key: that of its hash tag, if it has one."""
    return key_slot(key.encode() if isinstance(key, str) else key)


def key_of(command: Command) -> str | bytes | None:
    """Return the first key of a command, None if it has none, like TIME or a script without keys."""
    name = command[0]
    if name in ("EVALSHA", "EVAL"):
        key = command[3] if command[2] else None
    elif name in ("XINFO", "XGROUP"):
        key = command[2]
    elif name == "XREADGROUP":
        key = command[next(at for at, word in enumerate(command) if word in _STREAMS and at > 3) + 1]
    else:
        key = None if name in _KEYLESS or len(command) < 2 else command[1]
    return str(key) if isinstance(key, int) else key
