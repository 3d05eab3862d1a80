"""How long to wait before a message is tried again. Pure: the dice are an argument."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off with a cap and full jitter.

    Full jitter (a uniform choice between zero and the bound) spreads a crowd that failed together best; see the AWS
    Architecture Blog, "Exponential Backoff And Jitter". `max_attempts` counts the first try; None never gives up.
    """

    base: timedelta = timedelta(seconds=1)
    cap: timedelta = timedelta(minutes=5)
    factor: float = 2.0
    max_attempts: int | None = 8

    def __post_init__(self) -> None:
        if self.base <= timedelta(0) or self.cap < self.base or self.factor < 1:
            raise ValueError("a retry policy needs 0 < base <= cap and factor >= 1")
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError("a retry policy allows at least one attempt")

    def bound(self, attempt: int) -> timedelta:
        """The longest delay after the `attempt`-th try (1 is the first), before jitter."""
        # Beyond this exponent the cap has won long ago, and a float would overflow.
        growth = min(math.log(self.cap / self.base, self.factor) + 1, attempt - 1) if self.factor > 1 else 0
        return min(self.cap, self.base * self.factor**growth)

    def delay(self, attempt: int, *, roll: float) -> timedelta | None:
        """How long to wait after the `attempt`-th try failed, given `roll` in [0, 1). None: that was the last."""
        if attempt < 1 or not 0 <= roll < 1:
            raise ValueError(f"attempts count from 1 and a roll is in [0, 1): {attempt}, {roll}")
        if self.max_attempts is not None and attempt >= self.max_attempts:
            return None
        return self.bound(attempt) * roll
