"""The rare transitions, one payment at a time: an operator's decisions, late results, closes without a charge, and the late
look-ups of payments that were closed while a provider call might still have been on its way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from okane.errors import PaymentNotFound, StatusConflict, VersionConflict
from okane.payment import CANCELABLE, RETRYABLE, Payment, Status
from okane.store import columns, sql_files
from okane.store.payment_layout import PaymentLayout
from okane.store.records import Event, LateLookUp, Settlement
from okane.store.session import Session
from okane.store.sql_parameters import milliseconds

SQL = sql_files.load_statements("payments.sql")

Decision = Literal[Status.SUCCESS, Status.FAILED_FINAL]


class RareTransitionStore:
    """The rare transitions of `PaymentStore`. `late_look_ups`: delays from the close of a payment to its late look-ups."""

    def __init__(
        self,
        session: Session,
        layout: PaymentLayout,
        *,
        actor: str,
        grace: timedelta,
        late_look_ups: Sequence[timedelta],
    ) -> None:
        self._rare = session
        self._layout = layout
        self._actor = actor
        self._grace = grace
        self._late_ms = [milliseconds(delay) for delay in late_look_ups]

    async def record_late(self, settlement: Settlement, *, once: bool = False) -> Status | None:
        """Record the outcome of an attempt that had lost the payment. Return the payment's status after it, None if there is
        no such payment. With `once`, a charge or authorization that the payment already has is not recorded again.
        """
        approved = settlement.status in (Status.SUCCESS, Status.AUTHORIZED)
        found = await self._rare.fetch(
            SQL["record_late"],
            {
                "id": settlement.payment_id,
                "attempt": settlement.attempt,
                "actor": self._actor,
                "approved": approved,
                "provider_ref": settlement.provider_ref,
                "attempt_ref": settlement.attempt_ref if settlement.status is Status.AUTHORIZED else None,
                "reason": f"late {settlement.event}" + (f": {settlement.reason}" if settlement.reason else ""),
                "provider": settlement.provider,
                "latency_ms": milliseconds(settlement.latency),
                "call": settlement.call,
                "decline_code": settlement.decline_code,
                "once": once,
            },
        )
        return Status(found[0][0]) if found else None

    async def fall_back(self, settlement: Settlement) -> timedelta | None:
        """Write a soft decline that is closed at its provider, under its attempt: the other candidates of the payment may
        charge it now. Return the payment's age, or None if the attempt has lost the payment.

        Repeatable after StoreUnavailable, like `settle`.
        """
        found = await self._rare.fetch(
            SQL["fall_back"],
            {
                "id": settlement.payment_id,
                "attempt": settlement.attempt,
                "actor": self._actor,
                "grace_ms": milliseconds(self._grace),
                "reason": settlement.reason,
                "provider": settlement.provider,
                "latency_ms": milliseconds(settlement.latency),
                "call": settlement.call,
                "decline_code": settlement.decline_code,
            },
        )
        return timedelta(seconds=found[0][0]) if found else None

    async def retry(self, payment_id: UUID, *, account_id: str, actor: str, version: int | None = None) -> Payment:
        """Make a failed payment pending again, for `actor`.

        Raises PaymentNotFound; StatusConflict from any other status, and after a decision against a known charge;
        VersionConflict if it is no longer in `version`.
        """
        found = await self._rare.fetch(
            SQL["retry"],
            {
                "id": payment_id,
                "account_id": account_id,
                "actor": actor,
                "grace_ms": milliseconds(self._grace),
                "seen": version,
            },
        )
        if found:
            return columns.read_payment(found[0])
        payment = await self._known(payment_id, account_id)
        raise conflict(payment, "retried", RETRYABLE, version)

    async def cancel(self, payment_id: UUID, *, account_id: str, actor: str, version: int | None = None) -> Payment:
        """Cancel a payment that no worker is charging, for `actor`; a canceled one stays canceled.

        Raises PaymentNotFound, StatusConflict from any other status, or VersionConflict if it is no longer in `version`.
        """
        found = await self._rare.fetch(
            SQL["cancel"],
            {
                "id": payment_id,
                "account_id": account_id,
                "actor": actor,
                "late_ms": min(self._late_ms),
                "seen": version,
            },
        )
        if found:
            return columns.read_payment(found[0])
        payment = await self._known(payment_id, account_id)
        if payment.status is Status.CANCELED:
            return payment
        raise conflict(payment, "canceled", CANCELABLE, version)

    async def expire(self, payment_id: UUID) -> bool:
        """Cancel an expired payment. Return False if it has not expired, or if its outcome is open."""
        parameters = {"id": payment_id, "actor": self._actor, "late_ms": min(self._late_ms)}
        return bool(await self._rare.fetch(SQL["expire"], parameters))

    async def bury(self, payment_id: UUID, *, reason: str) -> bool:
        """Move an unsettled payment to needs_review. Return False if it is settled, in a live claim, or does not exist."""
        return bool(await self._rare.fetch(SQL["bury"], {"id": payment_id, "reason": reason, "actor": self._actor}))

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
        """Decide a payment that needs a review, for `actor`; repeating the decision changes nothing.

        `account_id` None: of any account. `provider_ref`: the charge that the operator has found. Raises PaymentNotFound,
        StatusConflict from any other status, or VersionConflict if it is no longer in `version`.
        """
        found = await self._rare.fetch(
            SQL["resolve"],
            {
                "id": payment_id,
                "account_id": account_id,
                "status": decision.value,
                "reason": reason,
                "provider_ref": provider_ref,
                "actor": actor,
                "late_ms": min(self._late_ms),
                "seen": version,
            },
        )
        if found:
            return columns.read_payment(found[0])
        payment = await self._known(payment_id, account_id)
        if payment.status is decision and (await self._rare.fetch(SQL["decided"], {"id": payment_id}))[0][0]:
            return payment
        raise conflict(payment, "resolved", frozenset({Status.NEEDS_REVIEW}), version)

    async def begin_late_look_up(self, payment_id: UUID, *, again: Sequence[timedelta]) -> LateLookUp | None:
        """Begin the look-up of a closed payment that the sweep has sent; return None if there is none to do.

        Without a result it is due again after the first delay of `again`, the next time after the second, and so on.
        """
        parameters = {"id": payment_id, "again_ms": [milliseconds(delay) for delay in again]}
        found = await self._rare.fetch(SQL["begin_late_look_up"], parameters)
        return LateLookUp(columns.read_payment(found[0]), *found[0][columns.WIDTH :]) if found else None

    async def plan_late_look_up(self, payment: Payment, *, begun_at: datetime) -> None:
        """Plan the late look-up after the one that began at `begun_at`, or none after the last. Does nothing if the payment
        has changed."""
        parameters = {"id": payment.id, "version": payment.version, "late_ms": self._late_ms, "begun_at": begun_at}
        await self._rare.fetch(SQL["plan_late_look_up"], parameters)

    async def fail_late_look_up(self, payment: Payment, *, reason: str) -> bool:
        """Move a closed payment without a look-up result to needs_review. Return False if it has changed."""
        parameters = {"id": payment.id, "version": payment.version, "reason": reason, "actor": self._actor}
        return bool(await self._rare.fetch(SQL["fail_late_look_up"], parameters))

    async def begin_authorization_look_up(self, payment_id: UUID) -> Payment | None:
        """Begin the look-up of an authorization that the sweep has sent; return None if there is none to do."""
        found = await self._rare.fetch(SQL["begin_authorization_look_up"], {"id": payment_id})
        return columns.read_payment(found[0]) if found else None

    async def plan_authorization_look_up(self, payment: Payment) -> None:
        """Plan the next look at an authorization that was looked up and lasts. Does nothing if the payment has changed."""
        await self._rare.fetch(SQL["plan_authorization_look_up"], {"id": payment.id, "version": payment.version})

    async def events(self, payment_id: UUID) -> Sequence[Event]:
        """Return the events of a payment, oldest first; empty if it does not exist."""
        found = await self._rare.fetch(SQL["events"], {"id": payment_id})
        return [columns.read_event(row) for row in found]

    async def _known(self, payment_id: UUID, account_id: str | None) -> Payment:
        """Return the payment as it is now, and as it stays in a failover. Raises PaymentNotFound, also for a payment of
        another account."""
        found = await self._rare.fetch(SQL["known"], {"id": payment_id})
        if not found:
            raise await self._layout.missing(self._rare, payment_id)
        payment = columns.read_payment(found[0])
        if account_id not in (None, payment.account_id):
            raise PaymentNotFound(str(payment_id))
        return payment


def conflict(payment: Payment, action: str, allowed: Collection[Status], version: int | None) -> StatusConflict:
    """Return the error for an action on a payment as it is now, that was decided by this version of it."""
    if version is not None and version != payment.version and payment.status in allowed:
        return VersionConflict(payment.status, action, seen=version, version=payment.version)
    return StatusConflict(payment.status, action)
