"""The simulated Redis and a real server give the same replies to random commands, except ids and times."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from okane.local.redis_server import RedisServer
from streams import Inspector, Lane, Stream, StreamError, connect, scripts
from streams.group import Group
from streams.script import Argument
from tests.simulation.direct_redis import DirectRedis
from tests.simulation.redis import Server
from tests.simulation.redis_client import as_redis

SEQUENCES, STEPS = 20, 80
GROUPS = ("g", "h")
HOUR_MS = 3_600_000
LANES = (Lane("high", 3), Lane("low", 1))

_numbers = itertools.count(1)


@dataclass(slots=True)
class Side:
    """One of the two servers. Entries are numbered in the order in which they are seen, which is the same on both."""

    client: Redis
    stream: Stream
    seen: list[tuple[str, bytes]] = field(default_factory=list)  # lane, id
    cursors: dict[str, bytes] = field(default_factory=dict)

    def number(self, lane: str, entry_id: bytes) -> int:
        if (lane, entry_id) not in self.seen:
            self.seen.append((lane, entry_id))
        return self.seen.index((lane, entry_id))


@dataclass(frozen=True, slots=True)
class Step:
    """One step, the same for both sides."""

    what: str
    consumer: str = ""
    lane: str = "high"
    entries: tuple[int, ...] = ()
    count: int = 1
    delay_ms: int | None = None
    is_dead: bool = False
    min_idle_ms: int = 0
    group: str = "g"
    max_bytes: int = 10_000
    entry_bytes: int = 10


@pytest.fixture
async def real(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url)
    yield client
    await client.aclose()


@pytest.mark.parametrize("seed", range(SEQUENCES))
async def test_random_commands_get_the_same_answers(real: Redis, seed: int) -> None:
    stream = Stream(f"simulated-{next(_numbers)}-{id(real)}", lanes=LANES)
    await _compare(Side(real, stream), Side(as_redis(DirectRedis(_server())), stream), Random(seed))


async def test_a_full_server_refuses_the_same_things(private_redis: RedisServer) -> None:
    client = connect(private_redis.url)
    for seed in range(6):
        stream, server = Stream(f"full-{seed}", lanes=LANES), _server()
        ours, theirs = Side(as_redis(DirectRedis(server)), stream), Side(client, stream)
        dice = Random(seed)
        for full in (False, True, False):
            server.full = full
            await client.config_set("maxmemory", "1" if full else "0")
            await _compare(theirs, ours, dice, steps=30)
    await client.aclose()


async def test_unknown_commands_get_the_same_errors(real: Redis) -> None:
    ours = as_redis(DirectRedis(_server()))
    key = f"nothing-{id(real)}"
    for command in (
        ("XINFO", "STREAM", key),
        ("XINFO", "GROUPS", key),
        ("XPENDING", key, "g"),
        ("XAUTOCLAIM", key, "g", "c", "0", "0-0"),
        ("XREADGROUP", "GROUP", "g", "c", "STREAMS", key, ">"),
        ("XACK", key, "g", "1-1"),
        ("XLEN", key),
        ("ZRANGE", key, "0", "0"),
        ("EVALSHA", "0" * 40, "0"),
    ):
        assert await _said(ours, command) == await _said(real, command)


async def _compare(theirs: Side, ours: Side, dice: Random, *, steps: int = STEPS) -> None:
    for step in range(steps):
        chosen = _choose(dice, known=len(theirs.seen))
        answers = await _answer(theirs, chosen), await _answer(ours, chosen)
        assert answers[0] == answers[1], f"step {step}: {chosen}"
        if chosen.delay_ms is not None:
            await asyncio.sleep(0.002)  # the order of two delayed messages of one millisecond is not defined
    assert await _state(theirs) == await _state(ours)


def _choose(dice: Random, *, known: int) -> Step:
    what = dice.choices(
        (
            "publish",
            "create",
            "read",
            "ack",
            "promote",
            "reclaim",
            "renew",
            "release",
            "release_lost",
            "remove_idle_consumers",
            "state",
        ),
        (6, 1, 6, 5, 2, 5, 3, 2, 2, 1, 2),
    )[0]
    some = [dice.randrange(known) for _ in range(dice.randint(0, 3))] if known else []
    return Step(
        what,
        consumer=dice.choice(("one", "two")),
        lane=dice.choice(("high", "low")),
        entries=tuple(dict.fromkeys(some)),
        count=dice.randint(1, 4),
        delay_ms=dice.choice((None, 0, HOUR_MS)) if what == "ack" else None,
        is_dead=dice.random() < 0.3,
        min_idle_ms=dice.choice((0, 0, HOUR_MS)),
        group=dice.choices(GROUPS, (2, 1))[0],
        max_bytes=dice.choice((1, 30, 10_000)),
        entry_bytes=dice.choice((1, 10, 1_000)),
    )


async def _answer(side: Side, step: Step) -> Any:
    try:
        return await _DO[step.what](side, step)
    except StreamError as error:
        return type(error)


async def _publish(side: Side, step: Step) -> Any:
    drafts: list[tuple[str, list[Argument]]] = [
        (step.lane, ["b", b"\x00\xff body", "n", number]) for number in range(step.count)
    ]
    ids = await scripts.publish(side.client, side.stream, max_length=6, drafts=drafts)
    return [entry_id and side.number(step.lane, entry_id.encode()) for entry_id in ids]


async def _create(side: Side, step: Step) -> Any:
    return await scripts.create_group(_group(side, step))


async def _read(side: Side, step: Step) -> Any:
    _, taken, trouble, size = await scripts.read(
        _group(side, step),
        side.stream.lane_keys,
        limit=2 * step.count,
        max_bytes=step.max_bytes,
        entry_bytes=step.entry_bytes,
        shares=[step.count, step.count // 2],
    )
    lanes = zip(side.stream.lane_names, taken, strict=True)
    return (
        [[_entry(side, lane, *entry) for entry in entries] for lane, entries in lanes],
        trouble and trouble.split()[0],
        size,
    )


async def _ack(side: Side, step: Step) -> Any:
    entries = _by_lane(side, step)
    retries: list[tuple[str, str, int, list[Argument]]] = []
    dead: list[tuple[str, str, list[Argument]]] = []
    if found := next(((lane, ids[0]) for lane, ids in entries.items() if ids), None):
        if step.delay_ms is not None:
            retries = [(*found, step.delay_ms, ["b", b"again" * 60, "g", step.group])]
        elif step.is_dead:
            dead = [(*found, ["b", b"dead", "g", step.group])]
    request = scripts.AckRequest(entries, retries, dead, recreated=step.count == 1)
    [not_acked] = await scripts.ack(_group(side, step), [request])
    if isinstance(not_acked, StreamError):
        raise not_acked
    return [(side.number(lane, entry_id.encode()), why) for lane, entry_id, why in not_acked]


async def _promote(side: Side, step: Step) -> Any:
    moved, next_ms, _ = await scripts.promote(side.client, side.stream, limit=step.count)
    return moved, next_ms is None


async def _reclaim(side: Side, step: Step) -> Any:
    found = await scripts.reclaim(
        _group(side, step),
        step.lane,
        min_idle_ms=step.min_idle_ms,
        cursor=b"0-0" if step.count > 2 else side.cursors.get(step.lane, b"0-0"),
        count=step.count,
        before_last=3,
        last=step.is_dead,
        max_bytes=step.max_bytes,
    )
    side.cursors[step.lane] = found.cursor
    stopped_at = None if found.cursor == b"0-0" else side.number(step.lane, found.cursor)
    messages = [(_entry(side, step.lane, entry_id, fields), deliveries) for entry_id, deliveries, fields in found.taken]
    return stopped_at, messages, found.left, found.size, found.full


async def _release_lost(side: Side, step: Step) -> Any:
    return await scripts.release_lost(
        _group(side, step),
        since_ms=1_700_000_000_000 if step.is_dead else 1 << 43,  # all of them, or those of a distant future
        lease_ms=HOUR_MS,
        in_hand=_by_lane(side, step),
    )


async def _renew(side: Side, step: Step) -> Any:
    entries = _by_lane(side, step)
    lost = await scripts.renew(_group(side, step), entries)
    return [side.number(lane, entry_id.encode()) for lane, entry_id in lost]


async def _release(side: Side, step: Step) -> Any:
    held = {lane: [(one, step.count) for one in ids] for lane, ids in _by_lane(side, step).items()}
    return await scripts.release(_group(side, step), idle_ms=2 * HOUR_MS, entries=held)


async def _remove_idle_consumers(side: Side, step: Step) -> Any:
    # Their number depends on the version: before 7.2 a read that finds nothing creates no consumer.
    await scripts.remove_idle_consumers(_group(side, step), min_idle_ms=step.min_idle_ms)


async def _state(side: Side, _step: Step | None = None) -> Any:
    """Return the visible state, without times, idle consumers and the server's lag."""
    about = [await Inspector(side.client, side.stream, group=group).stats() for group in GROUPS]
    stats = about[0]
    lanes = [(lane.lane, lane.length, lane.pending, lane.groups) for each in about for lane in each.lanes]
    consumers = [(one.name, one.lane, one.pending) for each in about for one in each.consumers if one.pending]
    keys = zip((*side.stream.lane_names, "dead"), (*side.stream.lane_keys, side.stream.dead_key), strict=True)
    entries = [
        [(side.number(lane, entry_id), fields) for entry_id, fields in await _range(side.client, key)]
        for lane, key in keys
    ]
    return lanes, consumers, stats.delayed, stats.next_due_ms is None, stats.dead, entries


