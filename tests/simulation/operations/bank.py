"""The bank of the simulation that also holds money, captures, voids and refunds, and the adapter through which it is called.

It is idempotent by key, and trusts its callers otherwise: whatever comes under a new key is executed, however often a
payment was captured or refunded before. What okane asks for too much shows in its books.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random
from typing import Final
from uuid import UUID

from okane.operation import Operation, OperationKind
from okane.payment import Payment
from okane.providers.base import (
    Approved,
    Authorized,
    Capability,
    ChargeResult,
    Declined,
    LookUpResult,
    NotFound,
    OperationLookUp,
    OperationResult,
    Pending,
    Unavailable,
    Unknown,
)
from tests.simulation.loop import current_process
from tests.simulation.network import PENDING, Exchange, Network, NoAnswer, NotSent
from tests.simulation.provider import Bank, Charge, SimulatedProvider

CAPABILITIES: Final[frozenset[Capability]] = frozenset(
    ("manual_capture", "partial_capture", "void", "refund", "partial_refund")
)
DECLINED, SLOW, SLOW_SUCCEEDS, COMES_BACK = 0.1, 0.15, 0.6, 0.1
STALLS = 0.15  # of the calls, in a world in which workers stall
TOLD_AGAIN_S = 0.5  # a notice that could not be taken


@dataclass(slots=True, eq=False)
class BookedMove:
    """One operation in the bank's books."""

    key: str
    made_by: UUID
    payment_id: UUID
    kind: OperationKind
    amount_minor: int
    currency: str
    status: str  # "succeeded", "pending" or "failed"
    ref: str
    at_s: float
    shows_at_s: float


class OperatingBank(Bank):
    """The bank. An authorization ends after `hold_s`."""

    def __init__(self, network: Network, dice: Random, *, lag_s: float, patience_s: float, hold_s: float) -> None:
        super().__init__(network, dice, lag_s=lag_s, patience_s=patience_s)
        self.moves: dict[str, BookedMove] = {}
        self.on_operate: Callable[[Operation], None] = lambda _operation: None
        self.on_operation_look_up: Callable[[Operation], None] = lambda _operation: None
        self.on_operation_answer: Callable[[Operation, OperationLookUp], None] = lambda _operation, _result: None
        self.stall_s = 0.0  # a worker is suspended for about as long, right after it has sent an operation
        self.notify: Callable[[BookedMove], bool] = lambda _move: True
        self._hold_s = hold_s
        self._ends: dict[str, datetime] = {}  # of each authorization, by the key of its charge

    def charge(self, payment: Payment) -> ChargeResult:
        if payment.manual_capture:
            ends = datetime.fromtimestamp(self._network.loop.wall_s() + self._hold_s, UTC)
            self._ends.setdefault(payment.provider_key, ends)
        return self._held(payment, super().charge(payment))

    def look_up(self, payment: Payment) -> LookUpResult:
        result = super().look_up(payment)
        return result if isinstance(result, NotFound) else self._held(payment, result)

    def charges(self) -> Iterable[Charge]:
        """Return the journal: with `captured` the money has moved."""
        taken = {str(one.payment_id) for one in self.moves.values() if self._moved(one, OperationKind.CAPTURE)}
        for charge in super().charges():
            moved = charge.captured and (charge.key not in self._ends or charge.payment_id in taken)
            yield replace(charge, captured=moved)

    def stall(self) -> None:
        """Suspend the process that has just sent an operation, for a while."""
        if self.stall_s and self._dice.random() < STALLS:
            process, loop = current_process(), self._network.loop
            self._network.faults["stalled after an operation was sent"] += 1
            self.mood.slow = max(self.mood.slow, 0.5)  # so that the other one is still at it then
            self._network.later(0.0, loop.stop_process, process)
            self._network.later(self.stall_s * (1 + 0.5 * self._dice.random()), loop.continue_process, process)

    def authorized(self) -> set[str]:
        """Return the payments whose money is held, or was until it was captured or let go."""
        return {
            self.journal[key].payment_id for key in self._ends if key in self.journal and self.journal[key].captured
        }

    def operate(self, operation: Operation, payment: Payment) -> OperationResult:
        """Execute an operation, once for each key."""
        move = self.moves.get(operation.provider_key)
        if move is None:
            now_s = self._network.loop.time()
            move = BookedMove(
                key=operation.provider_key,
                made_by=operation.id,
                payment_id=payment.id,
                kind=operation.kind,
                amount_minor=operation.amount_minor,
                currency=operation.currency,
                status=self._decide(operation, payment),
                ref=f"{operation.kind}_{len(self.moves)}",
                at_s=self._network.loop.wall_s(),
                shows_at_s=now_s + self._dice.random() * 0.4 * self._lag_s,
            )
            self.moves[operation.provider_key] = move
            self._network.faults[f"{operation.kind} {move.status}"] += 1
            if move.status == "pending":
                self._network.later(0.3 + self._dice.random() ** 2 * 8, self._end, move)
            elif move.status == "succeeded" and move.kind is OperationKind.REFUND and self._dice.random() < COMES_BACK:
                self._network.later(self._dice.random() * 6, self._come_back, move)
        elif (move.made_by, move.amount_minor, move.kind) != (operation.id, operation.amount_minor, operation.kind):
            self.on_mismatch(f"key {move.key} stands for {move}, and was sent for {operation}")
        return _told(move)

    def look_up_operation(self, operation: Operation) -> OperationLookUp:
        move = self.moves.get(operation.provider_key)
        return NotFound() if move is None or move.shows_at_s > self._network.loop.time() else _told(move)

    def _decide(self, operation: Operation, payment: Payment) -> str:
        ends = self._ends.get(payment.provider_key)
        over = ends is not None and ends.timestamp() <= self._network.loop.wall_s()
        if operation.kind is OperationKind.VOID:
            return "succeeded"  # what is over has been let go already
        if (operation.kind is OperationKind.CAPTURE and over) or self._dice.random() < DECLINED:
            return "failed"
        return "pending" if operation.kind is OperationKind.REFUND and self._dice.random() < SLOW else "succeeded"

    def _end(self, move: BookedMove) -> None:
        move.status = "succeeded" if self._dice.random() < SLOW_SUCCEEDS else "failed"
        self._network.faults[f"{move.kind} decided later"] += 1

        if self._dice.random() < 0.5:
            self._tell(move)

    def _come_back(self, move: BookedMove) -> None:
        """Let the customer's bank return a refund."""
        move.status = "failed"
        self._network.faults["refund came back"] += 1
        self._tell(move)

    def _tell(self, move: BookedMove) -> None:
        """Send a notice until it is taken."""
        if not self.notify(move):
            self._network.later(TOLD_AGAIN_S, self._tell, move)

    def _held(self, payment: Payment, result: LookUpResult) -> ChargeResult:
        assert not isinstance(result, NotFound)
        if isinstance(result, Approved) and payment.provider_key in self._ends:
            return Authorized(result.provider_ref, self._ends[payment.provider_key])
        return result

    def _moved(self, move: BookedMove, kind: OperationKind) -> bool:
        return move.kind is kind and move.status == "succeeded"


