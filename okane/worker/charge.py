"""The handling of one wake-up: claim, look up or charge, settle.

A worker may die at any line. Before the claim nothing has happened; after it the lease runs out, and the next worker looks
the payment up under the same provider key before it charges.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import cache, partial
from typing import Any, assert_never
from uuid import UUID

import structlog

from okane.errors import StoreUnavailable
from okane.metrics import OkaneMetrics
from okane.payment import LEGACY_PROVIDER, Payment, Status
from okane.payment_id import read_id
from okane.providers.base import Declined, LookUpResult, NotFound
from okane.store import Call, Claim, ClaimRefusal, PaymentStore, Settlement
from okane.tracing import ClaimStore
from okane.worker.held_authorization import EndAuthorization, HeldAuthorizations
from okane.worker.late_look_up import LateLookUps
from okane.worker.lease_renewal import Lease, LeaseRenewal
from okane.worker.outcome_rules import FELL_BACK, SPENT, OutcomeRules, PaymentOutcome
from okane.worker.provider_calls import ProviderCalls
from okane.worker.provider_set import Gateway, ProviderSet
from okane.worker.saved_methods import NO_TOKEN, SavedMethods, TokenSource
from okane.worker.store_retry import StoreRetry
from streams import Dead, Done, Message, Outcome, Retry
from streams.failpoints import failpoint

log = structlog.get_logger("okane.charge")
levels = logging.getLogger("okane.charge")  # checked before the one line that every payment would write

LONG = timedelta(seconds=30)  # more than the clocks of Redis and Postgres drift apart between two polls
SOON = timedelta(seconds=1)  # before the next look at a payment that another worker may hold
LAST_WORDS_S = 2.0  # for the write to Postgres when the worker is stopped during a call

BEFORE_CLAIM = failpoint("charge.before_claim", "read from the stream, not claimed")
BEFORE_CALL = failpoint("charge.before_call", "claimed, the provider not called")
BEFORE_SETTLE = failpoint("charge.before_settle", "the provider has answered, nothing is written")
BEFORE_DELAY = failpoint("retry.before_delay", "the retry is committed, not in the delayed set")
BEFORE_DEAD_LETTER = failpoint("bury.before_dead_letter", "given up in Postgres, no dead letter in the stream")


class PaymentHandler:
    """The handler of the payments stream. `__call__` is the table of contents."""

    def __init__(
        self,
        *,
        store: PaymentStore,
        claim_store: ClaimStore | None = None,
        providers: ProviderSet,
        leases: LeaseRenewal,
        rules: OutcomeRules,
        metrics: OkaneMetrics,
        methods: TokenSource | None = None,
        calls: ProviderCalls | None = None,
        end_authorization: EndAuthorization | None = None,
        roll: Callable[[], float] = random.random,
    ) -> None:
        """Without `methods` every payment method is a provider's own token. `end_authorization` voids the authorization of a
        payment, if it is about to end."""
        self._store = store
        self._claim_store = store if claim_store is None else claim_store
        self._providers = providers
        self._leases = leases
        self._rules = rules
        self._roll = roll
        self._retry_store_call = StoreRetry(roll)
        self._calls = ProviderCalls(metrics) if calls is None else calls
        self._saved_methods = SavedMethods(methods, retry_store_call=self._retry_store_call)
        self._held = (
            None
            if end_authorization is None
            else HeldAuthorizations(
                store=store,
                retry_store_call=self._retry_store_call,
                providers=providers,
                look_up=self._look_up_late,
                end=end_authorization,
            )
        )
        self._late_look_ups = LateLookUps(
            store=store,
            retry_store_call=self._retry_store_call,
            look_up=self._look_up_late,
            providers=providers,
            rules=rules,
            lease=leases.lease,
            metrics=metrics,
        )
        # Looked up once for each set of labels: `labels` costs more than the counting.
        self._claims = cache(metrics.claims.labels)
        self._retries = cache(metrics.retries.labels)
        self._late_results = cache(metrics.late_results.labels)
        self._settled_as = cache(metrics.settled.labels)
        self._count_decline = metrics.count_decline
        self._settle_seconds = cache(metrics.settle_seconds.labels)
        metrics.in_flight.set_function(leases.__len__)

    async def __call__(self, message: Message) -> Outcome:
        """Handle one wake-up. Raises nothing that Postgres or the provider may cause."""
        if len(message.body) != 16:
            return Dead("not a payment id")
        payment_id = read_id(message.body)
        if BEFORE_CLAIM.armed:
            await BEFORE_CLAIM.hit()
        claim = await self._retry_store_call(self._claim_store.claim, payment_id)
        if isinstance(claim, ClaimRefusal):
            return await self._not_claimed(claim, message, payment_id)
        self._claims("granted").inc()
        with self._leases.hold(payment_id, claim.payment.attempts, claim.valid_until_s) as lease:
            settlement = await self._attempt(claim, lease)
            if settlement is None:
                return Retry("the lease ran out before the provider was called", after=SOON)
            if BEFORE_SETTLE.armed:
                await BEFORE_SETTLE.hit()
            # Only this task has the provider's answer: it stays until the answer is written.
            settle = self._store.fall_back if settlement.event == FELL_BACK else self._claim_store.settle
            age = await self._retry_store_call(settle, settlement)
        if age is None:
            return await self._late(settlement)
        return await self._settled(settlement, age)

    async def poison(self, message: Message) -> Outcome:
        """Give up an entry that was delivered too often: its payment needs a review, the entry becomes a dead letter."""
        reason = f"poison: delivered {message.deliveries} times, its workers died or stalled"
        if len(message.body) != 16:
            return Dead(reason)
        payment_id = read_id(message.body)
        buried = await self._retry_store_call(self._store.bury, payment_id, reason=reason)
        log.warning("payment_needs_review", payment_id=str(payment_id), reason=reason, buried=buried)
        return Dead(reason) if buried else Done()

    async def _not_claimed(self, refused: ClaimRefusal, message: Message, payment_id: UUID) -> Outcome:
        if refused.expired:
            return await self._expired(payment_id)
        if refused.status is Status.AUTHORIZED and self._held is not None:
            await self._held.run(payment_id, is_sent=refused.look_up_late)
        elif refused.look_up_late:
            self._claims("closed").inc()
            return await self._late_look_ups.run(payment_id)
        return self._refused(refused, message)

    async def _expired(self, payment_id: UUID) -> Outcome:
        """Cancel a payment that expired before it was charged."""
        self._claims("expired").inc()
        canceled = await self._retry_store_call(self._store.expire, payment_id)
        # It changed after the claim was refused, or the reply to the cancel was lost: look again.
        return Done() if canceled else Retry("expired, and changed meanwhile", after=SOON)

    def _refused(self, refused: ClaimRefusal, message: Message) -> Outcome:
        if refused.no_provider and refused.wait:
            self._claims("no_provider").inc()
            return Retry("no provider can take it now", after=refused.wait)
        self._claims(refused.status or "missing").inc()
        match refused.status:
            case None:
                return Dead("no such payment")
            case Status.FAILED_FINAL if refused.spent is not None and message.deliveries > 1:
                # The worker that gave it up died before it wrote the dead letter.
                return Dead(refused.spent)
            case Status.SUCCESS | Status.AUTHORIZED | Status.FAILED_FINAL | Status.CANCELED | Status.NEEDS_REVIEW:
                return Done()
            case Status.REQUIRES_ACTION | Status.SUBMITTED if refused.wait > LONG:
                # A double after a notice; the wake-up of the next poll is kept already. One more for each notice would pile
                # up over the weeks that it may take. After a crash between settle and ack the sweep sends the poll.
                return Done()
            case (
                Status.PENDING
                | Status.PROCESSING
                | Status.FAILED_RETRYABLE
                | Status.UNKNOWN
                | Status.REQUIRES_ACTION
                | Status.SUBMITTED
            ) as status:
                # Not due yet, or another worker holds it: keep a wake-up in case that worker dies.
                return Retry(f"{status}, not claimable yet", after=refused.wait + timedelta(milliseconds=1))
            case _:
                assert_never(refused.status)

    async def _attempt(self, claim: Claim, lease: Lease) -> Settlement | None:
        """Look up an open outcome, else charge. Return None if the lease ran out before the charge."""
        payment, started_s = claim.payment, time.monotonic()
        gateway = self._providers.of(payment)
        assert gateway is not None, f"the claim chose {payment.provider}, which this worker does not have"
        traits = gateway.provider.traits
        hopeless = self._rules.hopeless(claim) if payment.retries else None
        if hopeless is not None:
            return self._settlement(payment, hopeless, call=None, started_s=started_s)
        order: Payment | None = payment
        if payment.payment_method is not None:
            order = await self._saved_methods.resolve(payment, gateway.provider.name)
        # Under a key that has expired the provider would make a second charge.
        key_lives = traits.key_lifetime is None or claim.key_age_s < traits.key_lifetime.total_seconds()
        if claim.look_up_first or not key_lives:
            may_execute = order is not None and key_lives and claim.may_charge and not claim.expired and lease.is_valid
            answer = gateway.provider.look_up(order or payment, may_execute=may_execute)
            found = await self._call("look_up", gateway, payment, answer, claim=claim)
            decided = self._rules.looked_up(claim, found, traits)
            if key_lives and isinstance(found, Declined) and self._rules.may_fall_back(claim, found):
                decided = await self._released("look_up", claim, gateway, found)
            if decided is not None:
                return self._settlement(payment, decided, call="look_up", started_s=started_s)
        if order is None:  # nothing can have been sent: a method's tokens never change
            decided = self._rules.charged(claim, NO_TOKEN, traits, roll=self._roll())
            return self._settlement(payment, decided, call=None, started_s=started_s)
        wait = await gateway.gate.permit()
        if wait is not None:
            held_back = self._rules.deferred("held back by the circuit breaker or the rate limit", wait)
            return self._settlement(payment, held_back, call=None, started_s=started_s)
        if BEFORE_CALL.armed:
            await BEFORE_CALL.hit()
        if not lease.is_valid:
            gateway.gate.give_back()
            _log_of(payment.id, payment.attempts).warning("lease_ran_out")
            return None
        result = await self._call("charge", gateway, payment, gateway.provider.charge(order), claim=claim)
        assert not isinstance(result, NotFound)
        if isinstance(result, Declined) and self._rules.may_fall_back(claim, result):
            decided = await self._released("charge", claim, gateway, result)
        else:
            decided = self._rules.charged(claim, result, traits, roll=self._roll())
        return self._settlement(payment, decided, call="charge", started_s=started_s)

    async def _released(self, call: Call, claim: Claim, gateway: Gateway, declined: Declined) -> PaymentOutcome:
        """Close a soft decline at its provider. Only then, and once that is written, may another provider charge."""
        result = await self._calls(
            "release",
            gateway,
            gateway.provider.release(claim.payment, declined),
            log=partial(_log_of, claim.payment.id, claim.payment.attempts),
            leave_open=partial(self._leave_open, claim, gateway, call),
        )
        return self._rules.released(claim, declined, result, gateway.provider.traits)

    async def _look_up_late(self, payment: Payment, gateway: Gateway) -> LookUpResult:
        """Look up a closed payment. It has no claim, and must not be charged any more."""
        return await self._call("look_up", gateway, payment, gateway.provider.look_up(payment, may_execute=False))

    def _call(
        self,
        call: Call,
        gateway: Gateway,
        payment: Payment,
        answer: Awaitable[LookUpResult],
        *,
        claim: Claim | None = None,
    ) -> Awaitable[LookUpResult]:
        """Return the result of a provider call. If it is broken off, the claim's payment is left open."""
        # No coroutine of its own: each one more costs every payment.
        return self._calls(
            call,
            gateway,
            answer,
            log=partial(_log_of, payment.id, payment.attempts),
            leave_open=None if claim is None else partial(self._leave_open, claim, gateway, call),
        )

    async def _leave_open(self, claim: Claim, gateway: Gateway, call: Call, took_s: float) -> None:
        """Write `unknown` when the worker is stopped during a call that may have been executed: it is looked up soon. If
        this fails, the lease runs out and counts as a crash."""
        payment = claim.payment
        stopped = self._rules.stopped(claim, call, gateway.provider.traits)
        settlement = self._settlement(payment, stopped, call=call, started_s=time.monotonic() - took_s)
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                await self._claim_store.settle(settlement)
        except (StoreUnavailable, TimeoutError) as error:
            _log_of(payment.id, payment.attempts).warning("attempt_not_left_open", reason=str(error))

    def _settlement(
        self, payment: Payment, decided: PaymentOutcome, *, call: Call | None, started_s: float
    ) -> Settlement:
        return Settlement(
            payment_id=payment.id,
            attempt=payment.attempts,
            status=decided.status,
            event=decided.event,
            call=call,
            provider=payment.provider or LEGACY_PROVIDER,
            latency=timedelta(seconds=time.monotonic() - started_s),
            provider_ref=decided.provider_ref,
            decline_code=decided.decline_code,
            reason=decided.reason,
            delay=decided.delay,
            attempt_ref=decided.attempt_ref,
            next_action=decided.next_action,
            capture_before=decided.capture_before,
        )

    async def _late(self, settlement: Settlement) -> Outcome:
        """Keep an outcome whose attempt has lost the payment. The attempt that holds the payment now looks it up."""
        self._late_results(settlement.event).inc()
        status = await self._retry_store_call(self._store.record_late, settlement)
        _log_of(settlement.payment_id, settlement.attempt).warning(
            "late_result", outcome=settlement.event, provider_ref=settlement.provider_ref, status=status
        )
        return Retry("settled by another attempt", after=SOON)

    async def _settled(self, settlement: Settlement, age: timedelta) -> Outcome:
        status, reason = settlement.status, settlement.reason
        self._settled_as(status).inc()
        if levels.isEnabledFor(logging.DEBUG):
            _log_of(settlement.payment_id, settlement.attempt).debug(
                "payment_settled", status=status.value, reason=reason
            )
        if status is Status.NEEDS_REVIEW:
            _log_of(settlement.payment_id, settlement.attempt).warning("payment_needs_review", reason=reason)
            return await self._dead(settlement)
        if settlement.decline_code is not None:
            self._count_decline(settlement.provider, settlement.decline_code)
        if settlement.delay is not None:
            if BEFORE_DELAY.armed:
                await BEFORE_DELAY.hit()
            self._retries(settlement.provider).inc()
            return Retry(reason or settlement.event, after=settlement.delay)
        self._settle_seconds(status).observe(age.total_seconds())
        if settlement.event == SPENT:
            _log_of(settlement.payment_id, settlement.attempt).warning("payment_spent", reason=reason)
            return await self._dead(settlement)
        return Done()

    async def _dead(self, settlement: Settlement) -> Dead:
        if BEFORE_DEAD_LETTER.armed:
            await BEFORE_DEAD_LETTER.hit()
        return Dead(settlement.reason or settlement.event)


def _log_of(payment_id: UUID, attempt: int) -> Any:
    """Return a log for lines about one attempt. Bound where a line is written: binding for every payment costs more."""
    return log.bind(payment_id=str(payment_id), attempt=attempt)
