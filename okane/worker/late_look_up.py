"""Look-ups of closed payments whose call may still have been on its way when they closed.

Such a payment is not claimed and not charged. The row says when it is due, and the sweep sends its wake-up. A death at any
point leaves it due again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import assert_never
from uuid import UUID

import structlog

from okane.metrics import OkaneMetrics
from okane.payment import LEGACY_PROVIDER, Payment, Status
from okane.providers.base import Approved, Authorized, Declined, LookUpResult, NotFound, Pending, Unavailable, Unknown
from okane.store import PaymentStore, Settlement
from okane.worker.outcome_rules import OutcomeRules
from okane.worker.provider_set import Gateway, ProviderSet
from okane.worker.store_retry import StoreRetry
from streams import Dead, Done, Outcome
from streams.failpoints import failpoint

log = structlog.get_logger("okane.late")

BEFORE_RECORD = failpoint("late.before_record", "a closed payment was looked up, nothing is written")


class LateLookUps:
    """The late look-ups of one worker. `lease` must be longer than one `look_up` may last."""

    def __init__(
        self,
        *,
        store: PaymentStore,
        retry_store_call: StoreRetry,
        providers: ProviderSet,
        look_up: Callable[[Payment, Gateway], Awaitable[LookUpResult]],
        rules: OutcomeRules,
        lease: timedelta,
        metrics: OkaneMetrics,
    ) -> None:
        self._store = store
        self._retry_store_call = retry_store_call
        self._providers = providers
        self._look_up = look_up
        self._again = [max(lease, delay) for delay in rules.look_up_delays]
        self._late_charges = metrics.late_charges

    async def run(self, payment_id: UUID) -> Outcome:
        """Look the payment up once. Without an answer its row is due again by itself."""
        taken = await self._retry_store_call(self._store.begin_late_look_up, payment_id, again=self._again)
        if taken is None:
            return Done()
        payment = taken.payment
        gateway = self._providers.of(payment)
        if gateway is None:  # another worker may have it, next time
            log.info(
                "late_look_up_unanswered",
                payment_id=str(payment.id),
                reason=f"no provider {payment.called_provider} here",
            )
            return Done()
        if taken.open_s >= gateway.provider.traits.unknown_deadline.total_seconds():
            silent = f"{payment.status}, and the provider does not say whether a charge arrived later"
            return await self._give_up(payment, silent)
        started_s = time.monotonic()
        result = await self._look_up(payment, gateway)
        if BEFORE_RECORD.armed:
            await BEFORE_RECORD.hit()
        match result:
            case Approved(provider_ref=provider_ref):
                return await self._found(payment, provider_ref, timedelta(seconds=time.monotonic() - started_s))
            case Declined() | NotFound():
                await self._retry_store_call(self._store.plan_late_look_up, payment, begun_at=taken.begun_at)
            case Pending():
                log.info("late_look_up_unanswered", payment_id=str(payment.id), reason="pending at the provider")
            case Authorized(provider_ref=provider_ref):
                return await self._give_up(payment, f"{payment.status}, and {provider_ref} holds the customer's money")
            case Unknown(at_once=True, reason=reason):
                return await self._give_up(payment, f"{payment.status}, and {reason}")
            case Unavailable(reason=reason) | Unknown(reason=reason):
                log.info("late_look_up_unanswered", payment_id=str(payment.id), reason=reason)
            case _:
                assert_never(result)
        return Done()

    async def _found(self, payment: Payment, provider_ref: str, latency: timedelta) -> Outcome:
        """Record a charge of a payment that was closed as failed or canceled."""
        reason = f"charged after it was closed as {payment.status}"
        settlement = Settlement(
            payment_id=payment.id,
            attempt=payment.attempts,
            status=Status.SUCCESS,
            event="success",
            call="look_up",
            provider=payment.provider or LEGACY_PROVIDER,
            latency=latency,
            provider_ref=provider_ref,
            reason=reason,
        )
        status = await self._retry_store_call(self._store.record_late, settlement, once=True)
        log.warning("late_charge", payment_id=str(payment.id), provider_ref=provider_ref, status=status)
        if status is Status.NEEDS_REVIEW:
            self._late_charges.labels(payment.provider or LEGACY_PROVIDER).inc()
            return Dead(reason)
        return Done()  # tried again meanwhile: the next claim finds this charge, or the last one has

    async def _give_up(self, payment: Payment, reason: str) -> Outcome:
        """Leave the payment to a review: the provider did not answer for too long, its answers kill workers, or only a human
        can decide what it has."""
        written = await self._retry_store_call(self._store.fail_late_look_up, payment, reason=reason)
        log.warning("payment_needs_review", payment_id=str(payment.id), reason=reason, buried=written)
        return Dead(reason) if written else Done()
