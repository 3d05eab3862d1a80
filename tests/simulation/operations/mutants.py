"""Planted bugs of captures, voids and refunds, each of which the simulation must catch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final
from unittest.mock import patch
from uuid import UUID

from okane.operation import NewOperation, Operation, OperationKind, OperationStatus
from okane.providers.base import OperationResult, Traits, Unavailable, Unknown
from okane.store.operation_records import OperationClaim, OperationSettlement, OperationWakeUp
from okane.worker.late_operation import LateOperationLookUps
from okane.worker.lease_renewal import Lease
from okane.worker.operate import OperationHandler
from okane.worker.operation_rules import OperationOutcome, OperationRules
from okane.worker.swept_operations import SweptOperations
from streams import Done, Outcome
from tests.simulation.operations.tables import MemoryOperationStore, OperationRow
from tests.simulation.store import PaymentRow


def refund_without_reservation() -> AbstractContextManager[Any]:
    """A refund looks only at what was captured, not at what others have reserved. Caught by I22."""
    return patch.object(MemoryOperationStore, "_left", lambda _self, captured, _reserved: captured)


@contextlib.contextmanager
def capture_again_after_lost_answer() -> Iterator[None]:
    """Every attempt has a key of its own. Caught by I28: after a lost answer the money moves twice."""
    attempt = OperationHandler._attempt

    async def broken(self: OperationHandler, claim: OperationClaim, lease: Lease) -> OperationSettlement | None:
        operation = claim.operation
        again = replace(operation, provider_key=f"{operation.id}:{operation.attempts}")
        return await attempt(self, replace(claim, operation=again), lease)

    with patch.object(OperationHandler, "_attempt", broken):
        yield


@contextlib.contextmanager
def void_beside_capture() -> Iterator[None]:
    """A void does not look at the capture under way. Caught by I30: both are executed."""
    reserve = MemoryOperationStore._reserve

    def broken(self: MemoryOperationStore, payment: PaymentRow, new: NewOperation) -> int:
        if new.kind is not OperationKind.VOID:
            return reserve(self, payment, new)
        under_way, payment.open_operation = payment.open_operation, None
        try:
            return reserve(self, payment, new)
        finally:
            payment.open_operation = under_way

    with patch.object(MemoryOperationStore, "_reserve", broken):
        yield


def reserve_not_given_back() -> AbstractContextManager[Any]:
    """A refund that failed keeps its reservation. Caught by I31."""
    return patch.object(MemoryOperationStore, "_give_back", lambda _self, _payment, _row: None)


@contextlib.contextmanager
def settled_under_stale_attempt() -> Iterator[None]:
    """Any attempt may write. Caught by I32."""

    def broken(_self: MemoryOperationStore, row: OperationRow, _attempt: int) -> bool:
        return row.status is OperationStatus.PROCESSING

    with patch.object(MemoryOperationStore, "_holds", broken):
        yield


@contextlib.contextmanager
def lost_answer_is_failure() -> Iterator[None]:
    """A time-out counts as a no. Caught by I29: the money moved, and the operation says that it failed."""
    operated = OperationRules.operated

    def broken(
        self: OperationRules, claim: OperationClaim, result: OperationResult, traits: Traits, *, roll: float
    ) -> OperationOutcome:
        if isinstance(result, Unknown):
            return OperationOutcome(OperationStatus.FAILED_FINAL, "declined", decline_code="x", reason=result.reason)
        return operated(self, claim, result, traits, roll=roll)

    with patch.object(OperationRules, "operated", broken):
        yield


@contextlib.contextmanager
def lost_answer_is_unavailable() -> Iterator[None]:
    """A time-out counts as never sent, and is executed again at once. Caught by I29, when the retries are spent by then."""
    operated = OperationRules.operated

    def broken(
        self: OperationRules, claim: OperationClaim, result: OperationResult, traits: Traits, *, roll: float
    ) -> OperationOutcome:
        result = Unavailable(result.reason) if isinstance(result, Unknown) else result
        return operated(self, claim, result, traits, roll=roll)

    with patch.object(OperationRules, "operated", broken):
        yield


@contextlib.contextmanager
def open_operation_not_looked_up() -> Iterator[None]:
    """An open outcome is executed again, not looked up. Caught by the rule that a look-up comes first."""
    attempt = OperationHandler._attempt

    async def broken(self: OperationHandler, claim: OperationClaim, lease: Lease) -> OperationSettlement | None:
        return await attempt(self, replace(claim, look_up_first=False), lease)

    with patch.object(OperationHandler, "_attempt", broken):
        yield


@contextlib.contextmanager
def open_operation_retried() -> Iterator[None]:
    """A person may retry an operation whose outcome is open, under a new key. Caught by I28: the money moves twice."""
    retry = MemoryOperationStore.retry

    async def broken(self: MemoryOperationStore, operation_id: UUID, **by: Any) -> Operation:
        row = self._find(operation_id, None)
        if row.status is not OperationStatus.UNKNOWN:
            return await retry(self, operation_id, **by)
        row.status, row.decline_code = OperationStatus.FAILED_RETRYABLE, "forgotten"
        return await retry(self, operation_id, **{**by, "version": None})

    with patch.object(MemoryOperationStore, "retry", broken):
        yield


def retry_without_reservation() -> AbstractContextManager[Any]:
    """The retry of a failed operation reserves nothing. Caught by I22 and I31."""
    return patch.object(MemoryOperationStore, "_reserve_again", lambda _self, _row: None)


@contextlib.contextmanager
def decision_not_passed_on() -> Iterator[None]:
    """A decision about an operation does not change its payment. Caught by I31."""
    close = MemoryOperationStore._close

    def broken(self: MemoryOperationStore, row: OperationRow, before: OperationStatus, *more: Any, **by: Any) -> None:
        if before is not OperationStatus.NEEDS_REVIEW:
            close(self, row, before, *more, **by)

    with patch.object(MemoryOperationStore, "_close", broken):
        yield


@contextlib.contextmanager
def returned_refund_not_noticed() -> Iterator[None]:
    """A closed operation is not looked up again. Caught by I29: a refund came back, and still is a success."""

    async def broken(self: LateOperationLookUps, operation_id: UUID) -> Outcome:
        taken = await self._retry_store_call(self._store.begin_late_look_up, operation_id, again=self._again)
        if taken is not None:
            await self._retry_store_call(self._store.plan_late_look_up, taken.operation, begun_at=taken.begun_at)
        return Done()

    with patch.object(LateOperationLookUps, "run", broken):
        yield


@contextlib.contextmanager
def operations_not_swept() -> Iterator[None]:
    """No worker sweeps operations. Caught by I27: one whose wake-up was lost waits forever."""

    async def broken(
        _self: SweptOperations, _lanes: Mapping[str, timedelta | None], *, limit: int, by_retry_at: bool = False
    ) -> Sequence[OperationWakeUp]:
        return ()

    with patch.object(SweptOperations, "take_due", broken):
        yield


MUTANTS: Final[Mapping[str, Callable[[], AbstractContextManager[Any]]]] = {
    mutant.__name__: mutant
    for mutant in (
        refund_without_reservation,
        capture_again_after_lost_answer,
        void_beside_capture,
        reserve_not_given_back,
        settled_under_stale_attempt,
        lost_answer_is_failure,
        lost_answer_is_unavailable,
        open_operation_not_looked_up,
        open_operation_retried,
        retry_without_reservation,
        decision_not_passed_on,
        returned_refund_not_noticed,
        operations_not_swept,
    )
}
