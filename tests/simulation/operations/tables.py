"""An exact model of the store of operations in memory, over the payments of a `MemoryDatabase`.

Every statement of the real store is one method, which takes effect at once and never suspends. Every write asserts that
its transition is allowed, that the payment's amounts still fit, and that the row it leaves is due again some time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from okane.errors import (
    IdempotencyKeyReused,
    OperationNotFound,
    OperationRefused,
    PaymentNotFound,
    StatusConflict,
    VersionConflict,
)
from okane.operation import TRANSITIONS, NewOperation, Operation, OperationKind, OperationStatus
from okane.payment import RARE_STATUSES, Status
from okane.store import Event, UsableProvider
from okane.store.claims import NO_PROVIDER_WAIT_S, ONLY_HTTP, SWITCHED_WAIT_S
from okane.store.operation_records import (
    LateOperationLookUp,
    OperationClaim,
    OperationEvent,
    OperationRefusal,
    OperationSettlement,
    OperationWakeUp,
    RequestedOperation,
)
from okane.store.operation_transitions import CANCELABLE, RETRYABLE, OperationDecision
from okane.store.sweep import LONGEST_QUEUE
from tests.simulation.store import MemoryDatabase, PaymentRow, ProviderRow

_S = OperationStatus
DELAYED = (_S.FAILED_RETRYABLE, _S.UNKNOWN, _S.SUBMITTED)
OPEN = (_S.PROCESSING, _S.UNKNOWN, _S.SUBMITTED)
GAVE_BACK = (_S.FAILED_FINAL, _S.CANCELED)
SUCCEEDED = {OperationKind.CAPTURE: "captured", OperationKind.VOID: "voided", OperationKind.REFUND: "refunded"}


@dataclass(slots=True, eq=False)
class OperationRow:
    """A row of `operations`, column by column as in schema.sql."""

    id: UUID
    payment_id: UUID
    account_id: str
    kind: OperationKind
    idempotency_key: str | None
    amount_minor: int
    currency: str
    provider: str
    provider_key: str
    created_at: datetime
    updated_at: datetime
    metadata: dict[str, str] = field(default_factory=dict)
    reason: str | None = None
    status: OperationStatus = _S.PENDING
    version: int = 0
    attempts: int = 0
    retries: int = 0
    look_ups: int = 0
    look_up_first: bool = False
    provider_ref: str | None = None
    decline_code: str | None = None
    last_error: str | None = None
    called_at: datetime | None = None
    lease_until: datetime | None = None
    open_since: datetime | None = None
    pending_since: datetime | None = None
    retry_at: datetime | None = None
    sweep_at: datetime | None = None
    sweeps: int = 0
    dead_at: datetime | None = None

    def operation(self) -> Operation:
        """Return the row as the other layers see it."""
        return Operation(
            id=self.id,
            payment_id=self.payment_id,
            account_id=self.account_id,
            kind=self.kind,
            idempotency_key=self.idempotency_key,
            amount_minor=self.amount_minor,
            currency=self.currency,
            status=self.status,
            attempts=self.attempts,
            retries=self.retries,
            version=self.version,
            provider=self.provider,
            provider_key=self.provider_key,
            created_at=self.created_at,
            updated_at=self.updated_at,
            metadata=dict(self.metadata),
            reason=self.reason,
            provider_ref=self.provider_ref,
            decline_code=self.decline_code,
            last_error=self.last_error,
            retry_at=self.retry_at,
        )


@dataclass(slots=True, eq=False)
class OperationTables:
    """The tables of operations, beside those of payments in `db`."""

    db: MemoryDatabase
    rows: dict[UUID, OperationRow] = field(default_factory=dict)
    by_key: dict[tuple[str, str], tuple[OperationRow, bytes]] = field(default_factory=dict)
    events: dict[UUID, list[OperationEvent]] = field(default_factory=dict)

    def of_payment(self, payment_id: UUID) -> Sequence[OperationRow]:
        return [row for row in self.rows.values() if row.payment_id == payment_id]

    def change(self, row: OperationRow, status: OperationStatus, event: str, *, actor: str, **about: Any) -> None:
        """Write a change of an operation: an allowed status, the next version, and its event."""
        stays = event == "late_result" and status is row.status
        assert stays or status in TRANSITIONS[row.status], f"{row.id}: {row.status} must not become {status} ({event})"
        row.status = status
        row.version += 1
        row.updated_at = self.db.now()
        about = {"reason": None, "provider": None, "latency_ms": None, "attempt": row.attempts} | about
        self.events[row.id].append(
            OperationEvent(
                operation_id=row.id,
                version=row.version,
                at=row.updated_at,
                event=event,
                status=status,
                actor=actor,
                **about,
            )
        )
        self.check(row)

    def tell(self, row: OperationRow, event: str, status: Status, *, actor: str, reason: str | None = None) -> None:
        """Write the event of the payment that tells of an operation, with the payment's next version."""
        payment = self.db.payments[row.payment_id]
        payment.status = status
        payment.rare_status = status if status in RARE_STATUSES else None
        payment.version += 1
        payment.updated_at = self.db.now()
        timeline = self.db.events[payment.id]
        assert payment.version == len(timeline) + 1, f"{payment.id}: a gap before version {payment.version}"
        timeline.append(
            Event(
                payment_id=payment.id,
                version=payment.version,
                at=payment.updated_at,
                event=event,
                status=status,
                attempt=payment.attempts,
                actor=actor,
                reason=reason,
                provider=None,
                latency_ms=None,
                operation_id=row.id,
            )
        )

    def notice(self, operation_id: UUID, *, is_refusal: bool, grace: timedelta) -> bool:
        """Make an operation due that its provider has told of. False while a worker has it: it is to be told again."""
        row, now = self.rows[operation_id], self.db.now()
        if row.status is _S.PROCESSING:
            return False
        if row.status in (_S.UNKNOWN, _S.SUBMITTED):
            if row.retry_at is not None and row.retry_at > now:
                row.look_ups = max(row.look_ups - 1, 0)
            row.retry_at, row.sweep_at, row.sweeps = now, now + grace, 0
        elif row.status is _S.SUCCESS if is_refusal else row.status in GAVE_BACK:
            row.sweep_at = now
        return True

    def check(self, row: OperationRow) -> None:
        """Assert the invariants of a row after a write."""
        assert (row.lease_until is not None) == (row.status is _S.PROCESSING), f"{row.id}: a lease and no claim"
        assert row.retry_at is not None or row.status not in DELAYED, f"{row.id}: {row.status} for ever"
        waits = not row.status.is_at_rest
        assert row.sweep_at is not None or not waits, f"{row.id}: {row.status} is out of the sweep's sight"
        assert (row.status is _S.NEEDS_REVIEW) <= (row.dead_at is not None), f"{row.id}: no human hears of it"


