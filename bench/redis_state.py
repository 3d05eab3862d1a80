"""Write and read the benchmarks' data in Redis: wake-ups, slow commands, time by command, memory."""

from __future__ import annotations

import functools
import hashlib
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from typing import Any
from uuid import UUID

import psycopg
import redis

from bench.system import System
from okane.lanes import payments_stream
from streams.entry import to_fields

SLOW_MS = 1.0
_BATCH = 1_000
_ENTRIES = 10_000
_SLOW_LIMIT = 100_000
_WORST = 3
GROUP = "workers"  # the default of OKANE_GROUP
_PENDING = "SELECT id, lane, created_at FROM payments WHERE id >= %s AND status = 'pending' ORDER BY id"


@dataclass(frozen=True, slots=True)
class Slow:
    """The number of calls that took `SLOW_MS` or more, and the times of the slowest."""

    name: str
    count: int
    median_ms: float
    worst_ms: Sequence[float]

    def __str__(self) -> str:
        worst = ", ".join(f"{ms:.1f}" for ms in self.worst_ms)
        return f"{self.name:<14} {self.count:>6,} times, median {self.median_ms:.1f} ms, slowest {worst} ms"


@dataclass(frozen=True, slots=True)
class CommandTime:
    """One command's calls since the last `reset`."""

    name: str
    calls: int
    mean_us: float
    total_s: float

    def __str__(self) -> str:
        return f"{self.name:<14} {self.calls:>10,} calls {self.mean_us:>10.1f} us each {self.total_s:>8.2f} s"


def add_wake_ups(system: System, url: str, since: UUID, stream_name: str, *, lane_limit: int) -> int:
    """Add an entry for every pending payment, oldest first, until its lane is full. How many it was.

    The entries bear the time of their payments: the sweep goes by it.
    """
    stream = payments_stream(stream_name)
    lengths = Counter[str]()
    with psycopg.connect(url) as connection, connection.cursor("pending") as cursor, system.redis_client() as client:
        cursor.itersize = _BATCH
        rows = iter(cursor.execute(_PENDING, (since,)))
        while batch := list(islice(rows, _BATCH)):
            pipe = client.pipeline(transaction=False)
            for payment_id, lane, created_at in batch:
                if lengths[lane] < lane_limit:
                    lengths[lane] += 1
                    # Unique, and in order whatever the clock's grain: the number goes up within a lane.
                    entry_id = f"{int(created_at.timestamp() * 1000)}-{lengths[lane]}"
                    pipe.execute_command("XADD", stream.lane_key(lane), entry_id, *to_fields(payment_id.bytes, {}))
            pipe.execute()
    return lengths.total()


def add_held_elsewhere(system: System, stream_name: str, entries: int) -> None:
    """Entries that another consumer has read and not settled: they stay in the group's list of what is pending."""
    stream = payments_stream(stream_name)
    key = stream.lane_keys[0]
    earlier_ms = int((time.time() - 600) * 1000)  # what comes later needs later ids
    with system.redis_client() as client:
        for first in range(0, entries, _BATCH):
            pipe = client.pipeline(transaction=False)
            for number in range(first, first + _BATCH):
                fields = to_fields(number.to_bytes(16, "big"), {})
                pipe.execute_command("XADD", key, f"{earlier_ms}-{number + 1}", *fields)
            pipe.execute()
        for lane_key in stream.lane_keys:
            client.xgroup_create(lane_key, GROUP, id="0", mkstream=True)
        for _ in range(0, entries, _BATCH):
            client.xreadgroup(GROUP, "elsewhere", {key: ">"}, count=_BATCH)


def add_delayed(system: System, stream_name: str, messages: int) -> None:
    """Messages whose time comes in a day."""
    due_ms = (time.time() + 86_400) * 1000
    key = payments_stream(stream_name).delayed_key
    with system.redis_client() as client:
        for first in range(0, messages, _BATCH):
            client.zadd(key, {f"not due {number}": due_ms + number for number in range(first, first + _BATCH)})


def reset(system: System) -> None:
    """Begin to count anew, and note every command of `SLOW_MS` or more."""
    with system.redis_client() as client:
        client.config_set("slowlog-log-slower-than", int(SLOW_MS * 1000))
        client.config_set("slowlog-max-len", _SLOW_LIMIT)
        client.slowlog_reset()
        client.config_resetstat()


def slow_commands(system: System) -> Sequence[Slow]:
    """Return the commands that took `SLOW_MS` or more since the last `reset`, the slowest first; scripts by name."""
    with system.redis_client() as client:
        entries: list[dict[str, Any]] = client.slowlog_get(_SLOW_LIMIT)
    times_ms: defaultdict[str, list[float]] = defaultdict(list)
    for entry in entries:
        times_ms[_named(entry["command"])].append(entry["duration"] / 1000)
    found = [
        Slow(name, len(times), statistics.median(times), sorted(times, reverse=True)[:_WORST])
        for name, times in times_ms.items()
    ]
    return sorted(found, key=lambda slow: slow.worst_ms[0], reverse=True)


def command_times(system: System, *, limit: int = 8) -> Sequence[CommandTime]:
    """The commands that took Redis the most time since the last `reset`."""
    with system.redis_client() as client:
        times = sorted(_times(client), key=lambda one: one.total_s, reverse=True)
    return times[:limit]


def bytes_per_entry(system: System) -> float:
    """Redis' memory for one wake-up that waits, on average over many."""
    stream = payments_stream("bench-bytes")
    key = stream.lane_keys[0]
    with system.redis_client() as client:
        pipe = client.pipeline(transaction=False)
        for number in range(_ENTRIES):
            pipe.execute_command("XADD", key, "*", *to_fields(number.to_bytes(16, "big"), {}))
        pipe.execute()
        used = int(client.memory_usage(key, samples=0))
        client.delete(key)
    return used / _ENTRIES


def _times(client: redis.Redis) -> Iterator[CommandTime]:
    stats: dict[str, dict[str, float]] = client.info("commandstats")
    for name, seen in stats.items():
        total_s = seen["usec"] / 1e6
        yield CommandTime(name.removeprefix("cmdstat_"), int(seen["calls"]), seen["usec_per_call"], total_s)


def _named(command: bytes) -> str:
    """A command's name; a script's, as `streams` calls it by its digest."""
    name, _, rest = command.decode(errors="replace").partition(" ")
    return _script_names().get(rest.partition(" ")[0], name) if name.upper() == "EVALSHA" else name


@functools.cache
def _script_names() -> Mapping[str, str]:
    scripts = [*files("streams").joinpath("lua").iterdir(), *files("okane.redis").iterdir()]
    return {
        hashlib.sha1(script.read_bytes(), usedforsecurity=False).hexdigest(): script.name
        for script in scripts
        if script.name.endswith(".lua")
    }
