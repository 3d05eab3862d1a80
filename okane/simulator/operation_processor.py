"""The decisions of the mock provider about captures, voids and refunds, without HTTP.

Promise: a key is executed at most once, whatever is drawn. Never more is captured than was authorized, and once; never more
is refunded than was captured; nothing is captured after a void or the end of the authorization.
"""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from okane.simulator.charge_processor import CAPTURES, ChargeProcessor, Conflict, NotRecorded
from okane.simulator.journal import Charge
from okane.simulator.notices import NoticeSender
from okane.simulator.operation_journal import OperationEntry, OperationJournal
from okane.simulator.options import MAGIC_REFUNDS, Act

KINDS = ("capture", "void", "refund")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRequest:
    """A well-formed request for an operation. `charge` is the key of the charge."""

    key: str
    kind: str
    charge: str
    payment_id: str
    operation_id: str
    amount: int  # minor units
    currency: str


@dataclass(frozen=True, slots=True)
class Operated:
    """The durable result of the key. `act` is None for a repeat, which gets the plain result."""

    entry: OperationEntry
    act: Act | None = None


@dataclass(frozen=True, slots=True)
class NoCharge:
    """There is no such charge. Nothing was done or recorded."""


OperationDecision = Operated | NotRecorded | Conflict | NoCharge


@dataclass(frozen=True, slots=True)
class ChargeState:
    """The state of a charge: `captured`, `authorized`, `voided` or `declined`, and its money in minor units."""

    status: str
    captured: int
    refunded: int


class OperationProcessor:
    """Decides on operations according to the behaviour of `charges`."""

    def __init__(
        self,
        *,
        charges: ChargeProcessor,
        journal: OperationJournal,
        dice: random.Random,
        notices: NoticeSender | None = None,
    ) -> None:
        self.journal = journal
        self._notices = notices
        self._charges = charges
        self._dice = dice

    async def decide(self, request: OperationRequest) -> OperationDecision:
        """Decide on a request. Raises JournalError when the result cannot be recorded; then no result may be sent."""
        if (decided := await self._decided(request)) is not None:
            return decided
        act, code = self._charges.draw(request.amount)
        if act is Act.DECLINE and request.kind == "void":
            act = Act.SUCCESS  # a provider always lets money go
        if act is not Act.DECLINE and act not in CAPTURES:
            return NotRecorded(act)
        return Operated(await self._keep(request, code=code if act is Act.DECLINE else None), act)

    async def execute_late(self, request: OperationRequest) -> Operated | Conflict | NoCharge:
        """Execute a request that was held back on its way. Raises as `decide` does."""
        decided = await self._decided(request)
        return Operated(await self._keep(request)) if decided is None else decided

    async def look_up(self, key: str) -> OperationEntry | None:
        """Return the operation under `key`, or None while the consistency lag lasts."""
        self._charges.lookups += 1
        entry = self.journal.find(key)
        if entry is None:
            return None
        age = datetime.now(UTC) - datetime.fromisoformat(entry.at)
        if age < timedelta(milliseconds=self._charges.behaviour.lookup_lag_ms):
            return None
        await self.journal.durable()
        return entry

    def state_of(self, charge: Charge, now: datetime) -> ChargeState:
        """Return what has become of a charge until `now`."""
        captured = charge.amount if charge.status == "captured" else 0
        refunded, is_voided = (
            0,
            charge.capture_before is not None and now >= datetime.fromisoformat(charge.capture_before),
        )
        for entry in self.journal.of_charge(charge.key):
            status = entry.status_at(now)
            if entry.kind == "refund" and status != "failed":
                refunded += entry.amount
            elif entry.kind == "capture" and status == "succeeded":
                captured = entry.amount
            elif entry.kind == "void" and status == "succeeded":
                is_voided = True
        if charge.status == "declined":
            return ChargeState("declined", 0, 0)
        return ChargeState("captured" if captured else "voided" if is_voided else "authorized", captured, refunded)

    async def _decided(self, request: OperationRequest) -> Operated | Conflict | NoCharge | None:
        """Return the answer to a request that executes nothing, or None."""
        if (known := self.journal.find(request.key)) is not None:
            meant = (known.kind, known.charge, known.payment_id, known.amount, known.currency)
            if meant != (request.kind, request.charge, request.payment_id, request.amount, request.currency):
                self._charges.conflicts += 1
                return Conflict()
            self._charges.repeats += 1
            await self.journal.durable()
            return Operated(known)
        charge = self._charges.journal.find(request.charge)
        if charge is None:
            return NoCharge()
        return None if (charge.payment_id, charge.currency) == (request.payment_id, request.currency) else Conflict()

    async def _keep(self, request: OperationRequest, *, code: str | None = None) -> OperationEntry:
        charge = self._charges.journal.find(request.charge)
        assert charge is not None
        now = datetime.now(UTC)
        code = code or _refusal(request, charge, self.state_of(charge, now))
        status, later = ("failed", None) if code is not None else self._course(request)
        changes_at = now + timedelta(seconds=self._charges.behaviour.refund_delay_s)
        entry = OperationEntry(
            key=request.key,
            kind=request.kind,
            charge=request.charge,
            payment_id=request.payment_id,
            operation_id=request.operation_id,
            amount=request.amount,
            currency=request.currency,
            status=status,
            provider_ref=f"{request.kind[:2]}_{secrets.token_hex(12)}",
            at=now.isoformat(),
            code=code or ("refund_failed" if later == "failed" else None),
            changes_at=None if later is None else changes_at.isoformat(),
            later=later,
        )
        await self.journal.append(entry)
        if self._notices is not None:
            self._notices.plan(entry, charge_ref=charge.provider_ref)
        return entry

    def _course(self, request: OperationRequest) -> tuple[str, str | None]:
        """Draw the status of an operation that is executed, and the one that it has later, if it changes."""
        if request.kind != "refund":
            return "succeeded", None
        behaviour = self._charges.behaviour
        if behaviour.magic_amounts and (magic := MAGIC_REFUNDS.get(request.amount % 10_000)) is not None:
            return magic
        fails = self._dice.random() < behaviour.failing_refunds
        if self._dice.random() < behaviour.pending_refunds:
            return "pending", "failed" if fails else "succeeded"
        return "succeeded", "failed" if fails else None


def _refusal(request: OperationRequest, charge: Charge, state: ChargeState) -> str | None:
    """Return the code of a request that the state of its charge does not allow."""
    if request.kind == "refund":
        if state.captured == 0:
            return "not_captured"
        return "refund_exceeds_captured" if state.refunded + request.amount > state.captured else None
    if state.captured:
        return "already_captured"
    if request.kind == "void":
        return None if state.status in ("authorized", "voided") else "not_authorized"
    if state.status != "authorized":
        return "authorization_ended" if state.status == "voided" else "not_authorized"
    return "capture_exceeds_authorized" if request.amount > charge.amount else None
