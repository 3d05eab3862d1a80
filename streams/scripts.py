"""The library's Lua scripts as typed functions: arguments in the order of their headers, replies as values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio import Redis

from streams.connection import translating
from streams.errors import StreamError
from streams.keys import Stream
from streams.script import Argument, Script

# Lua's `unpack` has a limit of some thousands, and a script that runs for long blocks everybody: callers cut batches.
MAX_ARGUMENTS: Final = 1_000
TAKEN, GONE = "taken", "gone"  # why an entry is not acked: another consumer has it, or has acked it


_create_group = Script("streams", "lua", "create_group.lua")
_read = Script("streams", "lua", "read.lua")
_ack = Script("streams", "lua", "ack.lua")
_promote = Script("streams", "lua", "promote.lua")
_reclaim = Script("streams", "lua", "reclaim.lua")
_renew = Script("streams", "lua", "renew.lua")
_release = Script("streams", "lua", "release.lua")
_publish = Script("streams", "lua", "publish.lua")
_check = Script("streams", "lua", "check.lua")
_replay = Script("streams", "lua", "replay.lua")
_remove_idle_consumers = Script("streams", "lua", "remove_idle_consumers.lua")
_release_lost = Script("streams", "lua", "release_lost.lua")

Entry = tuple[bytes, Sequence[bytes]]  # id, fields


@translating
async def create_group(client: Redis, keys: Sequence[str], *, group: str) -> int:
    """How many of the streams lacked the group."""
    return int(await _create_group(client, keys, (group,)))


@translating
async def read(
    client: Redis,
    keys: Sequence[str],
    *,
    group: str,
    consumer: str,
    limit: int,
    max_bytes: int,
    entry_bytes: int,
    shares: Sequence[int],
) -> tuple[int, Sequence[Sequence[Entry]], bytes | None, int]:
    """Server time in ms, the entries of each key, the first error of a key if there was one, and the entries' bytes.

    `entry_bytes` is a guess at what an entry has: a bad one costs the server some work."""
    now_ms, taken, trouble, size = await _read(client, keys, (group, consumer, limit, max_bytes, entry_bytes, *shares))
    return now_ms, taken, trouble, size


@dataclass(slots=True)
class AckRequest:
    """The work of one call of `ack`: the ids of all its entries by lane, and what of them lives on. `anew`: the group was
    made anew since they were read, so that it may not know of them."""

    entries: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    # lane, entry id, delay in ms, fields
    retries: list[tuple[str, str, int, list[Argument]]] = field(default_factory=list)
    dead: list[tuple[str, str, list[Argument]]] = field(default_factory=list)  # lane, entry id, fields
    anew: bool = False

    def arguments(self, lanes: Sequence[str]) -> list[Argument]:
        """As the script takes them, without group and consumer."""
        number = {lane: at for at, lane in enumerate(lanes, start=1)}
        arguments: list[Argument] = [int(self.anew)]
        for lane in lanes:
            ids = self.entries.get(lane, ())
            arguments.append(len(ids))
            arguments += ids
        arguments.append(len(self.retries))
        for lane, entry_id, delay_ms, fields in self.retries:
            arguments += (number[lane], entry_id, delay_ms, lane, len(fields), *fields)
        arguments.append(len(self.dead))
        for lane, entry_id, fields in self.dead:
            arguments += (number[lane], entry_id, len(fields), *fields)
        return arguments


NotAcked = tuple[str, str, str]  # lane, entry id, why


@translating
async def ack(
    client: Redis, stream: Stream, *, group: str, consumer: str, requests: Sequence[AckRequest]
) -> list[Sequence[NotAcked] | StreamError]:
    """For each those of its entries that were not acked, or its error. Why is TAKEN, GONE, or the server's error."""
    calls = [[group, consumer, *request.arguments(stream.lane_names)] for request in requests]
    found = await _ack.call_many(client, _all_keys(stream), calls)
    return [one if isinstance(one, StreamError) else _not_acked(stream, one) for one in found]


def _not_acked(stream: Stream, reply: Sequence[Any]) -> Sequence[NotAcked]:
    return [
        (stream.lane_names[reply[at] - 1], reply[at + 1].decode(), reply[at + 2].decode(errors="replace"))
        for at in range(0, len(reply), 3)
    ]


@translating
async def promote(client: Redis, stream: Stream, *, limit: int) -> tuple[int, int | None, int]:
    """How many moved, when the next is due (server time in ms), and the server's time in ms."""
    moved, next_ms, now_ms = await _promote(client, _all_keys(stream), (limit, *stream.lane_names))
    return int(moved), None if next_ms < 0 else int(next_ms), int(now_ms)


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """Where the scan goes on, what was taken over (id, deliveries, fields), how many were left for `last`, the bytes of what
    was taken, and whether there was no room for more."""

    cursor: bytes
    taken: Sequence[tuple[bytes, int, Sequence[bytes]]]
    left: int
    size: int
    full: bool


