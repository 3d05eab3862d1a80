"""Token buckets for rate limits: in Redis for all processes together, or in one process while Redis is away.

A bucket holds `burst` tokens and fills with `per_s` of them per second. Concurrent takes share a round trip.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from streams import Coalescer, Stream
from streams.connection import checked_client, translating
from streams.script import Argument, Script

_SCRIPT = Script("okane.redis", "buckets.lua")
_CENTURY_S = 100 * 366 * 86_400  # Lua's numbers lose their microseconds beyond it
MAX_LOCAL = 10_000  # buckets in the memory of one process


@dataclass(frozen=True, slots=True)
class Allowance:
    """The rate at which a bucket fills, and its size. An empty bucket must fill within a century."""

    per_s: float
    burst: int

    def __post_init__(self) -> None:
        if not (self.burst >= 1 and 0 < self.per_s < math.inf and self.burst / self.per_s <= _CENTURY_S):
            raise ValueError(f"an allowance needs per_s > 0, burst >= 1 and at most a century to fill: {self}")


@dataclass(frozen=True, slots=True)
class TakeResult:
    """The result of one take. `next_s`: until the next token, 0 if one is left; `full_s`: until the bucket is full."""

    granted: bool
    left: int
    next_s: float
    full_s: float


class TokenBuckets:
    """Buckets in Redis, beside a stream. Time is the server's. A full bucket takes no memory there."""

    def __init__(self, client: Redis, stream: Stream) -> None:
        self._client = checked_client(client)
        self._stream = stream
        self._taking: Coalescer[tuple[str, Allowance], TakeResult] = Coalescer(self._take)

    async def aclose(self) -> None:
        """Refuse further takes, and return when those under way have their results."""
        await self._taking.aclose()

    async def take(self, name: str, allowance: Allowance) -> TakeResult:
        """Take a token from the bucket of this name. Raises StreamError if Redis cannot be used, and TypeError or ValueError
        for a wrong name or allowance, before the take shares a round trip with others."""
        if not isinstance(name, str):
            raise TypeError(f"a bucket's name is a str, not {type(name).__name__}")
        if not isinstance(allowance, Allowance):
            raise TypeError(f"a bucket has an allowance, not {type(allowance).__name__}")
        name.encode()  # raises for text that UTF-8 cannot write
        return await self._taking.submit((name, allowance))

    async def take_many(self, name: str, allowance: Allowance, wanted: int) -> tuple[int, float]:
        """Take up to `wanted` tokens in a round trip of its own; return how many, and the seconds until the next one (0 if
        one is left). Raises StreamError if Redis cannot be used."""
        bucket = (allowance.per_s, allowance.burst, wanted)
        [(taken, _left, next_us, _full_us)] = await _run(self._client, [bucket_key(self._stream, name)], [bucket])
        return taken, next_us / 1e6

    @translating
    async def _take(self, takes: Sequence[tuple[str, Allowance]]) -> Sequence[TakeResult]:
        wanted = Counter(takes)
        keys = [bucket_key(self._stream, name) for name, _ in wanted]
        buckets = [(allowance.per_s, allowance.burst, count) for (_, allowance), count in wanted.items()]
        found = dict(zip(wanted, await _run(self._client, keys, buckets), strict=True))
        results, served = [], Counter[tuple[str, Allowance]]()
        for one in takes:  # first come, first served
            served[one] += 1
            taken, left, next_us, full_us = found[one]
            left_for_others = left + max(0, taken - served[one])
            results.append(TakeResult(served[one] <= taken, left_for_others, next_us / 1e6, full_us / 1e6))
        return results


class LocalTokenBuckets:
    """Buckets in the memory of one process, which gets its share of an allowance for several processes."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._full_s: dict[str, float] = {}  # the time at which each will be full

    def take(self, name: str, allowance: Allowance, *, sharers: int = 1) -> TakeResult:
        """Take a token from this process's share of the bucket."""
        interval_s = sharers / allowance.per_s
        burst = max(1, allowance.burst // sharers)
        now_s = self._monotonic()
        whole_s = burst * interval_s
        full_s = min(max(self._full_s.pop(name, now_s), now_s), now_s + whole_s)
        there = int((now_s + whole_s - full_s) / interval_s + 1e-6)
        if there:
            full_s += interval_s
        if len(self._full_s) >= MAX_LOCAL:
            del self._full_s[next(iter(self._full_s))]
        self._full_s[name] = full_s
        left = max(0, there - 1)
        next_s = 0.0 if left else full_s - whole_s + interval_s - now_s
        return TakeResult(there > 0, left, next_s, full_s - now_s)


def bucket_key(stream: Stream, name: str) -> str:
    """Return the key of the bucket of this name. Its value: the server's time in microseconds at which it is full."""
    return stream.key(f"bucket:{name}")


@translating
async def _run(
    client: Redis, keys: Sequence[str], buckets: Iterable[tuple[float, int, int]]
) -> Sequence[tuple[int, int, int, int]]:
    """Run the script. `buckets` are (tokens per second, tokens in a full one, tokens wanted). Return for each: tokens taken,
    tokens left, microseconds until the next one (0 if one is left) and until the bucket is full."""
    arguments: list[Argument] = []
    for per_s, burst, wanted in buckets:
        arguments += (repr(1_000_000 / per_s), burst, wanted)
    return [tuple(one) for one in await _SCRIPT(client, keys, arguments)]
