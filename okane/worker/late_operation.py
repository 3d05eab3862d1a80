"""Look-ups of closed operations: of those whose call may still have been on its way when they closed, and of refunds that had
succeeded and about which the provider has sent a notice, since a bank may return one days later.

Such an operation is not claimed and not executed. The row says when it is due, and the sweep sends its wake-up. A death at
any point leaves it due again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Literal, assert_never
from uuid import UUID

import structlog

from okane.operation import Operation, OperationKind, OperationStatus
from okane.payment import Payment, Status
from okane.providers.base import Approved, Declined, NotFound, OperationLookUp, Pending, Unavailable, Unknown
from okane.store.operation_records import LateOperationLookUp, OperationSettlement
from okane.store.operations import OperationStore
from okane.worker.operation_metrics import OperationMetrics
from okane.worker.provider_set import Gateway, ProviderSet
from okane.worker.store_retry import StoreRetry
from streams import Dead, Done, Outcome
from streams.failpoints import failpoint

log = structlog.get_logger("okane.late")

BEFORE_RECORD = failpoint("late.before_record_operation", "a closed operation was looked up, nothing is written")

_S = OperationStatus


class LateOperationLookUps:
    """The late look-ups of operations in one worker. `again`: delays between look-ups without a result, each longer than one
    `look_up` may last."""

    def __init__(
        self,
        *,
        store: OperationStore,
        retry_store_call: StoreRetry,
        providers: ProviderSet,
        look_up: Callable[[Operation, Payment, Gateway], Awaitable[OperationLookUp]],
        again: Sequence[timedelta],
        metrics: OperationMetrics,
    ) -> None:
        self._store = store
        self._retry_store_call = retry_store_call
        self._providers = providers
        self._look_up = look_up
        self._again = again
        self._metrics = metrics

    async def run(self, operation_id: UUID) -> Outcome:
        """Look the operation up once. Without an answer its row is due again by itself."""
        taken = await self._retry_store_call(self._store.begin_late_look_up, operation_id, again=self._again)
        if taken is None:
            return Done()
        operation = taken.operation
        gateway = self._providers.named(operation.provider)
        if gateway is None:  # another worker may have it, next time
            return self._unanswered(operation, f"no provider {operation.provider} here")
        if operation.kind is not OperationKind.REFUND and taken.payment.open_operation is not None:
            return self._unanswered(operation, "another capture or void is under way")
        if _is_done_by_another(operation, taken.payment):
            await self._retry_store_call(self._store.plan_late_look_up, operation, begun_at=taken.begun_at)
            return Done()
        started_s = time.monotonic()
        result = await self._look_up(operation, taken.payment, gateway)
        if BEFORE_RECORD.armed:
            await BEFORE_RECORD.hit()
        is_last = taken.open_s >= gateway.provider.traits.unknown_deadline.total_seconds()
        return await self._found(taken, result, timedelta(seconds=time.monotonic() - started_s), is_last=is_last)

    async def _found(
        self, taken: LateOperationLookUp, result: OperationLookUp, latency: timedelta, *, is_last: bool
    ) -> Outcome:
        """Record what the provider says. `is_last`: without an answer now, a human decides."""
        operation = taken.operation
        had_succeeded = operation.status is _S.SUCCESS
        match result:
            case Approved(provider_ref=provider_ref) if not had_succeeded:
                reason = f"executed after it was closed as {operation.status}"
                return await self._record(operation, _S.SUCCESS, reason, latency, provider_ref=provider_ref)
            case Declined(code=code, message=message) if had_succeeded:
                reason = f"{code}: {message}" if message else code
                return await self._record(operation, _S.FAILED_FINAL, reason, latency, decline_code=code)
            case NotFound() if had_succeeded:
                return await self._give_up(taken, "the provider does not know it any more")
            case Approved() | Declined() | NotFound():
                await self._retry_store_call(self._store.plan_late_look_up, operation, begun_at=taken.begun_at)
                return Done()
            case Unknown(at_once=True, reason=reason):
                return await self._give_up(taken, f"{operation.status}, and {reason}")
            case Pending() | Unavailable() | Unknown():
                if is_last:
                    reason = f"{operation.status}, and the provider does not say what became of it"
                    return await self._give_up(taken, reason)
                return self._unanswered(operation, getattr(result, "reason", "pending at the provider"))
            case _:
                assert_never(result)

    async def _record(
        self,
        operation: Operation,
        status: Literal[OperationStatus.SUCCESS, OperationStatus.FAILED_FINAL],
        reason: str,
        latency: timedelta,
        *,
        provider_ref: str | None = None,
        decline_code: str | None = None,
    ) -> Outcome:
        """Record that a closed operation ended otherwise: money that moved after all, or a refund that came back."""
        event = "success" if status is _S.SUCCESS else "declined"
        settlement = OperationSettlement(
            operation_id=operation.id,
            attempt=operation.attempts,
            status=status,
            event=event,
            call="look_up",
            provider=operation.provider,
            latency=latency,
            provider_ref=provider_ref,
            decline_code=decline_code,
            reason=reason,
        )
        now = await self._retry_store_call(self._store.record_late, settlement, once=True)
        self._metrics.late_operations.labels(operation.kind, event).inc()
        log.warning(
            "late_operation", operation_id=str(operation.id), kind=operation.kind.value, status=now, reason=reason
        )
        return Dead(reason) if now is _S.NEEDS_REVIEW else Done()

    async def _give_up(self, taken: LateOperationLookUp, reason: str) -> Outcome:
        """Leave the operation to a review: the provider did not answer for too long, or only a human can decide. One that
        had succeeded stays so: nothing says that it has not."""
        operation = taken.operation
        if operation.status is _S.SUCCESS:
            log.warning("late_look_up_given_up", operation_id=str(operation.id), reason=reason)
            await self._retry_store_call(self._store.plan_late_look_up, operation, begun_at=taken.begun_at)
            return Done()
        written = await self._retry_store_call(self._store.fail_late_look_up, operation, reason=reason)
        log.warning("operation_needs_review", operation_id=str(operation.id), reason=reason, buried=written)
        return Dead(reason) if written else Done()

    def _unanswered(self, operation: Operation, reason: str) -> Done:
        log.info("late_look_up_unanswered", operation_id=str(operation.id), reason=reason)
        return Done()


def _is_done_by_another(operation: Operation, payment: Payment) -> bool:
    """Return True for a capture or void that moved nothing, of a payment that another one has captured or voided.

    A gateway that keeps one state for both, as Stripe's PaymentIntent does, would show the other one's as that of this one.
    """
    match operation.kind:
        case OperationKind.CAPTURE:
            return payment.status is Status.SUCCESS
        case OperationKind.VOID:
            return payment.status is Status.CANCELED
        case OperationKind.REFUND:
            return False
