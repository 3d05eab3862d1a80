"""The circuit breaker of one endpoint queue: results of requests and a clock in, the number of slots out. Pure.

Five failures in a row open it. Then a single probe goes, after a second first and twice as long after each failed one, up to
five minutes. The first success opens one slot, and every ten more double them until all are open: no burst after an outage.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Circuit(enum.StrEnum):
    """The state of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    RECOVERING = "recovering"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    """When a breaker opens, for how long, and how fast its slots come back."""

    failures: int = 5  # in a row
    first_open_s: float = 1.0
    longest_open_s: float = 300.0
    successes: int = 10  # until the slots double

    def __post_init__(self) -> None:
        if not 0 < self.first_open_s <= self.longest_open_s or self.failures < 1 or self.successes < 1:
            raise ValueError("a breaker needs 0 < first_open_s <= longest_open_s and positive counts")


class EndpointBreaker:
    """One breaker. Times are seconds of one monotonic clock."""

    def __init__(self, rules: BreakerRules | None = None) -> None:
        self._rules = rules or BreakerRules()
        self.state = Circuit.CLOSED
        self.opened = 0  # how often it has opened
        self._failures = 0  # in a row
        self._open_s = self._rules.first_open_s  # how long it opens the next time
        self._probe_at_s = 0.0
        self._slots = 0  # while it recovers
        self._successes = 0  # since the slots have doubled

    def slots(self, most: int) -> int:
        """Return how many requests may be in flight, of `most`. While it is open there is one, for the probe."""
        match self.state:
            case Circuit.CLOSED:
                return most
            case Circuit.OPEN:
                return 1
            case Circuit.RECOVERING:
                return min(self._slots, most)

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until a request may begin: 0 except before a probe."""
        return max(self._probe_at_s - now_s, 0.0) if self.state is Circuit.OPEN else 0.0

    def succeed(self, most: int) -> None:
        """Take a success; `most` is the number of slots of the closed breaker.

        One that began before the breaker opened counts too: the endpoint works.
        """
        self._failures = 0
        match self.state:
            case Circuit.CLOSED:
                return
            case Circuit.OPEN:
                self.state, self._slots, self._successes = Circuit.RECOVERING, 1, 0
            case Circuit.RECOVERING:
                self._successes += 1
                if self._successes >= self._rules.successes:
                    self._slots, self._successes = 2 * self._slots, 0
        if self._slots >= most:
            self.state, self._open_s = Circuit.CLOSED, self._rules.first_open_s

    def fail(self, now_s: float, *, probe: bool) -> None:
        """Take a failure. While the breaker is open only that of the probe counts: others began before it opened."""
        self._failures += 1
        if self.state is Circuit.OPEN:
            if probe:
                self._open(now_s)
        elif self._failures >= self._rules.failures:
            self._open(now_s)

    def _open(self, now_s: float) -> None:
        self.opened += self.state is not Circuit.OPEN
        self.state = Circuit.OPEN
        self._probe_at_s = now_s + self._open_s
        self._open_s = min(2 * self._open_s, self._rules.longest_open_s)
