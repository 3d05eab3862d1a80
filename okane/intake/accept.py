"""Accepting payments: write the row, then send its wake-up. A scheduled payment gets its wake-up from the sweep when it is
due.

Once the row is committed the payment is safe, and the client gets its 202. If the wake-up cannot be sent (Redis down, full,
slow), the answer differs in `enqueued: false` alone, and the sweep wakes the payment. While Redis is known to be away
requests do not wait for it: one wake-up at a time tries it, and the rows of the others are written as due for the sweep.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from uuid import UUID

import structlog

from okane.errors import Overloaded
from okane.intake.load_shedding import LoadShedding
from okane.intake.wake_sending import WakeSender
from okane.payment import Payment
from okane.store import AcceptedRow, Decision, NewPayment, PaymentStore, WakeUp
from okane.tracing import RowWriter
from streams import Draft, Publisher, StreamUnavailable
from streams.failpoints import failpoint
from streams.values import value

log = structlog.get_logger("okane.accept")
# Its level is checked first: a line that is not written costs more than the rest of this module.
_level = logging.getLogger("okane.accept")

BEFORE_WAKE = failpoint("accept.before_wake", "the row is committed, no wake-up sent", raises=StreamUnavailable)


@value
class IntakeReceipt:
    """The result of a request: its payment, and whether the request created it and put a wake-up on the stream."""

    payment: Payment
    created: bool
    enqueued: bool


@value
class WrittenRows:
    """The rows of a write. In the place of a row: IdempotencyKeyReused, TimeOutOfRange, Overloaded or StoreUnavailable.

    Only the first `wakes` of them are woken: the others were written as due for the sweep.
    """

    rows: Sequence[AcceptedRow | BaseException]
    wakes: int


class PaymentIntake:
    """The commands that clients and operators give for payments: accept, retry, cancel, resolve."""

    def __init__(
        self,
        *,
        store: PaymentStore,
        producer: Publisher,
        row_writer: RowWriter | None = None,
        load_shedding: LoadShedding | None = None,
    ) -> None:
        self._store = store
        self._row_writer = store if row_writer is None else row_writer
        self._load_shedding = load_shedding
        self._wake_ups = WakeSender(producer, before_send=BEFORE_WAKE)

    async def write(self, news: Sequence[NewPayment]) -> WrittenRows:
        """Commit the rows of these payments. A repeat of an earlier request finds its payment and changes nothing.

        While load is shed nothing is written: each has Overloaded in the place of its row.
        """
        if self._load_shedding is not None and self._load_shedding.is_shedding:
            return WrittenRows([Overloaded("payments wait for too long already") for _ in news], 0)
        wakes = self._wake_ups.count_sendable(len(news))
        return WrittenRows(await self._row_writer.accept_many(news, wakes=wakes), wakes)

    async def wake(self, written: WrittenRows) -> Sequence[IntakeReceipt | BaseException]:
        """Send the wake-ups of the rows that were created; return a receipt for each row, or the exception in its place."""
        to_wake = {
            number: one.payment
            for number, one in enumerate(written.rows[: written.wakes])
            if isinstance(one, AcceptedRow) and one.created and one.payment.execute_at is None
        }
        enqueued = dict(zip(to_wake, await self._wake([*to_wake.values()]), strict=True)) if to_wake else {}
        receipts = [
            IntakeReceipt(one.payment, one.created, enqueued.get(number, False))
            if isinstance(one, AcceptedRow)
            else one
            for number, one in enumerate(written.rows)
        ]
        if _level.isEnabledFor(logging.DEBUG):
            _log_accepted(receipts)
        return receipts

    async def find(self, new: NewPayment) -> IntakeReceipt | None:
        """Return the receipt of an earlier request with this key. Raises IdempotencyKeyReused, StoreUnavailable."""
        payment = await self._store.find(new)
        return None if payment is None else IntakeReceipt(payment, created=False, enqueued=False)

    async def wake_due(self, due: Sequence[WakeUp]) -> None:
        """Send wake-ups of payments that are due, unless Redis is known to be away: the sweep sends what is missing."""
        if due and self._wake_ups.count_sendable(len(due)):
            await self._wake_ups.send([Draft(one.payment_id.bytes, lane=one.lane) for one in due])

    async def retry(
        self, payment_id: UUID, *, account_id: str, actor: str, version: int | None = None
    ) -> IntakeReceipt:
        """Make a failed payment pending again, if it still is in `version`. Raises PaymentNotFound, StatusConflict,
        VersionConflict, StoreUnavailable."""
        payment = await self._store.retry(payment_id, account_id=account_id, actor=actor, version=version)
        log.info("payment_retried", payment_id=str(payment_id), actor=actor)
        [enqueued] = await self._wake([payment])
        return IntakeReceipt(payment, created=False, enqueued=enqueued)

    async def get(self, payment_id: UUID, *, account_id: str) -> Payment:
        """Return the payment as it is now. Raises PaymentNotFound, StoreUnavailable."""
        return await self._store.get(payment_id, account_id=account_id)

    async def cancel(self, payment_id: UUID, *, account_id: str, actor: str, version: int | None = None) -> Payment:
        """Withdraw a payment before it is charged, if it still is in `version`. Raises PaymentNotFound, StatusConflict,
        VersionConflict, StoreUnavailable.

        Its wake-up stays in the stream: the claim refuses it.
        """
        payment = await self._store.cancel(payment_id, account_id=account_id, actor=actor, version=version)
        log.info("payment_canceled", payment_id=str(payment_id), actor=actor)
        return payment

    async def resolve(
        self,
        payment_id: UUID,
        *,
        account_id: str | None,
        decision: Decision,
        reason: str,
        provider_ref: str | None,
        actor: str,
        version: int | None = None,
    ) -> Payment:
        """Write the decision about a payment that needs a review, if it still is in `version`. Raises PaymentNotFound,
        StatusConflict, VersionConflict, StoreUnavailable."""
        payment = await self._store.resolve(
            payment_id,
            account_id=account_id,
            decision=decision,
            reason=reason,
            provider_ref=provider_ref,
            actor=actor,
            version=version,
        )
        log.info("payment_resolved", payment_id=str(payment_id), status=payment.status.value, actor=actor)
        return payment

    async def _wake(self, payments: Sequence[Payment]) -> Sequence[bool]:
        return await self._wake_ups.send([Draft(one.id.bytes, lane=one.lane) for one in payments])


def _log_accepted(receipts: Sequence[IntakeReceipt | BaseException]) -> None:
    for receipt in receipts:
        if isinstance(receipt, IntakeReceipt):
            payment_id = str(receipt.payment.id)
            log.debug("payment_accepted", payment_id=payment_id, created=receipt.created, enqueued=receipt.enqueued)