class MemoryOperationStore:
    """`okane.store.OperationStore` over OperationTables."""

    def __init__(
        self,
        tables: OperationTables,
        *,
        actor: str,
        lease: timedelta,
        grace: timedelta,
        late_look_ups: Sequence[timedelta],
        new_id: Callable[[], UUID] | None = None,
    ) -> None:
        self._tables = tables
        self._db = tables.db
        self._actor = actor
        self._lease = lease
        self._grace = grace
        self._late_look_ups = late_look_ups
        self._new_id = new_id or tables.db.new_id
        self.usable_providers: Callable[[], Sequence[UsableProvider]] = lambda: ONLY_HTTP

    async def aclose(self) -> None:
        """Nothing to close."""

    # Requests

    async def request(self, new: NewOperation, *, actor: str | None = None) -> RequestedOperation:
        """Reserve what the operation moves, and write it; or return the one that its key has made."""
        payment = self._db.payments.get(new.payment_id)
        account_id = new.account_id or (None if payment is None else payment.account_id)
        found = None if account_id is None else self._tables.by_key.get((account_id, new.idempotency_key))
        if found is not None:
            row, fingerprint = found
            if fingerprint != new.fingerprint:
                raise IdempotencyKeyReused(row.id, what=row.kind)
            return RequestedOperation(row.operation(), created=False)
        if payment is None or account_id != payment.account_id:
            raise PaymentNotFound(str(new.payment_id))
        amount_minor = self._reserve(payment, new)
        row = self._insert(
            payment, new.kind, amount_minor, new.idempotency_key, actor=actor or self._actor, reason=new.reason
        )
        row.metadata = dict(new.metadata)
        self._tables.by_key[payment.account_id, new.idempotency_key] = row, new.fingerprint
        return RequestedOperation(row.operation(), created=True)

    async def void_expired(self, payment_id: UUID, *, is_over: bool = False) -> Operation | None:
        """Request the void of a payment whose authorization is about to end, or has ended."""
        payment, now = self._db.payments.get(payment_id), self._db.now()
        if payment is None or payment.status is not Status.AUTHORIZED or payment.open_operation is not None:
            return None
        if not is_over and (payment.capture_before is None or _void_at(payment) > now):
            return None
        row = self._insert(
            payment,
            OperationKind.VOID,
            payment.amount_minor,
            None,
            actor=self._actor,
            reason="the provider holds the money no longer" if is_over else "the authorization ends",
        )
        return row.operation()

    def _reserve(self, payment: PaymentRow, new: NewOperation) -> int:
        """Return the amount of a new operation. Raises OperationRefused."""
        if new.currency not in (None, payment.currency):
            raise OperationRefused("currency_mismatch", "another currency")
        if new.kind is OperationKind.REFUND:
            if payment.status is not Status.SUCCESS or payment.provider is None:
                raise OperationRefused("payment_not_captured", "no money has moved")
            captured = payment.amount_minor if payment.amount_captured is None else payment.amount_captured
            left = self._left(captured, payment.refund_reserved or 0)
            amount = left if new.amount_minor is None else new.amount_minor
            if left <= 0 or amount > left:
                raise OperationRefused("refund_exceeds_captured", "more than is left", max(0, left))
            return amount
        if payment.status is not Status.AUTHORIZED:
            raise OperationRefused("payment_not_authorized", "no money is held")
        if payment.open_operation is not None:
            raise OperationRefused("operation_in_progress", "another one is under way")
        if new.amount_minor is not None and new.amount_minor > payment.amount_minor:
            raise OperationRefused("capture_exceeds_authorized", "more than is held", payment.amount_minor)
        return payment.amount_minor if new.amount_minor is None else new.amount_minor

    def _left(self, captured: int, reserved: int) -> int:
        """Return what a new refund may take."""
        return captured - reserved

    def _insert(
        self,
        payment: PaymentRow,
        kind: OperationKind,
        amount_minor: int,
        key: str | None,
        *,
        actor: str,
        reason: str | None,
    ) -> OperationRow:
        now, operation_id = self._db.now(), self._new_id()
        assert payment.provider is not None
        row = OperationRow(
            id=operation_id,
            payment_id=payment.id,
            account_id=payment.account_id,
            kind=kind,
            idempotency_key=key,
            amount_minor=amount_minor,
            currency=payment.currency,
            provider=payment.provider,
            provider_key=str(operation_id),
            created_at=now,
            updated_at=now,
            sweep_at=now + self._grace,
            reason=reason,
        )
        assert operation_id not in self._tables.rows, f"{operation_id} was given twice"
        self._tables.rows[operation_id] = row
        self._tables.events[operation_id] = []
        if kind is OperationKind.REFUND:
            payment.refund_reserved = (payment.refund_reserved or 0) + amount_minor
        else:
            payment.open_operation = operation_id
        self._tables.tell(row, f"{kind}_requested", payment.status, actor=actor, reason=reason)
        self._tables.check(row)
        return row

    # Claims and outcomes

    async def claim(self, operation_id: UUID) -> OperationClaim | OperationRefusal:
        """Take the sole right to call the provider for an operation, for the length of the lease."""
        valid_until_s = time.monotonic() + self._lease.total_seconds()
        row, now = self._tables.rows.get(operation_id), self._db.now()
        if row is None:
            return OperationRefusal(None, timedelta(0))
        usable = self._is_usable(row.provider, now)  # once: a half-open provider is offered to one claim
        if not _claimable(row, now) or not usable:
            return self._refuse(row, now, usable=usable)
        before = row.status
        row.attempts += 1
        row.retries += before is _S.PROCESSING
        row.look_up_first = before in OPEN or row.provider_ref is not None
        row.open_since = (row.open_since or row.called_at) if before in (_S.PROCESSING, _S.UNKNOWN) else None
        if before is _S.PROCESSING:
            row.called_at = row.lease_until
        elif before not in (_S.UNKNOWN, _S.SUBMITTED):
            row.called_at = now
        self._lend(row, now)
        self._tables.change(row, _S.PROCESSING, "claimed", actor=self._actor)
        return OperationClaim(
            operation=row.operation(),
            payment=self._db.payments[row.payment_id].payment(),
            look_up_first=row.look_up_first,
            look_ups=row.look_ups,
            since_call_s=_seconds_since(row.called_at, now),
            open_s=_seconds_since(row.open_since, now),
            valid_until_s=valid_until_s,
            pending_s=None if row.pending_since is None else _seconds_since(row.pending_since, now),
            key_age_s=self._key_age_s(row, now),
        )

    async def settle(self, settlement: OperationSettlement) -> timedelta | None:
        """Write an outcome under its attempt. The operation's age, or None if the attempt has lost it meanwhile."""
        row = self._tables.rows.get(settlement.operation_id)
        if row is None:
            return None
        # Another attempt's success was recorded meanwhile: its reservation must not be given back.
        moved = row.pending_since is None and row.provider_ref not in (None, settlement.provider_ref)
        if self._holds(row, settlement.attempt) and not (moved and settlement.status is _S.FAILED_FINAL):
            self._write(row, settlement)
            return self._db.now() - row.created_at
        if row.attempts == settlement.attempt and row.status is settlement.status:
            return row.updated_at - row.created_at
        return None

    async def renew(self, operation_id: UUID, attempt: int) -> bool:
        """Lengthen the lease of this attempt. False if it has lost the operation."""
        row = self._tables.rows.get(operation_id)
        if row is None or not self._holds(row, attempt):
            return False
        self._lend(row, self._db.now())
        return True

    async def record_late(self, settlement: OperationSettlement, *, once: bool = False) -> OperationStatus | None:
        """Keep an outcome that came after the operation was lost or closed. Its status afterwards."""
        row = self._tables.rows.get(settlement.operation_id)
        if row is None:
            return None
        approved = settlement.status is _S.SUCCESS
        reason = f"late {settlement.event}" + (f": {settlement.reason}" if settlement.reason else "")
        before = becomes = row.status
        if approved and before in GAVE_BACK:
            becomes, row.decline_code = _S.NEEDS_REVIEW, None
        elif (
            once and settlement.status is _S.FAILED_FINAL and before is _S.SUCCESS and row.kind is OperationKind.REFUND
        ):
            becomes = _S.FAILED_FINAL
            row.decline_code = settlement.decline_code
        if once and becomes is before and row.provider_ref == settlement.provider_ref:
            return before
        if approved:
            row.provider_ref = row.provider_ref or settlement.provider_ref
        if becomes is not before:
            row.last_error, row.sweep_at = reason, None
        if approved and becomes is _S.NEEDS_REVIEW:
            row.dead_at = self._db.now()
        self._tables.change(
            row,
            becomes,
            "late_result",
            actor=self._actor,
            attempt=settlement.attempt,
            reason=reason,
            provider=settlement.provider,
            latency_ms=_ms(settlement.latency),
            call=settlement.call,
            decline_code=settlement.decline_code,
        )
        if becomes is not before:
            self._close(row, before, reason)
        return row.status

    def _write(self, row: OperationRow, settlement: OperationSettlement) -> None:
        """Write the outcome of the attempt that holds the row, and with a final one its payment."""
        now, status, before = self._db.now(), settlement.status, row.status
        delay = None if settlement.delay is None else timedelta(milliseconds=_ms(settlement.delay))
        row.retries += settlement.event == "unavailable"
        row.look_ups = row.look_ups + 1 if status in (_S.UNKNOWN, _S.SUBMITTED) else 0
        row.pending_since = (row.pending_since or now) if status is _S.SUBMITTED else None
        row.provider_ref = row.provider_ref if settlement.provider_ref is None else settlement.provider_ref
        row.decline_code = settlement.decline_code
        row.last_error = settlement.reason
        still_open = status in (_S.UNKNOWN, _S.NEEDS_REVIEW)
        row.open_since = (row.open_since or row.called_at) if still_open else None
        row.called_at = now if settlement.call == "operate" else row.called_at
        row.lease_until = None
        row.retry_at = None if delay is None else now + delay
        row.sweep_at = None if delay is None else now + delay + self._grace
        row.sweeps = 0
        row.dead_at = now if settlement.event == "spent" or status is _S.NEEDS_REVIEW else None
        if status is _S.FAILED_FINAL:
            row.sweep_at = self._late_look_up(row, ends=1)
        self._tables.change(
            row,
            status,
            settlement.event,
            actor=self._actor,
            reason=settlement.reason,
            provider=settlement.provider,
            latency_ms=_ms(settlement.latency),
            call=settlement.call,
            decline_code=settlement.decline_code,
        )
        if status in (_S.SUCCESS, *GAVE_BACK):
            self._close(row, before, settlement.reason)

    def _close(
        self, row: OperationRow, before: OperationStatus, reason: str | None, *, actor: str | None = None
    ) -> None:
        """Write what the end of an operation, or its reopening, does to its payment."""
        payment = self._db.payments[row.payment_id]
        status, word = self._end_of(row, payment)
        if row.kind is OperationKind.REFUND:
            self._move_refund(payment, row, before)
        elif row.status is _S.NEEDS_REVIEW:
            if payment.status is Status.AUTHORIZED:
                payment.open_operation = payment.open_operation or row.id
        elif payment.open_operation == row.id:
            payment.open_operation = self._other_open(row)
        if row.kind is OperationKind.CAPTURE and row.status is _S.SUCCESS:
            payment.amount_captured = row.amount_minor
            payment.provider_ref = row.provider_ref or payment.attempt_ref or payment.provider_ref
        if status is not payment.status:
            payment.sweep_at = None
            if status is Status.NEEDS_REVIEW:
                payment.last_error, payment.dead_at = reason, self._db.now()
        self._tables.tell(row, word, status, actor=actor or self._actor, reason=reason)

    def _other_open(self, row: OperationRow) -> UUID | None:
        """Return an earlier capture or void of the payment that was found to have moved money, and waits for a review."""
        ended = (_S.SUCCESS, *GAVE_BACK)
        others = (one for one in self._tables.of_payment(row.payment_id) if one.id != row.id)
        waiting = (one for one in others if one.kind is not OperationKind.REFUND and one.status not in ended)
        return next((one.id for one in waiting), None)

    def _end_of(self, row: OperationRow, payment: PaymentRow) -> tuple[Status, str]:
        """Return the status of a payment after the end of its operation, and the event that tells it."""
        held, expiry = payment.status is Status.AUTHORIZED, row.idempotency_key is None
        match row.status:
            case _S.SUCCESS:
                leads_to = {OperationKind.CAPTURE: Status.SUCCESS, OperationKind.VOID: Status.CANCELED}
                if row.kind is OperationKind.CAPTURE and payment.status is Status.CANCELED:
                    return Status.NEEDS_REVIEW, SUCCEEDED[row.kind]
                return leads_to.get(row.kind, payment.status) if held else payment.status, SUCCEEDED[row.kind]
            case _S.FAILED_FINAL if expiry:  # the authorization may last: a human must look at it
                return Status.NEEDS_REVIEW if held else payment.status, "needs_review"
            case _S.FAILED_FINAL:
                return payment.status, f"{row.kind}_failed"
            case _S.CANCELED:
                return payment.status, f"{row.kind}_canceled"
            case _:
                late = row.kind is OperationKind.CAPTURE and payment.status is Status.CANCELED
                return Status.NEEDS_REVIEW if late else payment.status, "late_result"

    def _move_refund(self, payment: PaymentRow, row: OperationRow, before: OperationStatus) -> None:
        """Count a refund, give its reservation back, or take it again."""
        if row.status is _S.SUCCESS:
            payment.amount_refunded = (payment.amount_refunded or 0) + row.amount_minor
        elif row.status is _S.NEEDS_REVIEW:
            payment.refund_reserved = (payment.refund_reserved or 0) + row.amount_minor
        else:
            self._give_back(payment, row)
            if before is _S.SUCCESS:
                payment.amount_refunded = (payment.amount_refunded or 0) - row.amount_minor

    def _give_back(self, payment: PaymentRow, row: OperationRow) -> None:
        payment.refund_reserved = (payment.refund_reserved or 0) - row.amount_minor
        assert payment.refund_reserved >= 0, f"{payment.id} gives back more than was reserved"

    # Humans, and what else closes an operation

    async def bury(self, operation_id: UUID, *, reason: str) -> bool:
        """Hand an open operation to a human. False if it is settled, in a live claim, or unknown here."""
        row, now = self._tables.rows.get(operation_id), self._db.now()
        if row is None or not (row.status in (_S.PENDING, *DELAYED) or _lease_ran_out(row, now)):
            return False
        row.last_error = reason
        row.lease_until = row.retry_at = row.sweep_at = None
        row.dead_at = now
        self._tables.change(row, _S.NEEDS_REVIEW, "needs_review", actor=self._actor, reason=reason)
        return True

    async def cancel(
        self, operation_id: UUID, *, account_id: str | None, actor: str, version: int | None = None
    ) -> Operation:
        """Withdraw an operation that is not being executed, and whose outcome is known; one that is canceled stays so."""
        row = self._find(operation_id, account_id)
        if row.status is _S.CANCELED:
            return row.operation()
        is_refund = row.kind is OperationKind.REFUND
        done = not is_refund or row.provider_ref is not None
        if done or row.status not in CANCELABLE or version not in (None, row.version):
            raise _conflict(row, "canceled", CANCELABLE if is_refund else (), version)
        before = row.status
        row.retry_at = None
        row.sweep_at = self._late_look_up(row)
        row.sweeps = 0
        self._tables.change(row, _S.CANCELED, "canceled", actor=actor)
        self._close(row, before, None, actor=actor)
        return row.operation()

    async def retry(
        self, operation_id: UUID, *, account_id: str | None, actor: str, version: int | None = None
    ) -> Operation:
        """Make a failed operation pending again, and reserve again what a final failure gave back."""
        row, now = self._find(operation_id, account_id), self._db.now()
        retryable = row.status is _S.FAILED_RETRYABLE or self._is_unmoved_failure(row)
        if not retryable or version not in (None, row.version):
            raise _conflict(row, "retried", RETRYABLE, version)
        was_final = row.status is _S.FAILED_FINAL
        if was_final:
            self._reserve_again(row)
        if row.decline_code is not None:
            row.provider_key, row.provider_ref = f"{row.id}:{row.version + 1}", None
        row.retries = row.look_ups = row.sweeps = 0
        row.decline_code = row.last_error = None
        row.open_since = row.retry_at = row.dead_at = None
        row.sweep_at = now + self._grace
        self._tables.change(row, _S.PENDING, "retried", actor=actor)
        if was_final:
            self._tables.tell(row, f"{row.kind}_requested", self._db.payments[row.payment_id].status, actor=actor)
        return row.operation()

    def _is_unmoved_failure(self, row: OperationRow) -> bool:
        """Return True if an operation has failed, and nothing says that its money has moved."""
        return row.status is _S.FAILED_FINAL and (row.provider_ref is None or row.decline_code is not None)

    def _reserve_again(self, row: OperationRow) -> None:
        """Reserve what an operation moves that had failed for good. Raises OperationRefused if there is no room for it."""
        payment = self._db.payments[row.payment_id]
        if row.kind is OperationKind.REFUND:
            captured = payment.amount_minor if payment.amount_captured is None else payment.amount_captured
            left = self._left(captured, payment.refund_reserved or 0)
            if payment.status is not Status.SUCCESS:
                raise OperationRefused("payment_not_captured", "no money has moved")
            if left < row.amount_minor:
                raise OperationRefused("refund_exceeds_captured", "more than is left", max(0, left))
            payment.refund_reserved = (payment.refund_reserved or 0) + row.amount_minor
            return
        if payment.status is not Status.AUTHORIZED:
            raise OperationRefused("payment_not_authorized", "no money is held")
        if payment.open_operation is not None:
            raise OperationRefused("operation_in_progress", "another one is under way")
        payment.open_operation = row.id

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
        """Decide an operation that needs a review; the same decision again changes nothing."""
        row = self._find(operation_id, account_id)
        if row.status is not _S.NEEDS_REVIEW or version not in (None, row.version):
            last = [one.event for one in self._tables.events[row.id] if one.event != "late_result"][-1:]
            if row.status is decision and last == ["resolved"]:
                return row.operation()
            raise _conflict(row, "resolved", {_S.NEEDS_REVIEW}, version)
        row.look_ups = row.sweeps = 0
        row.provider_ref = row.provider_ref if provider_ref is None else provider_ref
        failed = decision is _S.FAILED_FINAL
        row.decline_code = row.decline_code if failed else None
        row.last_error = reason if failed else None
        row.open_since = row.retry_at = row.dead_at = None
        row.sweep_at = self._late_look_up(row) if failed and row.provider_ref is None else None
        self._tables.change(row, decision, "resolved", actor=actor, reason=reason)
        self._close(row, _S.NEEDS_REVIEW, reason, actor=actor)
        return row.operation()

    def _find(self, operation_id: UUID, account_id: str | None) -> OperationRow:
        row = self._tables.rows.get(operation_id)
        if row is None or account_id not in (None, row.account_id):
            raise OperationNotFound(str(operation_id))
        return row

    async def get(self, operation_id: UUID, *, account_id: str | None = None) -> Operation:
        """The operation as it is now. Raises OperationNotFound, also for another account's."""
        return self._find(operation_id, account_id).operation()

    async def events(self, operation_id: UUID) -> Sequence[OperationEvent]:
        """The timeline of an operation, its request first; empty if there is none."""
        row = self._tables.rows.get(operation_id)
        if row is None:
            return []
        [asked, *_] = (one for one in self._db.events[row.payment_id] if one.operation_id == row.id)
        first = OperationEvent(
            row.id, 0, row.created_at, "requested", _S.PENDING, 0, asked.actor, row.reason, None, None
        )
        return [first, *self._tables.events[row.id]]

    # Late look-ups, and the sweep

    async def begin_late_look_up(self, operation_id: UUID, *, again: Sequence[timedelta]) -> LateOperationLookUp | None:
        """Begin the look-up of a closed operation that the sweep has sent; None if it is not for us to do."""
        row, now = self._tables.rows.get(operation_id), self._db.now()
        if row is None or not _look_up_late(row):
            return None
        row.look_ups += 1
        row.open_since = row.open_since or now
        row.sweep_at = now + again[min(row.look_ups, len(again)) - 1]
        row.sweeps = 0
        payment = self._db.payments[row.payment_id].payment()
        return LateOperationLookUp(row.operation(), payment, _seconds_since(row.open_since, now), now)

    async def plan_late_look_up(self, operation: Operation, *, begun_at: datetime) -> None:
        """Plan the next look-up of a closed operation, or none if that was the last. Nothing, if it has changed."""
        row = self._tables.rows.get(operation.id)
        if row is None or row.version != operation.version or row.sweep_at is None:
            return
        if row.status not in (_S.SUCCESS, *GAVE_BACK):
            return
        row.look_ups = 0
        row.open_since = None
        if row.sweep_at > self._db.now() and not row.sweeps:  # else a notice came during the look-up
            times = (row.updated_at + delay for delay in self._late_look_ups if row.status in GAVE_BACK)
            row.sweep_at = min((at for at in times if at > begun_at), default=None)

    async def fail_late_look_up(self, operation: Operation, *, reason: str) -> bool:
        """Hand a closed operation to a human, whose look-up was not answered for too long. False if it has changed."""
        row = self._tables.rows.get(operation.id)
        if row is None or row.version != operation.version or row.status not in GAVE_BACK:
            return False
        row.last_error, row.sweep_at, row.dead_at = reason, None, self._db.now()
        before = row.status
        self._tables.change(row, _S.NEEDS_REVIEW, "unanswered", actor=self._actor, reason=reason)
        self._close(row, before, reason)
        return True

    async def due(
        self, lanes: Mapping[str, timedelta | None], *, limit: int, by_retry_at: bool = False
    ) -> Sequence[OperationWakeUp]:
        """Take up to `limit` overdue operations of these lanes, each pushed back by the grace and its lane's age."""
        now = self._db.now()

        def is_due(row: OperationRow, at: datetime) -> bool:
            early = by_retry_at and at <= now + self._grace and row.status in DELAYED and row.sweeps == 0
            return at <= now or (early and row.retry_at is not None and row.retry_at <= now)

        waiting = [(row.sweep_at, row) for row in self._tables.rows.values() if row.sweep_at is not None]
        due = [row for at, row in sorted(waiting, key=lambda one: one[0]) if is_due(row, at) and row.kind in lanes]
        woken = []
        for row in due[:limit]:
            in_work = row.lease_until is not None and row.lease_until > now
            row.sweep_at = max(now, row.lease_until or now) + self._grace
            row.sweep_at += min(lanes[row.kind] or timedelta(0), LONGEST_QUEUE)
            row.sweeps += not in_work
            if not in_work:
                woken.append(OperationWakeUp(row.id, row.kind, row.status.is_at_rest))
        return woken

    # Rules

    def _refuse(self, row: OperationRow, now: datetime, *, usable: bool) -> OperationRefusal:
        """Refuse a claim. An operation that is due, and only lacks its provider, is postponed."""
        until = row.lease_until if row.status is _S.PROCESSING else row.retry_at
        spent = None
        if row.status is _S.FAILED_FINAL and row.decline_code is None:
            spent = "spent" if row.last_error is None else row.last_error
        wait = max(timedelta(0), (until or now) - now)
        without = not usable and not row.status.is_at_rest
        if without and not wait:
            wait = self._postpone(row, now)
        return OperationRefusal(row.status, wait, spent, _look_up_late(row), without)

    def _postpone(self, row: OperationRow, now: datetime) -> timedelta:
        provider = self._db.providers.get(row.provider, ProviderRow())
        wait_s = SWITCHED_WAIT_S if provider.mode == "off" else NO_PROVIDER_WAIT_S
        if provider.open_until is not None and provider.open_until > now:
            wait_s = (provider.open_until - now).total_seconds()
        wait = timedelta(seconds=min(max(wait_s, 1.0), 60.0))
        row.sweep_at = now + wait + self._grace
        return wait

    def _is_usable(self, name: str, now: datetime) -> bool:
        row = self._db.providers.get(name, ProviderRow())
        offered = any(one.name == name for one in self.usable_providers())
        return offered and row.mode != "off" and (row.open_until is None or row.open_until <= now)

    def _holds(self, row: OperationRow, attempt: int) -> bool:
        """The fence: whether this attempt still holds the operation."""
        return row.attempts == attempt and row.status is _S.PROCESSING

    def _lend(self, row: OperationRow, now: datetime) -> None:
        row.lease_until = now + self._lease

    def _late_look_up(self, row: OperationRow, *, ends: int = 0) -> datetime | None:
        """When an operation that is being closed is first looked up again; None if no call of it can be on its way."""
        ended = ends + sum(
            one.event in ("unavailable", "deferred", "pending", "declined", "spent")
            for one in self._tables.events[row.id]
        )
        return None if ended >= row.attempts else self._db.now() + min(self._late_look_ups)

    def _key_age_s(self, row: OperationRow, now: datetime) -> float:
        made_at = int(row.provider_key.partition(":")[2] or 0)
        timeline = self._tables.events[row.id][:-1]
        claims = [one.at for one in timeline if one.event == "claimed" and one.version > made_at]
        return _seconds_since(min(claims, default=None), now)


