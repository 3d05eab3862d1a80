"""A token bucket in memory: the rate limit of one endpoint queue. Pure."""

from __future__ import annotations

BURST_S = 0.1  # requests of so many seconds may go at once
_ONE = 1 - 1e-9  # a token, less the rounding of the wait for it


class TokenBucket:
    """A bucket that fills with `per_s` tokens a second. Times are seconds of one monotonic clock."""

    def __init__(self, per_s: float, *, now_s: float) -> None:
        self._per_s = per_s
        self._size = max(1.0, per_s * BURST_S)
        self._tokens = self._size
        self._filled_at_s = now_s

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until a token can be taken; 0 if one is there."""
        self._fill(now_s)
        return 0.0 if self._tokens >= _ONE else (1 - self._tokens) / self._per_s

    def take(self, now_s: float) -> None:
        """Take a token; `wait_s` must have returned 0."""
        self._fill(now_s)
        self._tokens -= 1

    def _fill(self, now_s: float) -> None:
        self._tokens = min(self._size, self._tokens + (now_s - self._filled_at_s) * self._per_s)
        self._filled_at_s = now_s
