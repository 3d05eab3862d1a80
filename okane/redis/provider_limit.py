"""The rate limit of one provider, shared by all workers through Redis.

A worker takes the tokens of the next 100 ms at once, so Redis has ten round trips a second for each worker at most, and a
call seldom waits for one. While Redis is away a worker has its share: the rate divided by the workers last seen.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta

from okane.rate import Rate
from okane.redis.buckets import Allowance, LocalTokenBuckets, TokenBuckets
from streams import StreamError

LEASE_S = 0.1  # for which tokens are taken at once
PATIENCE_S = 1.0  # for a permit; after it the call is deferred
REDIS_PATIENCE_S = 0.25
AWAY_S = 2.0  # between two tries of a Redis that cannot be used


class ProviderLimit:
    """The rate limit of the provider `name`. `workers` returns how many workers were last seen, 0 if none ever was.

    The burst of the rate counts if it is not that of a whole window, which would let two windows' worth pass in one: without
    it, as much as passes in 100 ms.
    """

    def __init__(
        self,
        name: str,
        rate: Rate,
        *,
        buckets: TokenBuckets,
        workers: Callable[[], int],
        roll: Callable[[], float] = random.random,
    ) -> None:
        self._bucket = f"provider:{name}"
        self._allowance = _allowance(rate)
        self._buckets = buckets
        self._local = LocalTokenBuckets()
        self._workers = workers
        self._roll = roll
        self._held = 0  # tokens of the lease
        self._lease_ends_s = 0.0
        self._used = 0  # tokens used of this lease: about as many will be needed in the next
        self._away_until_s = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._filling: asyncio.Task[None] | None = None

    @property
    def share_per_s(self) -> float:
        """The calls per second that this worker may make while all workers want to."""
        return self._allowance.per_s / max(1, self._workers())

    def set_rate(self, rate: Rate) -> None:
        """Change the rate, for the next tokens that are taken."""
        self._allowance = _allowance(rate)

    async def aclose(self) -> None:
        """End the wait of all callers."""
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.gather(self._filling, return_exceptions=True)

    async def permit(self) -> timedelta | None:
        """Return None when a call may be made, in turn; after a second without a permit, the time to wait."""
        if not self._waiting and self._use_held():
            return None
        backlog_s = len(self._waiting) / self.share_per_s
        if backlog_s < PATIENCE_S and await self._wait_in_turn():
            return None
        return timedelta(seconds=max(PATIENCE_S, backlog_s) * (1 + self._roll()))

    async def _wait_in_turn(self) -> bool:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if self._filling is None:
            self._filling = asyncio.get_running_loop().create_task(self._fill())
        try:
            async with asyncio.timeout(PATIENCE_S):
                await turn
        except TimeoutError:
            return turn.done() and not turn.cancelled()  # it came in the last moment
        return True

    def _use_held(self) -> bool:
        if not self._held:
            return False
        if time.monotonic() >= self._lease_ends_s:
            self._held = 0  # what is held for longer would come on top of a later second's calls
            return False
        self._held -= 1
        self._used += 1
        return True

    async def _fill(self) -> None:
        """Take tokens and hand them out, first come, first served, until none waits."""
        try:
            while self._next() is not None:
                wait_s = await self._take()
                while (turn := self._next()) is not None and self._use_held():
                    self._waiting.popleft()
                    turn.set_result(None)
                if turn is not None:
                    await asyncio.sleep(min(wait_s, LEASE_S))
        finally:
            self._filling = None

    def _next(self) -> asyncio.Future[None] | None:
        """Return the first that still waits."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        return self._waiting[0] if self._waiting else None

    async def _take(self) -> float:
        """Take tokens for those that wait, and as many more as this lease is likely to need. Return the seconds until the
        next token."""
        wanted = len(self._waiting) + min(self._used, int(self.share_per_s * LEASE_S))
        if time.monotonic() >= self._away_until_s:
            try:
                async with asyncio.timeout(REDIS_PATIENCE_S):
                    taken, wait_s = await self._buckets.take_many(self._bucket, self._allowance, wanted)
            except (StreamError, TimeoutError):
                self._away_until_s = time.monotonic() + AWAY_S
            else:
                self._start_lease(taken)
                return wait_s
        return self._take_share(wanted)

    def _take_share(self, wanted: int) -> float:
        """Take tokens of this worker's share, while Redis cannot be used."""
        taken, wait_s = 0, 0.0
        while taken < wanted and not wait_s:
            result = self._local.take(self._bucket, self._allowance, sharers=max(1, self._workers()))
            taken, wait_s = taken + result.granted, result.next_s
        self._start_lease(taken)
        return wait_s

    def _start_lease(self, tokens: int) -> None:
        self._held, self._used = tokens, 0
        self._lease_ends_s = time.monotonic() + LEASE_S


def _allowance(rate: Rate) -> Allowance:
    burst = rate.burst if rate.burst != rate.requests else max(1, math.ceil(rate.per_s * LEASE_S))
    return Allowance(per_s=rate.per_s, burst=burst)
