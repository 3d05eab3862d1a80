"""Token buckets: how often something may be done, counted by all processes together, or by one where Redis is away.

A bucket holds `burst` tokens and fills with `per_s` of them in a second. All who take at the same time share a round trip.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from streams import scripts
from streams.arguments import checked_client
from streams.coalesce import Coalescer
from streams.connection import translating
from streams.keys import Stream

_CENTURY_S = 100 * 366 * 86_400  # beyond it the server's numbers lose their microseconds
MAX_LOCAL = 10_000  # buckets that one process keeps by itself


@dataclass(frozen=True, slots=True)
class Allowance:
    """How a bucket fills, and how much it holds. It is full within a century."""

    per_s: float
    burst: int

    def __post_init__(self) -> None:
        if not (self.burst >= 1 and 0 < self.per_s < math.inf and self.burst / self.per_s <= _CENTURY_S):
            raise ValueError(f"an allowance fills with more than nothing, and holds at least one: {self}")


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a try. `next_s`: until there is a token again, 0 if there is one; `full_s`: until all are there."""

    granted: bool
    left: int
    next_s: float
    full_s: float


class Buckets:
    """Buckets in Redis, beside a stream. Time is the server's. One that is full takes no memory there."""

    def __init__(self, client: Redis, stream: Stream) -> None:
        self._client = checked_client(client)
        self._stream = stream
        self._taking: Coalescer[tuple[str, Allowance], Taken] = Coalescer(self._take)

    async def aclose(self) -> None:
        """Take no more, and answer those who wait."""
        await self._taking.aclose()

    async def take(self, name: str, allowance: Allowance) -> Taken:
        """A token out of the bucket of this name. Raises StreamError if Redis cannot be asked, and TypeError or ValueError
        for what names no bucket, before it shares a round trip with others."""
        if not isinstance(name, str):
            raise TypeError(f"a bucket's name is a str, not {type(name).__name__}")
        if not isinstance(allowance, Allowance):
            raise TypeError(f"a bucket has an allowance, not {type(allowance).__name__}")
        name.encode()  # a name that cannot be written raises here
        return await self._taking.submit((name, allowance))

    @translating
    async def _take(self, asked: Sequence[tuple[str, Allowance]]) -> Sequence[Taken]:
        wanted = Counter(asked)
        keys = [self._stream.bucket_key(name) for name, _ in wanted]
        buckets = [(allowance.per_s, allowance.burst, count) for (_, allowance), count in wanted.items()]
        found = dict(zip(wanted, await scripts.take(self._client, keys, buckets), strict=True))
        answers, served = [], Counter[tuple[str, Allowance]]()
        for one in asked:  # who came first is served first
            served[one] += 1
            taken, left, next_us, full_us = found[one]
            left_for_others = left + max(0, taken - served[one])
            answers.append(Taken(served[one] <= taken, left_for_others, next_us / 1e6, full_us / 1e6))
        return answers


class LocalBuckets:
    """The same in one process, which gets its share of what several may do together."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._full_s: dict[str, float] = {}  # when each will be full

    def take(self, name: str, allowance: Allowance, *, sharers: int = 1) -> Taken:
        """A token out of this process's share of the bucket."""
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
        return Taken(there > 0, left, next_s, full_s - now_s)
