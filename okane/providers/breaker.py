"""The circuit breaker of one provider in one worker: results of calls and a clock in, closed, open or half-open out. Pure.

It is closed until at least half of 20 calls within ten seconds were bad. Then it is open: no call, for a second first, and
twice as long after each failed probe, up to a minute. After that it is half-open: one call, the probe, closes or opens it.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from dataclasses import dataclass
from typing import assert_never


class Circuit(enum.StrEnum):
    """The state of a breaker."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


class Verdict(enum.StrEnum):
    """The meaning of one call's result for the breaker."""

    GOOD = "good"  # the provider decided: a decline, too
    BAD = "bad"
    REFUSED = "refused"  # our key or our request is wrong: every other call will fail, too
    LIMITED = "limited"  # neither good nor bad: a rate limit, or a look-up that proves nothing about the provider


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    """When a breaker opens, and for how long. The window is counted in slices: a result leaves it up to a slice late."""

    window_s: float = 10.0
    slices: int = 10
    least_calls: int = 20
    bad_share: float = 0.5
    first_open_s: float = 1.0
    longest_open_s: float = 60.0
    probe_patience_s: float = 90.0  # a probe without a result for so long was lost: another one may go

    def __post_init__(self) -> None:
        if not (0 < self.first_open_s <= self.longest_open_s and 0 < self.bad_share <= 1):
            raise ValueError("a breaker needs 0 < first_open_s <= longest_open_s and 0 < bad_share <= 1")
        if self.least_calls < 1 or self.slices < 1 or self.window_s <= 0 or self.probe_patience_s <= 0:
            raise ValueError("least_calls, slices, window_s and probe_patience_s are positive")


@dataclass(slots=True)
class _Slice:
    number: int
    calls: int = 0
    bad: int = 0


class CircuitBreaker:
    """One breaker. Every method takes the time, in seconds of one monotonic clock."""

    def __init__(self, rules: BreakerRules | None = None) -> None:
        self.rules = rules or BreakerRules()
        self._slice_s = self.rules.window_s / self.rules.slices
        self._slices: deque[_Slice] = deque(maxlen=self.rules.slices)
        self._since_s: float | None = None  # the last change of state: results of earlier calls do not count
        self._open_until_s: float | None = None  # None: closed
        self._open_s = self.rules.first_open_s  # how long it opens the next time
        self._probe_since_s: float | None = None
        self._slice_ends_s = -math.inf  # of the newest slice, if there is one

    def state(self, now_s: float) -> Circuit:
        """Return the state."""
        if self._open_until_s is None:
            return Circuit.CLOSED
        return Circuit.OPEN if now_s < self._open_until_s else Circuit.HALF_OPEN

    def may_call(self, now_s: float) -> bool:
        """Return True if `begin` would permit a call now."""
        match self.state(now_s):
            case Circuit.CLOSED:
                return True
            case Circuit.OPEN:
                return False
            case Circuit.HALF_OPEN:
                began_s = self._probe_since_s
                return began_s is None or now_s - began_s >= self.rules.probe_patience_s
            case unreachable:
                assert_never(unreachable)

    def begin(self, now_s: float) -> bool:
        """Permit a call, or refuse it. While half-open the permitted call is the probe, until its result or `give_back`."""
        if self._open_until_s is None:
            return True
        if not self.may_call(now_s):
            return False
        self._probe_since_s = now_s
        return True

    def give_back(self) -> None:
        """Take back a permit whose call was not made: while half-open another call may be the probe."""
        self._probe_since_s = None

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until a refused call may be permitted: at least those of the shortest opening, while a probe
        is under way."""
        if self._open_until_s is None:
            return 0.0
        return max(self._open_until_s - now_s, 0.0) or self.rules.first_open_s

    def count_good(self, *, began_s: float, now_s: float) -> bool:
        """Count a good call if the breaker is closed and another call has begun the slice; return False for `record` to do
        it."""
        if now_s >= self._slice_ends_s or (self._since_s is not None and began_s < self._since_s):
            return False
        self._slices[-1].calls += 1
        return True

    def record(self, verdict: Verdict, *, began_s: float, now_s: float) -> bool:
        """Take the result of a call that began at `began_s`. Return True if the breaker has opened or closed by it.

        A call from before the last change of state proves nothing any more: after an outage its time-outs come late. While
        open nothing counts: calls that began before it opened end, and only the probe decides.
        """
        if self._since_s is not None and (began_s < self._since_s or self.state(now_s) is Circuit.OPEN):
            return False
        match verdict:
            case Verdict.LIMITED:
                self.give_back()
                return False
            case Verdict.REFUSED:
                self._open(now_s)
                return True
            case Verdict.GOOD | Verdict.BAD:
                return self._count(now_s, bad=verdict is Verdict.BAD)
            case unreachable:
                assert_never(unreachable)

    def _count(self, now_s: float, *, bad: bool) -> bool:
        if self._open_until_s is not None:
            if bad:
                self._open(now_s)
            else:
                self._close(now_s)
            return True
        number = int(now_s / self._slice_s)
        self._slice_ends_s = (number + 1) * self._slice_s
        while self._slices and self._slices[0].number <= number - self.rules.slices:
            self._slices.popleft()
        if not self._slices or self._slices[-1].number != number:
            self._slices.append(_Slice(number))
        newest = self._slices[-1]
        newest.calls += 1
        if not bad:
            return False
        newest.bad += 1
        calls = sum(one.calls for one in self._slices)
        bad_calls = sum(one.bad for one in self._slices)
        if calls < self.rules.least_calls or bad_calls < self.rules.bad_share * calls:
            return False
        self._open(now_s)
        return True

    def _open(self, now_s: float) -> None:
        self._open_until_s = now_s + self._open_s
        self._open_s = min(2 * self._open_s, self.rules.longest_open_s)
        self._change(now_s)

    def _close(self, now_s: float) -> None:
        self._open_until_s = None
        self._open_s = self.rules.first_open_s
        self._change(now_s)

    def _change(self, now_s: float) -> None:
        self._since_s = now_s
        self._probe_since_s = None
        self._slices.clear()
        self._slice_ends_s = -math.inf
