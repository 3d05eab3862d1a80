"""The clients that also hold money, capture, void and refund it: at once, twice, in races, and for more than there is."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from random import Random
from typing import Any
from uuid import UUID

from okane.errors import IdempotencyKeyReused, OperationRefused, StatusConflict, StoreUnavailable
from okane.intake.operations import OperationReceipt
from okane.operation import NewOperation, OperationKind
from okane.payment import Payment, Status
from okane.store import API, NewPayment
from tests.simulation.clients import TRIES, Clients
from tests.simulation.network import NoAnswer, NotSent
from tests.simulation.operations.audit import OperationAudit
from tests.simulation.operations.operators import Operators
from tests.simulation.processes import ApiProcess
from torture.history.operations import OperationRequest

MANUAL = 0.5  # of the payments
LOOKS, PAUSE_S = 200, 0.5  # at a payment, until it can be captured or refunded
_CAPTURE, _VOID, _REFUND = OperationKind.CAPTURE, OperationKind.VOID, OperationKind.REFUND


class Merchants(Clients):
    """All clients of a world with operations."""

    _audit: OperationAudit

    def __init__(self, *arguments: Any, seed: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.acting: set[asyncio.Task[None]] = set()
        self._own_dice = Random(f"merchants {seed}")
        audit = self._audit
        self._operators = Operators(audit.tables, audit.bank, self._ask_api, audit.repairs, seed=seed)
        self._keys = 0

    def _shaped(self, new: NewPayment) -> NewPayment:
        return replace(new, manual_capture=True) if self._own_dice.random() < MANUAL else new

    def _accepted(self, payment_id: UUID, new: NewPayment) -> None:
        acting = asyncio.ensure_future(self._act(payment_id, new))
        self.acting.add(acting)

    async def _act(self, payment_id: UUID, new: NewPayment) -> None:
        """Do what a merchant does with a payment, once it can be done."""
        if await self._wait(payment_id, Status.AUTHORIZED, Status.SUCCESS) is Status.AUTHORIZED:
            await self._end_authorization(payment_id, new)
        if await self._wait(payment_id, Status.SUCCESS) is Status.SUCCESS:
            await self._refund(payment_id, new)
        await self._operators.attend(payment_id)

    async def _wait(self, payment_id: UUID, *wanted: Status) -> Status | None:
        for _ in range(LOOKS):
            row = self._audit.tables.db.payments[payment_id]
            if row.status in wanted:
                return row.status
            if row.status.is_terminal or row.status is Status.NEEDS_REVIEW or self._audit.found:
                return None
            await asyncio.sleep(PAUSE_S)
        return None

    async def _end_authorization(self, payment_id: UUID, new: NewPayment) -> None:
        """Capture, void, both at once, or neither: then its end comes."""
        roll, amount = self._own_dice.random(), new.amount_minor
        if roll < 0.1:
            return
        async with asyncio.TaskGroup() as asking:
            if roll < 0.75:
                part = None if self._own_dice.random() < 0.5 else self._own_dice.randint(1, amount + amount // 10)
                asking.create_task(self._insist_on(self._new(payment_id, _CAPTURE, part)))
            if roll > 0.6:
                asking.create_task(self._insist_on(self._new(payment_id, _VOID, None)))
            if 0.7 < roll < 0.8:
                asking.create_task(self._cancel_held(payment_id, new.account_id))

    async def _refund(self, payment_id: UUID, new: NewPayment) -> None:
        """Refund parts, some of them at the same time, and in sum often more than there is."""
        count = self._own_dice.choice((0, 1, 2, 2, 3))
        refunds = [self._new(payment_id, _REFUND, self._part(new.amount_minor)) for _ in range(count)]
        if self._own_dice.random() < 0.5:
            async with asyncio.TaskGroup() as asking:
                for refund in refunds:
                    asking.create_task(self._insist_on(refund))
            return
        for refund in refunds:
            await self._insist_on(refund)
            await asyncio.sleep(self._own_dice.random() * 3)

    async def _insist_on(self, new: NewOperation) -> None:
        """Ask for an operation until it is answered; now and then twice, or for another one under the same key."""
        twice, roll = self._own_dice.random() < 0.2, self._own_dice.random()
        answers = await asyncio.gather(*(self._ask_for(new) for _ in range(2 if twice else 1)))
        operation_id = answers[-1]
        if operation_id is None:
            return
        if roll < 0.1:
            await self._reuse(replace(new, fingerprint=b"another meaning", amount_minor=1))
        elif roll < 0.2 and new.kind is _REFUND:
            await self._withdraw(operation_id)

    async def _ask_for(self, new: NewOperation) -> UUID | None:
        for turn in range(TRIES):
            try:
                receipt: OperationReceipt = await self._ask_api(lambda api: _operations(api).request(new, actor=API))
            except (NotSent, NoAnswer, StoreUnavailable):
                await asyncio.sleep(self._own_dice.random() * 0.3 * 2**turn)
                continue
            except OperationRefused as refused:
                self._audit.repairs[f"refused: {refused.code}"] += 1
                return None
            request = OperationRequest(
                key=new.idempotency_key,
                payment_id=str(new.payment_id),
                kind=new.kind,
                amount_minor=new.amount_minor,
                status=202,
                operation_id=str(receipt.operation.id),
            )
            self._audit.requests.append(request)
            operation_id: UUID = receipt.operation.id
            return operation_id
        return None

    async def _reuse(self, new: NewOperation) -> None:
        try:
            await self._ask_api(lambda api: _operations(api).request(new, actor=API))
        except (IdempotencyKeyReused, NotSent, NoAnswer, StoreUnavailable):
            return
        self._audit.report(f"I26: {new.idempotency_key} was accepted with another meaning")

    async def _withdraw(self, operation_id: UUID) -> None:
        try:
            await self._ask_api(lambda api: _operations(api).cancel(operation_id, account_id=None, actor=API))
        except (StatusConflict, NotSent, NoAnswer, StoreUnavailable):
            return
        self._audit.repairs["refunds withdrawn"] += 1

    async def _cancel_held(self, payment_id: UUID, account_id: str) -> None:
        """Cancel a payment whose money is held: that is a void."""
        try:
            answer: Payment | OperationReceipt = await self._ask_api(
                lambda api: _operations(api).cancel_payment(payment_id, account_id=account_id, actor=API)
            )
        except (StatusConflict, OperationRefused, NotSent, NoAnswer, StoreUnavailable):
            return
        self._audit.repairs["canceled while held"] += isinstance(answer, OperationReceipt)

    def _part(self, amount_minor: int) -> int | None:
        return None if self._own_dice.random() < 0.2 else self._own_dice.randint(1, max(1, amount_minor))

    def _new(self, payment_id: UUID, kind: OperationKind, amount_minor: int | None) -> NewOperation:
        self._keys += 1
        key = f"op-{self._keys}"
        meaning = f"{payment_id} {kind} {amount_minor}"
        return NewOperation(
            payment_id=payment_id,
            account_id=None,
            kind=kind,
            idempotency_key=key,
            fingerprint=hashlib.sha256(meaning.encode()).digest(),
            amount_minor=amount_minor,
        )


def _operations(api: ApiProcess) -> Any:
    assert api.operations is not None
    return api.operations