_DO: dict[str, Callable[[Side, Step], Awaitable[Any]]] = {
    "publish": _publish,
    "create": _create,
    "read": _read,
    "ack": _ack,
    "promote": _promote,
    "reclaim": _reclaim,
    "renew": _renew,
    "release": _release,
    "release_lost": _release_lost,
    "remove_idle_consumers": _remove_idle_consumers,
    "state": _state,
}


def _group(side: Side, step: Step) -> Group:
    return Group(side.client, side.stream, step.group, step.consumer)


def _by_lane(side: Side, step: Step) -> dict[str, list[str]]:
    some = [side.seen[number] for number in step.entries]
    return {name: [entry_id.decode() for lane, entry_id in some if lane == name] for name in side.stream.lane_names}


def _entry(side: Side, lane: str, entry_id: bytes, fields: Sequence[bytes]) -> tuple[int, tuple[bytes, ...]]:
    return side.number(lane, entry_id), tuple(fields)


async def _range(client: Redis, key: str) -> Any:
    return await client.xrange(key)


async def _said(client: Redis, command: Sequence[str]) -> Any:
    try:
        return await client.execute_command(*command)  # type: ignore[no-untyped-call] # no types
    except RedisError as error:
        return type(error), str(error).partition(".")[0]  # Redis goes on with advice, Valkey 9 without


def _server() -> Server:
    """Return a server whose clock advances a little with each command."""
    ticks = itertools.count(1_767_225_600_000, 3)
    return Server(lambda: next(ticks) / 1000)
