"""The simulated payment provider: its journal of charges, and the adapter through which the workers call it.

It is idempotent by key: the first request under a key decides for good. A request is on its way for less than the consistency
lag, also when its sender has died or given up, and shows in look-ups within the lag. In a mood to hold requests back, some
arrive up to `HELD_S` after their senders have given up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from random import Random

from okane.payment import Payment
from okane.providers.base import (
    Approved,
    ChargeResult,
    Declined,
    LookUpResult,
    NotFound,
    Traits,
    Unavailable,
    Unknown,
)
from tests.no_operations import NoOperations
from tests.simulation.network import PENDING, Exchange, Link, Network, NoAnswer, NotSent
from tests.simulation.scenario import HELD_S


@dataclass(frozen=True, slots=True)
class Charge:
    """One line of the journal."""

    key: str
    payment_id: str
    amount_minor: int
    currency: str
    captured: bool
    ref: str
    shows_at_s: float
    provider: str = "simulated"


@dataclass(slots=True)
class Mood:
    """The provider's behaviour now; the chances are per call."""

    refuse: float = 0.03
    slow: float = 0.1  # takes longer than callers wait
    decline: float = 0.15
    break_adapter: float = 0.005
    hold: float = 0.0  # the request is held back on its way, beyond the lag
    limit: float = 0.02  # it counts requests, and this one is too many
    fail: float = 0.05  # a server error, whether or not it has charged (a gateway only)

    def calm(self) -> None:
        """End what a fault has made of it."""
        self.refuse = self.slow = self.break_adapter = self.hold = self.limit = self.fail = 0.0


class ProviderSide:
    """The provider's side, as far as all providers have it. Their callbacks take the payment and the provider's name."""

    name = ""

    def __init__(self, network: Network, dice: Random, *, lag_s: float, patience_s: float) -> None:
        self.mood = Mood()
        self.on_charge: Callable[[Payment, str], None] = lambda _payment, _name: None
        self.on_look_up: Callable[[Payment, str], None] = lambda _payment, _name: None
        self.on_answer: Callable[[Payment, LookUpResult], None] = lambda _payment, _result: None
        self.on_release: Callable[[Payment, LookUpResult], None] = lambda _payment, _result: None
        self.on_mismatch: Callable[[str], None] = lambda _what: None
        self._network = network
        self._dice = dice
        self._lag_s = lag_s
        self._patience_s = patience_s

    def travel_s(self) -> float:
        """Return how long a request is under way before it counts: well below the lag unless it is held back."""
        if self.mood.hold and self._dice.random() < self.mood.hold:
            self._network.faults["held back"] += 1
            return self._patience_s + self._lag_s + self._dice.random() * HELD_S
        return self._dice.random() ** 4 * 0.5 * self._lag_s

    def is_held_back(self, travel_s: float) -> bool:
        """Return True if a request that is under way for so long was held back."""
        return travel_s > self._lag_s

    def answer_s(self) -> float:
        """Return how long the answer takes."""
        if self._dice.random() < self.mood.slow:
            self._network.faults["slow provider"] += 1
            return self._patience_s * (0.5 + self._dice.random())
        return 0.002 + self._dice.random() ** 3 * 0.5

    def refuses(self) -> bool:
        refused = self._dice.random() < self.mood.refuse
        self._network.faults["provider refused"] += refused
        return refused

    def limits(self) -> bool:
        limited = self._dice.random() < self.mood.limit
        self._network.faults["provider limited"] += limited
        return limited

    def charges(self) -> Iterable[Charge]:
        """Return the journal."""
        raise NotImplementedError


