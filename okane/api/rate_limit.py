"""The rate limit of API keys. A refused request costs one shared round trip to Redis, and nothing else.

Guarantee: a key within its limit is not refused because Redis is away, slow or full: each API counts its share alone then.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus

from okane.api.problems import Problem
from okane.deadline import Deadline
from okane.pausing import pause
from okane.rate import Rate
from okane.redis.buckets import Allowance, LocalTokenBuckets, TakeResult, TokenBuckets
from okane.redis.presence import PresentProcess
from streams import StreamError

TIMEOUT_S = 0.5  # the longest that a request waits for Redis
AWAY_S = 1.0  # for so long after a failure Redis is not tried again
COUNT_APIS_S = 5.0

Processes = Callable[[], Awaitable[Sequence[PresentProcess]]]


class RateLimits:
    """The buckets of all keys. `processes` lists the APIs that share a limit while each counts alone."""

    def __init__(self, buckets: TokenBuckets, processes: Processes) -> None:
        self._buckets = buckets
        self._processes = processes
        self._local = LocalTokenBuckets()
        self._away_until_s = 0.0
        self._apis = 1
        self._used = False

    async def take(self, name: str, rate: Rate) -> Mapping[str, str]:
        """Count a request; return the headers about the limit. Raises a 429 Problem if the limit is exceeded."""
        self._used = True
        taken = await self._take(name, Allowance(rate.per_s, rate.burst))
        headers = _rate_limit_headers(rate, taken)
        if not taken.granted:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "rate_limited",
                f"this key is limited to {rate}; repeat the request with the same idempotency key",
                retryable=True,
                headers={**headers, "Retry-After": str(max(1, math.ceil(taken.next_s)))},
            )
        return headers

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the number of APIs that share the limits up to date until `stop` is set."""
        while not stop.is_set():
            await self.run_once()
            await pause(COUNT_APIS_S, stop)

    async def run_once(self) -> int:
        """Count the APIs that share the limits, if any limit is in use; return the last known number."""
        if self._used:
            with contextlib.suppress(StreamError):
                found = await self._processes()
                self._apis = max(1, sum(one.alive and one.role == "api" for one in found))
        return self._apis

    async def _take(self, name: str, allowance: Allowance) -> TakeResult:
        if time.monotonic() >= self._away_until_s:
            try:
                with Deadline(TIMEOUT_S):
                    return await self._buckets.take(name, allowance)
            except (StreamError, TimeoutError):
                self._away_until_s = time.monotonic() + AWAY_S
        return self._local.take(name, allowance, sharers=self._apis)


def _rate_limit_headers(rate: Rate, taken: TakeResult) -> Mapping[str, str]:
    """Return the headers of draft-ietf-httpapi-ratelimit-headers-10; the window is the time that the bucket takes to fill."""
    window_s = max(1, math.ceil(rate.burst / rate.per_s))
    return {
        "RateLimit-Policy": f'"key";q={rate.burst};w={window_s}',
        "RateLimit": f'"key";r={taken.left};t={math.ceil(taken.full_s)}',
    }
