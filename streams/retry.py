"""The backoff between retries. Pure: the random number is an argument."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

MAX_DELAY: Final = timedelta(days=365)  # longer delays are cut to it: dates and numbers overflow far beyond it


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off with a cap and full jitter.

    Full jitter (a uniform choice between zero and the bound) best spreads messages that failed together; see the AWS
    Architecture Blog, "Exponential Backoff And Jitter". `max_attempts` counts the first try; None never gives up.
    """

    base: timedelta = timedelta(seconds=1)
    cap: timedelta = timedelta(minutes=5)
    factor: float = 2.0
    max_attempts: int | None = 8

    def __post_init__(self) -> None:
        if self.base <= timedelta(0) or self.cap < self.base or not 1 <= self.factor < math.inf:
            raise ValueError("a retry policy needs 0 < base <= cap and a finite factor >= 1")
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError("a retry policy allows at least one attempt")

    def bound(self, attempt: int) -> timedelta:
        """Return the longest delay after attempt `attempt` (1 is the first), before jitter."""
        if self.factor == 1:
            return self.base
        if attempt > math.log(self.cap / self.base, self.factor) + 1:
            return self.cap  # checked first, because the power would overflow
        return min(self.cap, self.base * self.factor ** (attempt - 1))

    def delay(self, attempt: int, *, roll: float) -> timedelta | None:
        """Return the delay after the failed attempt `attempt`, given `roll` in [0, 1); None after the last attempt."""
        if attempt < 1 or not 0 <= roll < 1:
            raise ValueError(f"attempts count from 1 and a roll is in [0, 1): {attempt}, {roll}")
        if self.max_attempts is not None and attempt >= self.max_attempts:
            return None
        return self.bound(attempt) * roll