@translating
async def reclaim(
    client: Redis,
    key: str,
    *,
    group: str,
    consumer: str,
    min_idle_ms: int,
    cursor: bytes,
    count: int,
    before_last: int,
    last: bool,
    max_bytes: int,
) -> Reclaimed:
    """Takes over up to `count` entries, of `max_bytes` together.

    `before_last` is the number of deliveries before the last one (0: no delivery is the last); with `last`, one entry on
    its last delivery is taken and nothing else, without it everything else.
    """
    wanted = "last" if last else "others"
    cursor, taken, left, size, full = await _reclaim(
        client, (key,), (group, consumer, min_idle_ms, cursor, count, before_last, wanted, max_bytes)
    )
    messages = [(entry_id, deliveries, fields) for entry_id, deliveries, fields in taken]
    return Reclaimed(bytes(cursor), messages, int(left), int(size), bool(full))


@translating
async def release_lost(
    client: Redis,
    stream: Stream,
    *,
    group: str,
    consumer: str,
    since_ms: int,
    lease_ms: int,
    in_hand: Mapping[str, Sequence[str]],
) -> int:
    """Hands back what was delivered since then (server time) but for what is `in_hand`, ids by lane; how many."""
    arguments: list[Argument] = [group, consumer, since_ms, lease_ms]
    for lane in stream.lane_names:
        ids = in_hand.get(lane, ())
        arguments.append(len(ids))
        arguments += ids
    handed_back: int = await _release_lost(client, stream.lane_keys, arguments)
    return handed_back


@translating
async def renew(
    client: Redis, stream: Stream, *, group: str, consumer: str, entries: Mapping[str, Sequence[str]]
) -> list[tuple[str, str]]:
    """Renews `entries` (ids by lane); answers (lane, id) of those that are not ours any more."""
    arguments: list[Argument] = [group, consumer]
    for lane in stream.lane_names:
        ids = entries.get(lane, ())
        arguments.append(len(ids))
        arguments += ids
    lost = await _renew(client, stream.lane_keys, arguments)
    return [
        (stream.lane_names[lane - 1], entry_id.decode()) for lane, entry_id in zip(lost[::2], lost[1::2], strict=True)
    ]


@translating
async def release(
    client: Redis,
    stream: Stream,
    *,
    group: str,
    consumer: str,
    idle_ms: int,
    entries: Mapping[str, Sequence[tuple[str, int]]],
) -> int:
    """Hands `entries` (id and deliveries to be counted, by lane) back; how many were still the consumer's."""
    arguments: list[Argument] = [group, consumer, idle_ms]
    for lane in stream.lane_names:
        held = entries.get(lane, ())
        arguments.append(len(held))
        for entry_id, deliveries in held:
            arguments += (entry_id, deliveries)
    return int(await _release(client, stream.lane_keys, arguments))


@translating
async def publish(
    client: Redis, stream: Stream, *, max_length: int | None, drafts: Sequence[tuple[str, Sequence[Argument]]]
) -> list[str | None]:
    """`drafts` are (lane, fields). Answers an id each, or None where the lane is full."""
    number = {lane: at for at, lane in enumerate(stream.lane_names, start=1)}
    arguments: list[Argument] = [-1 if max_length is None else max_length]
    for lane, fields in drafts:
        arguments += (number[lane], len(fields), *fields)
    ids = await _publish(client, stream.lane_keys, arguments)
    if len(ids) != len(drafts):
        raise ValueError(f"{len(ids)} ids for {len(drafts)} messages")
    return [None if entry_id is None else entry_id.decode() for entry_id in ids]


@translating
async def check(client: Redis, stream: Stream) -> None:
    """Raises `StreamError` unless every lane takes entries now."""
    lanes = await _check(client, stream.lane_keys, ())
    if lanes != len(stream.lanes):
        raise ValueError(f"{lanes!r} lanes of {len(stream.lanes)}")


@translating
async def replay(client: Redis, stream: Stream, *, ids: Sequence[str]) -> int:
    """How many of the dead letters `ids` were put back."""
    keys = (*stream.lane_keys, stream.dead_key)
    return int(await _replay(client, keys, (len(stream.lanes), *stream.lane_names, *ids)))


@translating
async def remove_idle_consumers(client: Redis, stream: Stream, *, group: str, min_idle_ms: int) -> int:
    """How many consumers were removed."""
    return int(await _remove_idle_consumers(client, stream.lane_keys, (group, min_idle_ms)))


def _all_keys(stream: Stream) -> tuple[str, ...]:
    return (*stream.lane_keys, stream.delayed_key, stream.dead_key)
