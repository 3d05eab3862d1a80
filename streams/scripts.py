"""The library's Lua scripts as typed functions: arguments in the order of their headers, replies as values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio import Redis

from streams.connection import translating
from streams.errors import StreamError
from streams.group import Group
from streams.keys import Stream
from streams.script import Argument, Script

# Lua's `unpack` has a limit of some thousands, and a script that runs for long blocks every client: callers cut batches.
MAX_ARGUMENTS: Final = 1_000
TAKEN, GONE = "taken", "gone"  # why an entry was not acked: another consumer has it, or has acked it

_create_group = Script("streams", "lua", "create_group.lua")
_read = Script("streams", "lua", "read.lua")
_ack = Script("streams", "lua", "ack.lua")
_promote = Script("streams", "lua", "promote.lua")
_reclaim = Script("streams", "lua", "reclaim.lua")
_renew = Script("streams", "lua", "renew.lua")
_release = Script("streams", "lua", "release.lua")
_release_lost = Script("streams", "lua", "release_lost.lua")
_publish = Script("streams", "lua", "publish.lua")
_check = Script("streams", "lua", "check.lua")
_list_delayed = Script("streams", "lua", "list_delayed.lua")
_replay = Script("streams", "lua", "replay.lua")
_remove_idle_consumers = Script("streams", "lua", "remove_idle_consumers.lua")
_time = Script("streams", "lua", "time.lua")

Entry = tuple[bytes, Sequence[bytes]]  # id, fields


@translating
async def create_group(group: Group) -> int:
    """Create the group on every lane that lacks it; return how many did."""
    return int(await _create_group(group.client, group.stream.lane_keys, (group.name,)))


@translating
async def read(
    group: Group, keys: Sequence[str], *, limit: int, max_bytes: int, entry_bytes: int, shares: Sequence[int]
) -> tuple[int, Sequence[Sequence[Entry]], bytes | None, int]:
    """Read new entries of the lanes at `keys`. Return the server's time in ms, the entries of each key, the first error of a
    key if there was one, and the bytes of the entries. `entry_bytes` estimates the size of one: a bad estimate costs the
    server some work."""
    now_ms, entries, error, size = await _read(
        group.client, keys, (group.name, group.consumer, limit, max_bytes, entry_bytes, *shares)
    )
    return now_ms, entries, error, size


@dataclass(slots=True)
class AckRequest:
    """The entries that one call of `ack` takes out of their lanes, and the retries and dead letters that some become.
    `recreated`: the group was created anew since they were read, so it may not have them as pending."""

    entries: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # ids by lane
    # lane, entry id, delay in ms, fields
    retries: list[tuple[str, str, int, list[Argument]]] = field(default_factory=list)
    dead: list[tuple[str, str, list[Argument]]] = field(default_factory=list)  # lane, entry id, fields
    recreated: bool = False

    def arguments(self, lanes: Sequence[str]) -> list[Argument]:
        """Return the script's arguments after group and consumer."""
        number = {lane: at for at, lane in enumerate(lanes, start=1)}
        arguments: list[Argument] = [int(self.recreated)]
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


NotAcked = tuple[str, str, str]  # lane, entry id, reason: TAKEN, GONE, or the server's error


@translating
async def ack(group: Group, requests: Sequence[AckRequest]) -> list[Sequence[NotAcked] | StreamError]:
    """Send the requests in one round trip. Return for each the entries that were not acked, or its error."""
    stream = group.stream
    calls = [[group.name, group.consumer, *request.arguments(stream.lane_names)] for request in requests]
    found = await _ack.call_many(group.client, _all_keys(stream), calls)
    return [one if isinstance(one, StreamError) else _not_acked(stream, one) for one in found]


def _not_acked(stream: Stream, reply: Sequence[Any]) -> Sequence[NotAcked]:
    return [
        (stream.lane_names[reply[at] - 1], reply[at + 1].decode(), reply[at + 2].decode(errors="replace"))
        for at in range(0, len(reply), 3)
    ]


@translating
async def promote(client: Redis, stream: Stream, *, limit: int) -> tuple[int, int | None, int]:
    """Move due messages into their lanes. Return how many, when the next is due, and the server's time, both in ms."""
    moved, next_ms, now_ms = await _promote(client, _all_keys(stream), (limit, *stream.lane_names))
    return int(moved), None if next_ms < 0 else int(next_ms), int(now_ms)


