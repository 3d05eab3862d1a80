"""Accept: the row first, its wake-up second.

Once the row is committed the payment is safe and the client is told so. If the wake-up cannot be sent (Redis down, full,
slow), the answer is the same but for `enqueued: false`, and the sweep sees to the payment. While Redis is known to be away
nobody waits for it: one request at a time asks, the rows of the others say at once that they have no wake-up.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from uuid import UUID

import structlog

from okane.deadline import Deadline
from okane.payment import Payment
from okane.store import NewPayment, PaymentStore
from streams import Publisher, StreamError, StreamFull, StreamUnavailable
from streams.failpoints import failpoint

log = structlog.get_logger("okane.accept")
_level = logging.getLogger("okane.accept")  # asked first: a line for nobody costs more than all the rest of this module

WAKE_TIMEOUT_S = 1.0  # how long a client waits for Redis at most: its payment is safe already
AWAY_S = 1.0  # how long Redis is not asked again after it did not answer

BEFORE_WAKE = failpoint("accept.before_wake", "the row is committed, no wake-up sent", raises=StreamUnavailable)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a request: the payment, whether this request made it, and whether it put a wake-up on the stream."""

    payment: Payment
    created: bool
    enqueued: bool


class Accept:
    """Takes payments in, and takes failed ones in again."""

    def __init__(self, *, store: PaymentStore, producer: Publisher) -> None:
        self._store = store
        self._producer = producer
        self._redis_away_until_s = 0.0

    async def accept(self, new: NewPayment) -> Receipt:
        """Write the payment and wake a worker. A repeat of an earlier request finds its payment and changes nothing.

        Raises IdempotencyKeyReused, StoreUnavailable.
        """
        wake = time.monotonic() >= self._redis_away_until_s
        accepted = await self._store.accept(new, wake=wake)
        enqueued = wake and accepted.created and await self._wake(accepted.payment)
        receipt = Receipt(accepted.payment, accepted.created, enqueued)
        if _level.isEnabledFor(logging.DEBUG):
            _say(receipt)
        return receipt

    async def retry(self, payment_id: UUID, *, account_id: str) -> Receipt:
        """Try a failed payment again on a human's word. Raises PaymentNotFound, StatusConflict, StoreUnavailable."""
        payment = await self._store.retry(payment_id, account_id=account_id)
        log.info("payment_retried", payment_id=str(payment_id))
        return Receipt(payment, created=False, enqueued=await self._wake(payment))

    async def _wake(self, payment: Payment) -> bool:
        if self._redis_away_until_s:  # ours is the one that asks
            self._away_for(WAKE_TIMEOUT_S + AWAY_S)
        try:
            if BEFORE_WAKE.armed:
                await BEFORE_WAKE.hit()
            with Deadline(WAKE_TIMEOUT_S):
                await self._producer.publish(payment.id.bytes, lane=payment.lane)
        except (StreamError, TimeoutError) as error:
            reason = str(error) or f"no answer in {WAKE_TIMEOUT_S:g} s"
            log.debug("wake_up_not_sent", payment_id=str(payment.id), reason=reason)
            if not isinstance(error, StreamFull):
                if not self._redis_away_until_s:
                    log.warning("redis_lost", reason=reason)
                self._away_for(AWAY_S)
            return False
        if self._redis_away_until_s:
            log.warning("redis_back")
        self._redis_away_until_s = 0.0
        return True

    def _away_for(self, duration_s: float) -> None:
        self._redis_away_until_s = time.monotonic() + duration_s


def _say(receipt: Receipt) -> None:
    payment_id = str(receipt.payment.id)
    log.debug("payment_accepted", payment_id=payment_id, created=receipt.created, enqueued=receipt.enqueued)
