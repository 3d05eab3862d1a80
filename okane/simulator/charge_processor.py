"""The decisions of the mock provider, without HTTP: the act for a call, the charge, the answer to a look-up.

Promise: an idempotency key is charged at most once, whatever is drawn, and every later call and look-up returns the first
decision.
"""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate

from okane.simulator.journal import Charge, Journal
from okane.simulator.options import MAGIC_AMOUNTS, Act, Behaviour

_ACTS = tuple(Act)
# The acts that execute the request.
CAPTURES = frozenset(
    {Act.SUCCESS, Act.ERROR_500_AFTER_CHARGE, Act.GARBAGE, Act.TIMEOUT_AFTER_CHARGE, Act.RESET_AFTER_CHARGE}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeRequest:
    """A well-formed request for a charge."""

    key: str
    payment_id: str
    amount: int  # minor units
    currency: str
    is_manual: bool = False  # it only authorizes, and waits for a capture


@dataclass(frozen=True, slots=True)
class Recorded:
    """The durable result of the key. `act` is None for a repeat, which gets the plain result."""

    charge: Charge
    act: Act | None = None


@dataclass(frozen=True, slots=True)
class NotRecorded:
    """Nothing was charged or recorded; `act` is the way to answer, or not to."""

    act: Act


@dataclass(frozen=True, slots=True)
class Conflict:
    """The key was used with another payment, amount or currency. Nothing was charged."""


Decision = Recorded | NotRecorded | Conflict


class ChargeProcessor:
    """Decides on charges according to `behaviour`, which `change` can replace at any time."""

    def __init__(self, *, journal: Journal, behaviour: Behaviour, dice: random.Random) -> None:
        self.journal = journal
        self.change(behaviour)
        self.calls = 0  # well-formed charge requests
        self.repeats = 0  # of them, those with a key that has a result: suppressed duplicates
        self.conflicts = 0
        self.lookups = 0
        self._dice = dice

    def change(self, behaviour: Behaviour) -> None:
        """Replace the behaviour from the next call on; calls in progress keep their act."""
        self.behaviour = behaviour
        self._cumulative_weights = tuple(accumulate(behaviour.weights))
        self._latency_range_ms = behaviour.latency_range_ms

    def draw_latency_s(self) -> float:
        low, high = self._latency_range_ms
        return (low if low == high else self._dice.uniform(low, high)) / 1000

    async def decide(self, request: ChargeRequest) -> Decision:
        """Decide on a request. Raises JournalError when the result cannot be recorded; then no result may be sent."""
        self.calls += 1
        if (known := self.journal.find(request.key)) is not None:
            return await self._repeat(known, request)
        act, code = self.draw(request.amount)
        if act is not Act.DECLINE and act not in CAPTURES:
            return NotRecorded(act)
        return Recorded(await self._keep(request, declined=act is Act.DECLINE, code=code), act)

    async def charge_late(self, request: ChargeRequest) -> Recorded | Conflict:
        """Charge a request that was held back on its way. Raises as `decide` does."""
        known = self.journal.find(request.key)
        return Recorded(await self._keep(request)) if known is None else await self._repeat(known, request)

    async def _keep(self, request: ChargeRequest, *, declined: bool = False, code: str = "") -> Charge:
        now = datetime.now(UTC)
        ends_at = now + timedelta(seconds=self.behaviour.authorization_s)
        charge = Charge(
            key=request.key,
            payment_id=request.payment_id,
            amount=request.amount,
            currency=request.currency,
            status="declined" if declined else "authorized" if request.is_manual else "captured",
            provider_ref=f"ch_{secrets.token_hex(12)}",
            at=now.isoformat(),
            code=code or None,
            capture_before=ends_at.isoformat() if request.is_manual else None,
        )
        await self.journal.append(charge)
        return charge

    async def look_up(self, key: str) -> Charge | None:
        """Return the charge under `key`, or None while the consistency lag lasts."""
        self.lookups += 1
        charge = self.journal.find(key)
        if charge is None or charge.age_s(datetime.now(UTC)) * 1000 < self.behaviour.lookup_lag_ms:
            return None
        await self.journal.durable()
        return charge

    def summary(self) -> dict[str, int]:
        """Return counts: keys, charged, authorized and declined of the journal, the others since this process started."""
        return {
            "keys": len(self.journal),
            "charged": self.journal.counts["captured"],
            "authorized": self.journal.counts["authorized"],
            "declined": self.journal.counts["declined"],
            "calls": self.calls,
            "duplicates_suppressed": self.repeats,
            "conflicts": self.conflicts,
            "lookups": self.lookups,
        }

    async def _repeat(self, known: Charge, request: ChargeRequest) -> Recorded | Conflict:
        same = known.same_request(payment_id=request.payment_id, amount=request.amount, currency=request.currency)
        if not same or known.is_manual != request.is_manual:
            self.conflicts += 1
            return Conflict()
        self.repeats += 1
        await self.journal.durable()  # the first call may still be waiting for its fsync
        return Recorded(known)

    def draw(self, amount: int) -> tuple[Act, str]:
        """Return the act for a call about this amount, and the code of a decline."""
        if self.behaviour.magic_amounts and (magic := MAGIC_AMOUNTS.get(amount % 10_000)) is not None:
            return magic
        act = self._dice.choices(_ACTS, cum_weights=self._cumulative_weights)[0]
        return act, "card_declined" if act is Act.DECLINE else ""
