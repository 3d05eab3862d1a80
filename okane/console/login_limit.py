"""The limit of attempts to log in: by address, and in all. In Redis, or in this process while Redis is away."""

from __future__ import annotations

import math

from okane.console.client_address import rate_limit_name
from okane.deadline import Deadline
from okane.redis.buckets import Allowance, LocalTokenBuckets, TokenBuckets
from streams import StreamError

PER_ADDRESS = Allowance(10 / 60, 10)
IN_ALL = Allowance(100 / 60, 100)
TIMEOUT_S = 0.5  # the longest that an attempt waits for Redis


class LoginLimit:
    """Counts attempts to log in."""

    def __init__(self, buckets: TokenBuckets) -> None:
        self._buckets = buckets
        self._local = LocalTokenBuckets()

    async def wait_s(self, address: str) -> int:
        """Count an attempt. Return 0 if it may go on, or the seconds to wait."""
        # The address first: attempts beyond its own limit must not use up that of the others.
        for name, allowance in ((f"login {rate_limit_name(address)}", PER_ADDRESS), ("login", IN_ALL)):
            try:
                with Deadline(TIMEOUT_S):
                    taken = await self._buckets.take(f"console {name}", allowance)
            except (StreamError, TimeoutError):
                taken = self._local.take(name, allowance)
            if not taken.granted:
                return max(1, math.ceil(taken.next_s))
        return 0