class Bank(ProviderSide):
    """A provider that is idempotent for ever, and decides at once."""

    name = "simulated"

    def __init__(self, network: Network, dice: Random, *, lag_s: float, patience_s: float) -> None:
        super().__init__(network, dice, lag_s=lag_s, patience_s=patience_s)
        self.journal: dict[str, Charge] = {}

    def charges(self) -> Iterable[Charge]:
        return self.journal.values()

    def breaks(self) -> bool:
        return self._dice.random() < self.mood.break_adapter

    def refusal(self) -> Unavailable:
        wish = timedelta(seconds=round(self._dice.random(), 3)) if self._dice.random() < 0.3 else None
        return Unavailable("503", retry_after=wish)

    def charge(self, payment: Payment) -> ChargeResult:
        """Charges once per key."""
        charge = self.journal.get(payment.provider_key)
        if charge is None:
            captured = self._dice.random() >= self.mood.decline
            charge = Charge(
                key=payment.provider_key,
                payment_id=str(payment.id),
                amount_minor=payment.amount_minor,
                currency=payment.currency,
                captured=captured,
                ref=f"ch_{len(self.journal)}",
                shows_at_s=self._network.loop.time() + self._dice.random() * 0.4 * self._lag_s,
            )
            self.journal[payment.provider_key] = charge
        elif (charge.payment_id, charge.amount_minor, charge.currency) != (
            str(payment.id),
            payment.amount_minor,
            payment.currency,
        ):
            self.on_mismatch(
                f"key {charge.key} stands for a charge of {charge.amount_minor}, and was sent for {payment.amount_minor}"
            )
        return _answer(charge)

    def look_up(self, payment: Payment) -> LookUpResult:
        charge = self.journal.get(payment.provider_key)
        if charge is None or charge.shows_at_s > self._network.loop.time():
            return NotFound()
        return _answer(charge)


class SimulatedProvider(NoOperations):
    """The adapter of one worker. It waits for the time-out of `traits` at most."""

    name = Bank.name

    def __init__(self, bank: Bank, network: Network, link: Link, *, traits: Traits, dies_of: str | None = None) -> None:
        self._bank = bank
        self._network = network
        self._link = link
        self.traits = traits
        self._patience_s = traits.timeout.total_seconds()
        self._dies_of = dies_of

    async def charge(self, payment: Payment) -> ChargeResult:
        bank = self._bank
        if payment.idempotency_key == self._dies_of:
            await self._network.die("poison")
        bank.on_charge(payment, self.name)
        travel_s, answer_s, breaks = bank.travel_s(), bank.answer_s(), bank.breaks()
        refused, limited = bank.refuses(), bank.limits()
        if bank.is_held_back(travel_s):  # what was held back is taken when it arrives
            refused = limited = False

        def arrive(exchange: Exchange) -> object:
            self._network.later(travel_s, decide, exchange)
            return PENDING

        def decide(exchange: Exchange) -> None:
            result: ChargeResult
            if refused or limited:
                result = Unavailable("429", fault="limit") if limited else bank.refusal()
            else:
                result = bank.charge(payment)
            self._network.later(answer_s, exchange.answer, result)

        result = await self._call("charge", arrive, travel_s + answer_s)
        bank.on_answer(payment, result)
        if breaks:
            raise RuntimeError("the adapter does not understand this answer")
        assert not isinstance(result, NotFound)
        return result

    async def look_up(self, payment: Payment, *, may_execute: bool) -> LookUpResult:
        bank = self._bank
        if payment.idempotency_key == self._dies_of:
            await self._network.die("poison")
        bank.on_look_up(payment, self.name)
        answer_s, refused = bank.answer_s(), bank.refuses()

        def arrive(exchange: Exchange) -> object:
            result = bank.refusal() if refused else bank.look_up(payment)
            self._network.later(answer_s, exchange.answer, result)
            return PENDING

        result = await self._call("look_up", arrive, answer_s)
        bank.on_answer(payment, result)
        return result

    async def aclose(self) -> None:
        """Nothing to close."""

    async def _call(self, what: str, arrive: Callable[[Exchange], object], takes_s: float) -> LookUpResult:
        try:
            result: LookUpResult = await self._network.call(
                self._link, what, arrive, timeout_s=self._patience_s, block_s=takes_s
            )
        except NotSent as error:
            return Unavailable(str(error))
        except NoAnswer as error:
            return Unknown(str(error))
        return result


def _answer(charge: Charge) -> Approved | Declined:
    return Approved(charge.ref) if charge.captured else Declined("card_declined")