class OperatingProvider(SimulatedProvider):
    """The adapter of one worker."""

    _bank: OperatingBank

    async def operate(self, operation: Operation, payment: Payment) -> OperationResult:
        bank = self._bank
        bank.on_operate(operation)
        travel_s, answer_s, breaks = bank.travel_s(), bank.answer_s(), bank.breaks()
        refused, limited = bank.refuses(), bank.limits()
        if bank.is_held_back(travel_s):
            refused = limited = False

        def arrive(exchange: Exchange) -> object:
            self._network.later(travel_s, decide, exchange)
            return PENDING

        def decide(exchange: Exchange) -> None:
            result: OperationResult
            if refused or limited:
                result = Unavailable("429", fault="limit") if limited else bank.refusal()
            else:
                result = bank.operate(operation, payment)
            self._network.later(answer_s, exchange.answer, result)

        bank.stall()
        result = await self._ask("charge", arrive, travel_s + answer_s)
        bank.on_operation_answer(operation, result)
        if breaks:
            raise RuntimeError("the adapter does not understand this answer")
        assert not isinstance(result, NotFound)
        return result

    async def look_up_operation(self, operation: Operation, payment: Payment, *, may_execute: bool) -> OperationLookUp:
        bank = self._bank
        bank.on_operation_look_up(operation)
        answer_s, refused = bank.answer_s(), bank.refuses()

        def arrive(exchange: Exchange) -> object:
            result = bank.refusal() if refused else bank.look_up_operation(operation)
            self._network.later(answer_s, exchange.answer, result)
            return PENDING

        result = await self._ask("look_up", arrive, answer_s)
        bank.on_operation_answer(operation, result)
        return result

    async def _ask(self, what: str, arrive: Callable[[Exchange], object], takes_s: float) -> OperationLookUp:
        try:
            result: OperationLookUp = await self._network.call(
                self._link, what, arrive, timeout_s=self._patience_s, block_s=takes_s
            )
        except NotSent as error:
            return Unavailable(str(error))
        except NoAnswer as error:
            return Unknown(str(error))
        return result


def _told(move: BookedMove) -> OperationResult:
    match move.status:
        case "succeeded":
            return Approved(move.ref)
        case "pending":
            return Pending(move.ref)
        case _:
            return Declined("not_possible")
