"""The rare transitions of captures, voids and refunds, one at a time: an operator's decisions, late results and look-ups."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from okane.errors import OperationNotFound, OperationRefused, ReservationRefusal, StatusConflict, VersionConflict
from okane.operation import Operation, OperationKind, OperationStatus
from okane.payment import Status
from okane.store import columns, sql_files
from okane.store.operation_records import LateOperationLookUp, OperationEvent, OperationSettlement
from okane.store.operation_requests import refusal_of
from okane.store.session import Session
from okane.store.sql_parameters import milliseconds

SQL = sql_files.load_statements("operations.sql", blocks_of="payments.sql")

OperationDecision = Literal[OperationStatus.SUCCESS, OperationStatus.FAILED_FINAL]

_S = OperationStatus
CANCELABLE = frozenset({_S.PENDING, _S.FAILED_RETRYABLE})
RETRYABLE = frozenset({_S.FAILED_FINAL, _S.FAILED_RETRYABLE})


class OperationTransitions:
    """The rare transitions of `OperationStore`. `late_look_ups`: delays from the end of an operation."""

    def __init__(self, session: Session, *, actor: str, grace: timedelta, late_look_ups: Sequence[timedelta]) -> None:
        self._rare = session
        self._actor = actor
        self._grace = grace
        self._late_ms = [milliseconds(delay) for delay in late_look_ups]

    async def record_late(self, settlement: OperationSettlement, *, once: bool = False) -> OperationStatus | None:
        """Record an outcome that came after the operation was lost or closed. Return the operation's status after it, None
        if there is no such operation. With `once` (a late look-up) a known outcome is not recorded again.

        Money that moved for an operation that had failed or was canceled makes it `needs_review`. A late look-up that finds
        a refund `failed_final` that had succeeded makes it that, and gives back what it had reserved. The answer to an
        attempt that lost the operation does not: a later attempt succeeded.
        """
        found = await self._rare.fetch(
            SQL["record_late"],
            {
                "id": settlement.operation_id,
                "attempt": settlement.attempt,
                "actor": self._actor,
                "approved": settlement.status is _S.SUCCESS,
                "reverses": once and settlement.status is _S.FAILED_FINAL,
                "provider_ref": settlement.provider_ref,
                "reason": f"late {settlement.event}" + (f": {settlement.reason}" if settlement.reason else ""),
                "provider": settlement.provider,
                "latency_ms": milliseconds(settlement.latency),
                "call": settlement.call,
                "decline_code": settlement.decline_code,
                "once": once,
            },
        )
        return OperationStatus(found[0][0]) if found else None

    async def bury(self, operation_id: UUID, *, reason: str) -> bool:
        """Move an open operation to needs_review. Return False if it is settled, in a live claim, or does not exist."""
        return bool(await self._rare.fetch(SQL["bury"], {"id": operation_id, "reason": reason, "actor": self._actor}))

    async def cancel(
        self, operation_id: UUID, *, account_id: str | None, actor: str, version: int | None = None
    ) -> Operation:
        """Cancel a refund that no worker has in hand and whose outcome is known; a canceled one stays canceled.

        `account_id` None: of any account. Raises OperationNotFound, StatusConflict (also for a capture or void), or
        VersionConflict if it is no longer in `version`.
        """
        parameters = self._by(actor, operation_id, account_id, version) | {"late_ms": min(self._late_ms)}
        if found := await self._rare.fetch(SQL["cancel"], parameters):
            return columns.read_operation(found[0])
        operation = await self._read("known", operation_id, account_id)
        if operation.status is _S.CANCELED:
            return operation
        allowed = CANCELABLE if operation.kind is OperationKind.REFUND else frozenset[OperationStatus]()
        raise _conflict(operation, "canceled", allowed, version)

    async def retry(
        self, operation_id: UUID, *, account_id: str | None, actor: str, version: int | None = None
    ) -> Operation:
        """Make a failed operation pending again. The reservation that a final failure gave back is made again.

        Raises OperationNotFound, StatusConflict, VersionConflict, or OperationRefused if that is no longer there.
        """
        parameters = self._by(actor, operation_id, account_id, version) | {"grace_ms": milliseconds(self._grace)}
        if found := await self._rare.fetch(SQL["retry"], parameters):
            return columns.read_operation(found[0])
        operation = await self._read("known", operation_id, account_id)
        unmoved = operation.provider_ref is None or operation.decline_code is not None
        if operation.status is _S.FAILED_FINAL and unmoved and version in (None, operation.version):
            raise await self._no_room(operation)
        raise _conflict(operation, "retried", RETRYABLE, version)

    async def _no_room(self, operation: Operation) -> OperationRefused:
        """Return why a failed operation cannot be reserved again."""
        [[status, left_minor]] = await self._rare.fetch(SQL["room"], {"payment_id": operation.payment_id})
        code: ReservationRefusal
        if operation.kind is OperationKind.REFUND:
            code = "refund_exceeds_captured" if status == Status.SUCCESS else "payment_not_captured"
        else:
            code = "operation_in_progress" if status == Status.AUTHORIZED else "payment_not_authorized"
        return refusal_of(operation.kind, code, left_minor=left_minor, payment_status=status)

    async def resolve(
        self,
        operation_id: UUID,
        *,
        account_id: str | None,
        decision: OperationDecision,
        reason: str,
        provider_ref: str | None,
        actor: str,
        version: int | None = None,
    ) -> Operation:
        """Decide an operation that needs a review; repeating the decision changes nothing. `provider_ref`: the capture or
        refund that the operator has found. Raises OperationNotFound, StatusConflict, VersionConflict.
        """
        parameters = self._by(actor, operation_id, account_id, version) | {
            "status": decision.value,
            "reason": reason,
            "provider_ref": provider_ref,
            "late_ms": min(self._late_ms),
        }
        if found := await self._rare.fetch(SQL["resolve"], parameters):
            return columns.read_operation(found[0])
        operation = await self._read("known", operation_id, account_id)
        if operation.status is decision and (await self._rare.fetch(SQL["decided"], {"id": operation_id}))[0][0]:
            return operation
        raise _conflict(operation, "resolved", frozenset({_S.NEEDS_REVIEW}), version)

    async def begin_late_look_up(self, operation_id: UUID, *, again: Sequence[timedelta]) -> LateOperationLookUp | None:
        """Begin the look-up of an operation that has ended and that the sweep has sent; None if there is none to do.

        Without a result it is due again after the first delay of `again`, the next time after the second, and so on.
        """
        parameters = {"id": operation_id, "again_ms": [milliseconds(delay) for delay in again]}
        found = await self._rare.fetch(SQL["begin_late_look_up"], parameters)
        if not found:
            return None
        row = found[0]
        payment = columns.read_payment(row[columns.OPERATION_WIDTH :])
        open_s, begun_at = row[columns.OPERATION_WIDTH + columns.WIDTH :]
        return LateOperationLookUp(columns.read_operation(row), payment, open_s, begun_at)

    async def plan_late_look_up(self, operation: Operation, *, begun_at: datetime) -> None:
        """Plan the late look-up after the one that began at `begun_at`, or none after the last and after a success. Does
        nothing if the operation has changed."""
        parameters = {"id": operation.id, "version": operation.version, "late_ms": self._late_ms, "begun_at": begun_at}
        await self._rare.fetch(SQL["plan_late_look_up"], parameters)

    async def fail_late_look_up(self, operation: Operation, *, reason: str) -> bool:
        """Move an operation that ended without moving money, and whose late look-ups have no result, to needs_review. Return
        False if it has changed, or had succeeded."""
        parameters = {"id": operation.id, "version": operation.version, "reason": reason, "actor": self._actor}
        return bool(await self._rare.fetch(SQL["fail_late_look_up"], parameters))

    async def get(self, operation_id: UUID, *, account_id: str | None = None) -> Operation:
        """Return the operation as it is now. Raises OperationNotFound, also for one of another account (None: any)."""
        return await self._read("by_id", operation_id, account_id)

    async def _read(self, statement: str, operation_id: UUID, account_id: str | None) -> Operation:
        found = await self._rare.fetch_repeatable(SQL[statement], {"id": operation_id})
        operation = columns.read_operation(found[0]) if found else None
        if operation is None or account_id not in (None, operation.account_id):
            raise OperationNotFound(str(operation_id))
        return operation

    async def events(self, operation_id: UUID) -> Sequence[OperationEvent]:
        """Return the events of an operation, oldest first; its request is version 0. Empty if it does not exist."""
        found = await self._rare.fetch_repeatable(SQL["with_events"], {"id": operation_id})
        return [columns.read_operation_event(row) for row in found]

    def _by(
        self, actor: str, operation_id: UUID, account_id: str | None, version: int | None
    ) -> dict[str, str | int | UUID | None]:
        return {"id": operation_id, "account_id": account_id, "actor": actor, "seen": version}


def _conflict(
    operation: Operation, action: str, allowed: Collection[OperationStatus], version: int | None
) -> StatusConflict:
    """Return the error for an action on an operation as it is now, that was decided by this version of it."""
    what = operation.kind.value
    if version is not None and version != operation.version and operation.status in allowed:
        return VersionConflict(operation.status, action, seen=version, version=operation.version, what=what)
    return StatusConflict(operation.status, action, what=what)
