"""The gates in front of the providers, in one worker: circuit breaker, rate limit, and a copy of the switch.

A gate refuses a call before it is made, so no retry is burned. The claim in Postgres decides about the switch and the shared
level of the breaker; the copy here (see provider_watch.py) only keeps a worker from reading payments that it cannot charge.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Protocol, assert_never

import structlog

from okane.metrics import OkaneMetrics
from okane.providers.base import Approved, Authorized, Declined, LookUpResult, NotFound, Pending, Unavailable, Unknown
from okane.providers.breaker import BreakerRules, Circuit, CircuitBreaker, Verdict

log = structlog.get_logger("okane.gate")

OFFER_EVERY_S = 1.0  # a half-open provider is offered to one claim in this time: only one call can be the probe
LONGEST_HOLD_S = 0.5  # at a rate limit a worker holds as many payments as pass in this time


class Limiter(Protocol):
    """The rate limit of one provider."""

    @property
    def share_per_s(self) -> float:
        """The calls per second that this worker may make."""
        ...

    async def permit(self) -> timedelta | None:
        """Return None when a call may be made, or the time to wait if none may within a second."""
        ...


class ProviderGate:
    """The gate of one provider. `on_change` is called when its breaker has opened, opened again, or closed."""

    def __init__(
        self,
        name: str,
        *,
        metrics: OkaneMetrics,
        rules: BreakerRules | None = None,
        limiter: Limiter | None = None,
        roll: Callable[[], float] = random.random,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.is_suspect = False  # the breaker has opened after a byte was sent, and that is not written yet
        self.has_recovered = False  # it has closed, and that is not written yet
        self._breaker = CircuitBreaker(rules)
        self._limiter = limiter
        self._roll = roll
        self._on_change = on_change
        self._switched_off = False
        self._shared_open_until_s = 0.0  # of the shared level, by time.monotonic
        self._permits = 0  # of calls without a result yet
        self._has_reached = False  # a failed call since the last change of the breaker has sent a byte
        self._was_open = False  # the breaker, at its last change
        self._offered_at_s = -math.inf
        self._deferred = metrics.provider_deferred.labels
        self._shown = metrics.circuit_open.labels(name, "worker")
        metrics.show_provider(name)

    def may_be_chosen(self) -> bool:
        """Return True if a claim may choose the provider now. Half-open, it is offered to one claim a second."""
        if not self._was_open:
            return True
        now_s = time.monotonic()
        if not self._breaker.may_call(now_s) or now_s - self._offered_at_s < OFFER_EVERY_S:
            return False
        self._offered_at_s = now_s
        return True

    def room(self) -> float:
        """Return how many payments may be in hand for this provider."""
        now_s = time.monotonic()
        if self._switched_off or now_s < self._shared_open_until_s or not self._breaker.may_call(now_s):
            return 0
        if self._was_open:
            return self._permits + 1
        if self._limiter is None:
            return math.inf
        return self._permits + max(1, round(self._limiter.share_per_s * LONGEST_HOLD_S))

    async def permit(self) -> timedelta | None:
        """Take the permit of one charge. Return None, or the time to wait. May block for a second, at a rate limit.

        A permit is followed by `record`, or by `give_back` if the call was not made.
        """
        if self._was_open and not self._breaker.begin(now_s := time.monotonic()):
            self._deferred(self.name, "circuit_open").inc()
            return timedelta(seconds=self._breaker.wait_s(now_s) * (1 + self._roll()))
        self._permits += 1
        if self._limiter is None:
            return None
        try:
            wait = await self._limiter.permit()
        except BaseException:
            self.give_back()
            raise
        if wait is not None:
            self._deferred(self.name, "rate_limit").inc()
            self.give_back()
        return wait

    def give_back(self) -> None:
        """Take back a permit whose call was not made."""
        self._permits = max(0, self._permits - 1)
        self._breaker.give_back()

    def record(self, result: LookUpResult, *, took_s: float = 0.0) -> None:
        """Take the result of a call: of a permitted charge, or of a look-up, which needs no permit."""
        self._permits = max(0, self._permits - 1)
        now_s = time.monotonic()
        if type(result) is Approved and self._breaker.count_good(began_s=now_s - took_s, now_s=now_s):
            return  # nearly always
        verdict = verdict_of(result)
        if verdict is not Verdict.GOOD:
            self._has_reached |= _has_sent(result)
            if isinstance(result, Unavailable) and result.fault != "provider":
                self._deferred(self.name, result.fault).inc()
        if self._breaker.record(verdict, began_s=now_s - took_s, now_s=now_s):
            self._report(result, now_s)

    def set_limiter(self, limiter: Limiter | None) -> None:
        """Use another rate limit for the permits from now on, or none."""
        self._limiter = limiter

    def observe(self, *, switched_off: bool, shared_open_s: float) -> None:
        """Copy the state of the provider in Postgres: its switch, and for how long the shared level is still open."""
        self._switched_off = switched_off
        self._shared_open_until_s = time.monotonic() + shared_open_s if shared_open_s > 0 else 0.0

    def _report(self, result: LookUpResult, now_s: float) -> None:
        is_open = self._breaker.state(now_s) is not Circuit.CLOSED
        if is_open and not self._was_open:
            log.error("circuit_opened", provider=self.name, reason=getattr(result, "reason", None))
        elif not is_open:
            log.error("circuit_closed", provider=self.name)
        self._was_open = is_open
        self.has_recovered = not is_open
        self.is_suspect = is_open and self._has_reached
        self._has_reached = False
        self._shown.set(is_open)
        self._on_change()


class ProviderGates:
    """The gates of one worker. `changed` is set when one of them has something to write."""

    def __init__(
        self,
        names: Iterable[str],
        *,
        metrics: OkaneMetrics,
        limiters: Mapping[str, Limiter] | None = None,
        rules: BreakerRules | None = None,
        roll: Callable[[], float] = random.random,
    ) -> None:
        limiters = limiters or {}
        self.changed = asyncio.Event()
        self.by_name: Mapping[str, ProviderGate] = {
            name: ProviderGate(
                name, metrics=metrics, rules=rules, limiter=limiters.get(name), roll=roll, on_change=self.changed.set
            )
            for name in names
        }

    def capacity(self, most: int) -> int:
        """Return how many payments the worker may have in hand, up to `most`; 0 while it can use no provider."""
        return int(min(most, sum(gate.room() for gate in self.by_name.values())))


def verdict_of(result: LookUpResult) -> Verdict:
    """Return the meaning of a result for the breaker."""
    match result:
        case Approved() | Authorized() | Declined() | Pending() | NotFound():
            return Verdict.GOOD
        case Unknown(is_neutral=True):
            return Verdict.LIMITED
        case Unknown():
            # A key that was used for another request is our fault: the provider works.
            return Verdict.GOOD if result.at_once else Verdict.BAD
        case Unavailable(fault="provider"):
            return Verdict.BAD
        case Unavailable(fault="limit"):
            return Verdict.LIMITED
        case Unavailable():
            return Verdict.REFUSED
        case _:
            assert_never(result)


def _has_sent(result: LookUpResult) -> bool:
    """Return True if the request has left this host. A provider that gave a time to wait, or whose fault it was not, has
    answered it."""
    return (isinstance(result, Unknown) and not result.is_neutral) or (
        isinstance(result, Unavailable) and (result.fault != "provider" or result.retry_after is not None)
    )
