"""The Lua scripts as typed functions: arguments in the order their headers say, replies as values.

Promise: a script is known to the server when it runs (a restart forgets scripts), and redis-py's errors stay inside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from streams.connection import redis_errors
from streams.keys import Stream

Argument = str | bytes | int
# Lua's `unpack` has a limit of some thousands, and a script that runs for long blocks everybody: callers cut batches.
MAX_ARGUMENTS: Final = 1_000


class _Script:
    """A script that is sent by its digest, and by its text when the server does not know it."""

    def __init__(self, name: str) -> None:
        self._text = files("streams").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
        self._digest = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, client: Redis, keys: Sequence[str], arguments: Iterable[Argument]) -> Any:
        with redis_errors():
            try:
                return await client.evalsha(self._digest, len(keys), *keys, *arguments)
            except NoScriptError:  # EVAL leaves the script behind, so this happens once per restart
                return await client.eval(self._text, len(keys), *keys, *arguments)


_create = _Script("create")
_read = _Script("read")
_settle = _Script("settle")
_promote = _Script("promote")
_reclaim = _Script("reclaim")
_renew = _Script("renew")
_publish = _Script("publish")
_replay = _Script("replay")
_dismiss = _Script("dismiss")

Entry = tuple[bytes, Sequence[bytes]]  # id, fields


async def create_group(client: Redis, keys: Sequence[str], *, group: str) -> int:
    """How many of the streams lacked the group."""
    created: int = await _create(client, keys, (group,))
    return created


async def read(
    client: Redis, keys: Sequence[str], *, group: str, consumer: str, limit: int, shares: Sequence[int]
) -> tuple[int, Sequence[Sequence[Entry]], bytes | None]:
    """Server time in ms, the entries of each key, and the first error of a key if there was one."""
    now_ms, taken, trouble = await _read(client, keys, (group, consumer, limit, *shares))
    return now_ms, taken, trouble


async def settle(
    client: Redis,
    stream: Stream,
    *,
    group: str,
    entries: Mapping[str, Sequence[str]],
    retries: Sequence[tuple[int, str, str, Sequence[Argument]]],  # delay in ms, entry id, lane, fields
    dead: Sequence[Sequence[Argument]],  # fields
) -> int:
    """`entries` has the ids of all by lane, `retries` and `dead` what lives on. How many entries were still there."""
    arguments: list[Argument] = [group]
    for lane in stream.lane_names:
        ids = entries.get(lane, ())
        arguments.append(len(ids))
        arguments += ids
    arguments.append(len(retries))
    for delay_ms, entry_id, origin, fields in retries:
        arguments += (delay_ms, entry_id, origin, len(fields), *fields)
    arguments.append(len(dead))
    for fields in dead:
        arguments += (len(fields), *fields)
    found: int = await _settle(client, _all_keys(stream), arguments)
    return found


async def promote(client: Redis, stream: Stream, *, limit: int) -> tuple[int, int | None, int]:
    """How many moved, when the next is due (server time in ms), and the server's time in ms."""
    moved, next_ms, now_ms = await _promote(client, _all_keys(stream), (limit, *stream.lane_names))
    return moved, None if next_ms < 0 else next_ms, now_ms


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
) -> tuple[bytes, Sequence[tuple[bytes, int, Sequence[bytes]]], int]:
    """The cursor to go on from, what was taken over (id, deliveries, fields), and how many were left for `last`.

    `before_last` is the number of deliveries before the last one (0: no delivery is the last); with `last`, one entry on
    its last delivery is taken and nothing else, without it everything else.
    """
    wanted = "last" if last else "others"
    cursor, taken, left = await _reclaim(
        client, (key,), (group, consumer, min_idle_ms, cursor, count, before_last, wanted)
    )
    return cursor, taken, left


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


async def publish(
    client: Redis, stream: Stream, *, max_length: int | None, drafts: Sequence[tuple[str, Sequence[Argument]]]
) -> list[str | None]:
    """`drafts` are (lane, fields). Answers an id each, or None where the lane is full."""
    number = {lane: at for at, lane in enumerate(stream.lane_names, start=1)}
    arguments: list[Argument] = [-1 if max_length is None else max_length]
    for lane, fields in drafts:
        arguments += (number[lane], len(fields), *fields)
    ids = await _publish(client, stream.lane_keys, arguments)
    return [None if entry_id is None else entry_id.decode() for entry_id in ids]


async def replay(client: Redis, stream: Stream, *, ids: Sequence[str]) -> int:
    """How many of the dead letters `ids` were put back."""
    keys = (*stream.lane_keys, stream.dead_key)
    replayed: int = await _replay(client, keys, (len(stream.lanes), *stream.lane_names, *ids))
    return replayed


async def dismiss(client: Redis, stream: Stream, *, group: str, min_idle_ms: int) -> int:
    """How many consumers were removed."""
    removed: int = await _dismiss(client, stream.lane_keys, (group, min_idle_ms))
    return removed


def _all_keys(stream: Stream) -> tuple[str, ...]:
    return (*stream.lane_keys, stream.delayed_key, stream.dead_key)
