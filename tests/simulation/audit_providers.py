"""The audit of what goes to providers: the switch, the pin, the life of a key, and outcomes that a provider has told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from okane.payment import Payment, Status
from okane.providers.base import Approved, Declined, LookUpResult, NotFound, Pending, Unavailable
from okane.store import Event
from tests.simulation.provider import Charge
from tests.simulation.store import OPEN, MemoryDatabase, PaymentRow
from torture.invariants.pins import stray


@dataclass(slots=True)
class Switch:
    """A time in which no claim may lead to a charge at a provider; while it is `drained` look-ups go on."""

    provider: str
    since: datetime
    drained: bool
    until: datetime | None = None

    def forbids(self, provider: str | None, at: datetime) -> bool:
        """Return True if a claim of this moment must not lead to a charge there."""
        return provider == self.provider and self.since < at and (self.until is None or at < self.until)


class ProviderAudit:
    """The rules about the calls of providers. `key_lifetime_s` is that of each provider's keys, if they end."""

    def __init__(self, database: MemoryDatabase, *, key_lifetime_s: dict[str, float]) -> None:
        self.switches: list[Switch] = []
        self._database = database
        self._key_lifetime_s = key_lifetime_s
        self._closed: set[tuple[UUID, int]] = set()
        self._answers: dict[tuple[UUID, int], list[LookUpResult]] = defaultdict(list)

    def switched_on(self, provider: str) -> None:
        """Note that a provider may be charged again."""
        for switch in self.switches:
            if switch.provider == provider and switch.until is None:
                switch.until = self._database.now()

    def answered(self, payment: Payment, result: LookUpResult) -> None:
        """Note an answer, as the adapter has read it."""
        self._answers[payment.id, payment.attempts].append(result)

    def released(self, payment: Payment, result: LookUpResult) -> None:
        """Note the answer to the close of a declined charge, as the adapter has read it."""
        self._answers[payment.id, payment.attempts].append(result)
        if isinstance(result, Declined):
            self._closed.add((payment.id, payment.attempts))

    def wrong_charge(self, payment: Payment, row: PaymentRow, provider: str) -> str | None:
        """Return the fault of a charge that is about to be sent under the claim that holds the row."""
        events = self._database.events[row.id]
        claim = next(one for one in reversed(events) if one.event == "claimed")
        claimed_for = self._database.claimed_for[row.id, claim.attempt]
        if not provider == row.provider == claimed_for:
            return f"is charged at {provider}, and its claim names {claimed_for}"
        if any(switch.forbids(provider, claim.at) for switch in self.switches):
            return f"is charged at {provider}, which was switched off before its claim"
        lifetime_s = self._key_lifetime_s.get(provider)
        not_found = any(isinstance(one, NotFound) for one in self._answers[row.id, payment.attempts])
        age_s = (claim.at - _first_claim(events, payment)).total_seconds()
        if lifetime_s is not None and age_s >= lifetime_s and not not_found:
            return f"is charged again under a key of {age_s:.1f} s, which may have expired"
        return None

    def faults(self, row: PaymentRow, events: Sequence[Event], charges: Sequence[Charge]) -> Iterator[str]:
        """Yield what is wrong with one payment at the end."""
        charged_at = sorted({one.provider for one in charges})
        if len(charged_at) > 1:
            yield f"I20: {row.id} was charged by {' and '.join(charged_at)}"
        named = [self._named(line) for line in events]
        if (line := stray(named)) is not None:
            yield f"I23: {row.id}: {line.event} of attempt {line.attempt} names {line.provider}"
        status, retries = Status.PENDING, 0
        for line in named:
            if line.event == "claimed":
                for switch in self.switches:
                    if switch.forbids(line.provider, line.at) and not (switch.drained and status in OPEN):
                        yield f"I24: {row.id} was claimed for {line.provider}, which was switched off"
                retries += status is Status.PROCESSING
            retries = 0 if line.event == "retried" else retries + (line.event == "unavailable")
            if (wrong := self._wrong_outcome(line)) is not None:
                yield f"{row.id}: {wrong}"
            status = line.status
        if row.retries != retries:
            yield f"I25: {row.id} counts {row.retries} retries, its events {retries}"

    def _named(self, line: Event) -> Event:
        """Return an event with the provider that its claim chose."""
        if line.event != "claimed":
            return line
        return replace(line, provider=self._database.claimed_for[line.payment_id, line.attempt])

    def _wrong_outcome(self, line: Event) -> str | None:
        """Return the fault of an outcome that no answer of the provider supports."""
        answers = self._answers[line.payment_id, line.attempt]
        match line.event:
            case "success" if not any(isinstance(one, Approved) for one in answers):
                return f"success under attempt {line.attempt}, and no answer said so: {answers}"
            case "declined" if not any(isinstance(one, Declined) for one in answers):
                return f"declined under attempt {line.attempt}, and no answer said so: {answers}"
            case "pending" if line.reason is None and not any(isinstance(one, Pending) for one in answers):
                return f"pending under attempt {line.attempt}, and no answer said so: {answers}"
            case "fell_back" if (line.payment_id, line.attempt) not in self._closed:
                return f"fell back under attempt {line.attempt}, and its charge was not closed: {answers}"
            case "unavailable" | "spent" if answers and _is_not_its_fault(answers[-1]):
                return f"I25: attempt {line.attempt} burns a retry by {answers[-1]}"
        return None


def _is_not_its_fault(answer: LookUpResult) -> bool:
    return isinstance(answer, Unavailable) and answer.fault != "provider"


def _first_claim(events: Sequence[Event], payment: Payment) -> datetime:
    """Return when the payment was first claimed under its present key."""
    made_at = int(payment.provider_key.partition(":")[2] or 0)
    return min(one.at for one in events if one.event == "claimed" and one.version > made_at)