def _conflict(
    row: OperationRow, action: str, allowed: Collection[OperationStatus], version: int | None
) -> StatusConflict:
    """Return the error for an action on an operation as it is now, that was decided by this version of it."""
    if version is not None and version != row.version and row.status in allowed:
        return VersionConflict(row.status, action, seen=version, version=row.version, what=row.kind)
    return StatusConflict(row.status, action, what=row.kind)


def _void_at(payment: PaymentRow) -> datetime:
    """Return when okane voids an authorization that nobody has captured."""
    assert payment.capture_before is not None
    called_at = payment.called_at or payment.created_at
    return payment.capture_before - min(timedelta(minutes=5), (payment.capture_before - called_at) / 10)


def _look_up_late(row: OperationRow) -> bool:
    return row.status in (*GAVE_BACK, _S.SUCCESS) and row.sweep_at is not None and row.sweeps > 0


def _claimable(row: OperationRow, now: datetime) -> bool:
    if row.status is _S.PENDING:
        return True
    if row.status in DELAYED:
        return row.retry_at is not None and row.retry_at <= now
    return _lease_ran_out(row, now)


def _lease_ran_out(row: OperationRow, now: datetime) -> bool:
    return row.status is _S.PROCESSING and row.lease_until is not None and row.lease_until <= now


def _seconds_since(then: datetime | None, now: datetime) -> float:
    return 0.0 if then is None else (now - then).total_seconds()


def _ms(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1000)