@translating
async def list_delayed(
    client: Redis, stream: Stream, *, from_ms: int, skip: int, limit: int, body_bytes: int
) -> tuple[int, Sequence[tuple[int, str, int | None, bytes]]]:
    """List delayed messages from a due time on. Return the server's time in ms, and of each its due time in ms, lane,
    attempt (None if another program wrote it) and the beginning of its body."""
    arguments = (from_ms, skip, limit, body_bytes)
    now_ms, *parts = await _list_delayed(client, (stream.delayed_key,), arguments)
    return int(now_ms), [
        (int(due_ms), lane.decode(errors="replace"), int(attempt) if attempt.isdigit() else None, body)
        for due_ms, lane, attempt, body in zip(*[iter(parts)] * 4, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """The result of one step of a scan: its next cursor, the entries taken over (id, deliveries, fields) and their bytes,
    the number left because their next delivery is the last, and whether the byte limit ended the step."""

    cursor: bytes
    taken: Sequence[tuple[bytes, int, Sequence[bytes]]]
    left: int
    size: int
    full: bool


@translating
async def reclaim(
    group: Group,
    lane: str,
    *,
    min_idle_ms: int,
    cursor: bytes,
    count: int,
    before_last: int,
    last: bool,
    max_bytes: int,
) -> Reclaimed:
    """Take over up to `count` idle entries, of `max_bytes` together.

    `before_last` is the number of deliveries before the last one (0: no delivery is the last). With `last`, one entry on
    its last delivery is taken over and nothing else; without it, all the others.
    """
    wanted = "last" if last else "others"
    cursor, taken, left, size, full = await _reclaim(
        group.client,
        (group.stream.lane_key(lane),),
        (group.name, group.consumer, min_idle_ms, cursor, count, before_last, wanted, max_bytes),
    )
    messages = [(entry_id, deliveries, fields) for entry_id, deliveries, fields in taken]
    return Reclaimed(bytes(cursor), messages, int(left), int(size), bool(full))


@translating
async def release_lost(group: Group, *, since_ms: int, lease_ms: int, in_hand: Mapping[str, Sequence[str]]) -> int:
    """Release the entries delivered since then (the server's time), except those `in_hand` (ids by lane); return how many."""
    arguments: list[Argument] = [group.name, group.consumer, since_ms, lease_ms]
    _add_by_lane(arguments, group.stream, in_hand)
    released: int = await _release_lost(group.client, group.stream.lane_keys, arguments)
    return released


@translating
async def renew(group: Group, entries: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Renew the leases of `entries` (ids by lane); return (lane, id) of those that another consumer has now."""
    arguments: list[Argument] = [group.name, group.consumer]
    _add_by_lane(arguments, group.stream, entries)
    lost = await _renew(group.client, group.stream.lane_keys, arguments)
    names = group.stream.lane_names
    return [(names[lane - 1], entry_id.decode()) for lane, entry_id in zip(lost[::2], lost[1::2], strict=True)]


@translating
async def release(group: Group, *, idle_ms: int, entries: Mapping[str, Sequence[tuple[str, int]]]) -> int:
    """Release `entries` (by lane: id, and the deliveries to count); return how many the consumer still held."""
    arguments: list[Argument] = [group.name, group.consumer, idle_ms]
    for lane in group.stream.lane_names:
        held = entries.get(lane, ())
        arguments.append(len(held))
        for entry_id, deliveries in held:
            arguments += (entry_id, deliveries)
    return int(await _release(group.client, group.stream.lane_keys, arguments))


@translating
async def publish(
    client: Redis, stream: Stream, *, max_length: int | None, drafts: Sequence[tuple[str, Sequence[Argument]]]
) -> list[str | None]:
    """Add `drafts` (lane, fields). Return the id of each, or None where the lane is full."""
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
    """Raise `StreamError` unless every lane takes entries now."""
    lanes = await _check(client, stream.lane_keys, ())
    if lanes != len(stream.lanes):
        raise ValueError(f"{lanes!r} lanes of {len(stream.lanes)}")


@translating
async def server_time_ms(client: Redis, key: str) -> int:
    """Return the time, in ms, of the server that has this key."""
    return int(await _time(client, (key,), ()))


@translating
async def replay(client: Redis, stream: Stream, *, ids: Sequence[str]) -> int:
    """Put the dead letters `ids` back into their lanes; return how many there were."""
    keys = (*stream.lane_keys, stream.dead_key)
    return int(await _replay(client, keys, (len(stream.lanes), *stream.lane_names, *ids)))


@translating
async def remove_idle_consumers(group: Group, *, min_idle_ms: int) -> int:
    """Remove idle consumers without pending entries; return how many."""
    return int(await _remove_idle_consumers(group.client, group.stream.lane_keys, (group.name, min_idle_ms)))


def _all_keys(stream: Stream) -> tuple[str, ...]:
    return (*stream.lane_keys, stream.delayed_key, stream.dead_key)


def _add_by_lane(arguments: list[Argument], stream: Stream, ids_by_lane: Mapping[str, Sequence[str]]) -> None:
    for lane in stream.lane_names:
        ids = ids_by_lane.get(lane, ())
        arguments.append(len(ids))
        arguments += ids
