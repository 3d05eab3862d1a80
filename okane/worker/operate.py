"""The handling of one wake-up of a capture, void or refund: claim, look up or execute, settle. The sibling of `charge`.

A worker may die at any line. What the operation moves is reserved in its payment's row before it is called, so a repeat moves
no more; it carries the same key, and is looked up first.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any, assert_never

import structlog

from okane.errors import StoreUnavailable
from okane.operation import Operation, OperationCall, OperationStatus
from okane.payment import Payment
from okane.payment_id import read_id
from okane.providers.base import Authorized, LookUpResult, NotFound, OperationLookUp, Unknown
from okane.store.operation_records import OperationClaim, OperationRefusal, OperationSettlement
from okane.store.operations import OperationStore
from okane.worker.charge import LAST_WORDS_S, LONG, SOON
from okane.worker.late_operation import LateOperationLookUps
from okane.worker.lease_renewal import Lease, LeaseRenewal
from okane.worker.operation_metrics import OperationMetrics
from okane.worker.operation_rules import OperationOutcome, OperationRules
from okane.worker.outcome_rules import SPENT
from okane.worker.provider_calls import ProviderCalls
from okane.worker.provider_set import Gateway, ProviderSet
from okane.worker.store_retry import StoreRetry
from streams import Dead, Done, Message, Outcome, Retry
from streams.failpoints import failpoint

log = structlog.get_logger("okane.operate")

BEFORE_CLAIM = failpoint("operate.before_claim", "an operation is read from the stream, not claimed")
BEFORE_CALL = failpoint("operate.before_call", "an operation is claimed, the provider not called")
BEFORE_SETTLE = failpoint("operate.before_settle", "the provider has answered an operation, nothing is written")
BEFORE_DELAY = failpoint("operate.before_delay", "an operation's retry is committed, not in the delayed set")
BEFORE_DEAD_LETTER = failpoint("operate.before_dead_letter", "an operation is given up, no dead letter in the stream")

_S = OperationStatus


class OperationHandler:
    """The handler of the operations stream."""

    def __init__(
        self,
        *,
        store: OperationStore,
        providers: ProviderSet,
        calls: ProviderCalls,
        leases: LeaseRenewal,
        rules: OperationRules,
        metrics: OperationMetrics,
        roll: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._providers = providers
        self._calls = calls
        self._leases = leases
        self._rules = rules
        self._metrics = metrics
        self._roll = roll
        self._retry_store_call = StoreRetry(roll)
        self._late_look_ups = LateOperationLookUps(
            store=store,
            retry_store_call=self._retry_store_call,
            providers=providers,
            look_up=self._look_up_late,
            again=[max(leases.lease, delay) for delay in rules.look_up_delays],
            metrics=metrics,
        )
        metrics.in_flight.set_function(leases.__len__)

    async def __call__(self, message: Message) -> Outcome:
        """Handle one wake-up. Raises nothing that Postgres or the provider may cause."""
        if len(message.body) != 16:
            return Dead("not an operation id")
        operation_id = read_id(message.body)
        if BEFORE_CLAIM.armed:
            await BEFORE_CLAIM.hit()
        claim = await self._retry_store_call(self._store.claim, operation_id)
        if isinstance(claim, OperationRefusal):
            if claim.look_up_late:
                self._metrics.count_claim("closed").inc()
                return await self._late_look_ups.run(operation_id)
            return self._refused(claim, message)
        self._metrics.count_claim("granted").inc()
        operation = claim.operation
        with self._leases.hold(operation.id, operation.attempts, claim.valid_until_s) as lease:
            settlement = await self._attempt(claim, lease)
            if settlement is None:
                return Retry("the lease ran out before the provider was called", after=SOON)
            if BEFORE_SETTLE.armed:
                await BEFORE_SETTLE.hit()
            # Only this task has the provider's answer: it stays until the answer is written.
            age = await self._retry_store_call(self._store.settle, settlement)
        if age is None:
            return await self._late(operation, settlement)
        return await self._settled(operation, settlement, age)

    async def poison(self, message: Message) -> Outcome:
        """Give up an entry that was delivered too often: its operation needs a review, the entry becomes a dead letter."""
        reason = f"poison: delivered {message.deliveries} times, its workers died or stalled"
        if len(message.body) != 16:
            return Dead(reason)
        operation_id = read_id(message.body)
        buried = await self._retry_store_call(self._store.bury, operation_id, reason=reason)
        log.warning("operation_needs_review", operation_id=str(operation_id), reason=reason, buried=buried)
        return Dead(reason) if buried else Done()

    def _refused(self, refused: OperationRefusal, message: Message) -> Outcome:
        if refused.no_provider and refused.wait:
            self._metrics.count_claim("no_provider").inc()
            return Retry("its provider cannot take it now", after=refused.wait)
        self._metrics.count_claim(refused.status or "missing").inc()
        match refused.status:
            case None:
                return Dead("no such operation")
            case _S.FAILED_FINAL if refused.spent is not None and message.deliveries > 1:
                # The worker that gave it up died before it wrote the dead letter.
                return Dead(refused.spent)
            case _S.SUCCESS | _S.FAILED_FINAL | _S.CANCELED | _S.NEEDS_REVIEW:
                return Done()
            case _S.SUBMITTED if refused.wait > LONG:
                return Done()  # a double after a notice: the wake-up of the next poll is kept already
            case _S.PENDING | _S.PROCESSING | _S.FAILED_RETRYABLE | _S.UNKNOWN | _S.SUBMITTED as status:
                # Not due yet, or another worker holds it: keep a wake-up in case that worker dies.
                return Retry(f"{status}, not claimable yet", after=refused.wait + timedelta(milliseconds=1))
            case _:
                assert_never(refused.status)

    async def _attempt(self, claim: OperationClaim, lease: Lease) -> OperationSettlement | None:
        """Look up an open outcome, else execute. Return None if the lease ran out before the call."""
        operation, payment, started_s = claim.operation, claim.payment, time.monotonic()
        gateway = self._providers.named(operation.provider)
        assert gateway is not None, f"the claim names {operation.provider}, which this worker does not have"
        provider, traits = gateway.provider, gateway.provider.traits
        hopeless = self._rules.hopeless(claim) if operation.retries else None
        if hopeless is not None:
            return _settlement(operation, hopeless, call=None, started_s=started_s)
        # Under a key that has expired the provider would execute it a second time.
        key_lives = traits.key_lifetime is None or claim.key_age_s < traits.key_lifetime.total_seconds()
        if claim.look_up_first or not key_lives:
            may_execute = key_lives and lease.is_valid
            answer = provider.look_up_operation(operation, payment, may_execute=may_execute)
            found = await self._call("look_up", gateway, operation, answer, claim=claim)
            decided = self._rules.looked_up(claim, found, traits)
            if decided is not None:
                return _settlement(operation, decided, call="look_up", started_s=started_s)
        wait = await gateway.gate.permit()
        if wait is not None:
            held_back = self._rules.deferred("held back by the circuit breaker or the rate limit", wait)
            return _settlement(operation, held_back, call=None, started_s=started_s)
        if BEFORE_CALL.armed:
            await BEFORE_CALL.hit()
        if not lease.is_valid:
            gateway.gate.give_back()
            _log_of(operation).warning("lease_ran_out")
            return None
        result = await self._call("operate", gateway, operation, provider.operate(operation, payment), claim=claim)
        assert not isinstance(result, NotFound)
        decided = self._rules.operated(claim, result, traits, roll=self._roll())
        return _settlement(operation, decided, call="operate", started_s=started_s)

    async def _look_up_late(self, operation: Operation, payment: Payment, gateway: Gateway) -> OperationLookUp:
        """Look up a closed operation. It has no claim, and must not be executed any more."""
        answer = gateway.provider.look_up_operation(operation, payment, may_execute=False)
        return await self._call("look_up", gateway, operation, answer)

    async def _call(
        self,
        call: OperationCall,
        gateway: Gateway,
        operation: Operation,
        answer: Awaitable[OperationLookUp],
        *,
        claim: OperationClaim | None = None,
    ) -> OperationLookUp:
        """Return the result of a provider call. If it is broken off, the claim's operation is left open."""
        result: LookUpResult = await self._calls(
            operation.kind.value if call == "operate" else call,
            gateway,
            answer,
            log=partial(_log_of, operation),
            leave_open=None if claim is None else partial(self._leave_open, claim, gateway, call),
        )
        return Unknown("an authorization, not an operation") if isinstance(result, Authorized) else result

    async def _leave_open(self, claim: OperationClaim, gateway: Gateway, call: OperationCall, took_s: float) -> None:
        """Write `unknown` when the worker is stopped during a call that may have been executed: it is looked up soon. If
        this fails, the lease runs out and counts as a crash."""
        operation = claim.operation
        name = operation.kind.value if call == "operate" else call
        stopped = self._rules.stopped(claim, name, gateway.provider.traits)
        settlement = _settlement(operation, stopped, call=call, started_s=time.monotonic() - took_s)
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                await self._store.settle(settlement)
        except (StoreUnavailable, TimeoutError) as error:
            _log_of(operation).warning("attempt_not_left_open", reason=str(error))

    async def _late(self, operation: Operation, settlement: OperationSettlement) -> Outcome:
        """Keep an outcome whose attempt has lost the operation. The attempt that holds it now looks it up."""
        self._metrics.late_results.labels(operation.kind, settlement.event).inc()
        status = await self._retry_store_call(self._store.record_late, settlement)
        _log_of(operation).warning(
            "late_result", outcome=settlement.event, provider_ref=settlement.provider_ref, status=status
        )
        return Retry("settled by another attempt", after=SOON)

    async def _settled(self, operation: Operation, settlement: OperationSettlement, age: timedelta) -> Outcome:
        status, reason = settlement.status, settlement.reason
        self._metrics.settled.labels(operation.kind, status).inc()
        if status is _S.NEEDS_REVIEW:
            _log_of(operation).warning("operation_needs_review", reason=reason)
            return await self._dead(settlement)
        if settlement.delay is not None:
            if BEFORE_DELAY.armed:
                await BEFORE_DELAY.hit()
            return Retry(reason or settlement.event, after=settlement.delay)
        self._metrics.settle_seconds.labels(operation.kind, status).observe(age.total_seconds())
        if settlement.event == SPENT:
            _log_of(operation).warning("operation_spent", reason=reason)
            return await self._dead(settlement)
        return Done()

    async def _dead(self, settlement: OperationSettlement) -> Dead:
        if BEFORE_DEAD_LETTER.armed:
            await BEFORE_DEAD_LETTER.hit()
        return Dead(settlement.reason or settlement.event)


def _settlement(
    operation: Operation, decided: OperationOutcome, *, call: OperationCall | None, started_s: float
) -> OperationSettlement:
    return OperationSettlement(
        operation_id=operation.id,
        attempt=operation.attempts,
        status=decided.status,
        event=decided.event,
        call=call,
        provider=operation.provider,
        latency=timedelta(seconds=time.monotonic() - started_s),
        provider_ref=decided.provider_ref,
        decline_code=decided.decline_code,
        reason=decided.reason,
        delay=decided.delay,
    )


def _log_of(operation: Operation) -> Any:
    """Return a log for lines about one attempt."""
    return log.bind(
        operation_id=str(operation.id),
        kind=operation.kind.value,
        payment_id=str(operation.payment_id),
        attempt=operation.attempts,
    )
