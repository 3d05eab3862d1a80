"""An exact model of okane.store in memory: the same methods, the same answers, a clock of its own.

Every statement of the real store is one method here, which takes effect at once and never suspends; its caller models lost
requests and answers. `test_store.py` compares the model with the real store. Every write asserts that its transition is in
`okane.payment.TRANSITIONS`, and that the row it leaves is due again some time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg

from okane.errors import IdempotencyKeyReused, PaymentNotFound, StatusConflict, TimeOutOfRange
from okane.payment import (
    CANCELABLE,
    CLOSED_UNCHARGED,
    LATE_LOOK_UPS,
    MAX_SCHEDULE_AHEAD,
    RARE_STATUSES,
    TRANSITIONS,
    NextAction,
    Payment,
    Status,
)
from okane.store import (
    AcceptedRow,
    Claim,
    ClaimRefusal,
    Decision,
    Event,
    LateLookUp,
    NewPayment,
    Settlement,
    UsableProvider,
    WakeUp,
)
from okane.store.claims import NO_PROVIDER_WAIT_S, ONLY_HTTP, SWITCHED_WAIT_S
from okane.store.rare_transitions import conflict
from okane.store.sweep import ALL_LANES, LONGEST_QUEUE, WINDOW, AuthorizationPlace, MarkResult, PlannedPage

FAILED = (Status.FAILED_FINAL, Status.FAILED_RETRYABLE)
AWAITING = (Status.REQUIRES_ACTION, Status.SUBMITTED)
OPEN = (Status.PROCESSING, Status.UNKNOWN, *AWAITING)
DELAYED = (Status.FAILED_RETRYABLE, Status.UNKNOWN, *AWAITING)
ENDED = (
    "unavailable",
    "deferred",
    "pending",
    "declined",
    "spent",
    "fell_back",
)  # attempts that leave no call on its way
ON_PATH = (Status.PENDING, Status.PROCESSING)


@dataclass(slots=True, eq=False)
class PaymentRow:
    """A row of `payments`, column by column as in schema.sql."""

    id: UUID
    account_id: str
    idempotency_key: str
    fingerprint: bytes
    amount_minor: int
    currency: str
    metadata: dict[str, str]
    lane: str
    provider_key: str
    created_at: datetime
    updated_at: datetime
    status: Status = Status.PENDING
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
    retry_at: datetime | None = None
    sweep_at: datetime | None = None
    sweeps: int = 0
    dead_at: datetime | None = None
    execute_at: datetime | None = None
    expires_at: datetime | None = None
    rare_status: Status | None = None
    provider: str | None = None
    pinned: bool | None = None
    requested_provider: str | None = None
    attempt_ref: str | None = None
    pending_since: datetime | None = None
    next_action: dict[str, str] | None = None
    payment_method: str | None = None
    return_url: str | None = None
    manual_capture: bool | None = None
    capture_before: datetime | None = None
    amount_captured: int | None = None
    amount_refunded: int | None = None
    refund_reserved: int | None = None
    open_operation: UUID | None = None
    candidates: list[str] | None = None
    soft_fallback: bool | None = None

    @property
    def is_pinned(self) -> bool:
        """True if a call to its provider may have been executed."""
        known = self.pinned or self.status in OPEN or self.provider_ref or self.attempt_ref
        return bool(known or (self.attempts > 0 and self.provider is None))

    def payment(self) -> Payment:
        """The row as the other layers see it."""
        return Payment(
            id=self.id,
            account_id=self.account_id,
            idempotency_key=self.idempotency_key,
            amount_minor=self.amount_minor,
            currency=self.currency,
            lane=self.lane,
            status=self.status,
            attempts=self.attempts,
            retries=self.retries,
            version=self.version,
            provider_key=self.provider_key,
            created_at=self.created_at,
            updated_at=self.updated_at,
            metadata=dict(self.metadata),
            provider_ref=self.provider_ref,
            decline_code=self.decline_code,
            last_error=self.last_error,
            retry_at=self.retry_at,
            execute_at=self.execute_at,
            expires_at=self.expires_at,
            provider=self.provider,
            attempt_ref=self.attempt_ref,
            next_action=None if self.next_action is None else NextAction(self.next_action["url"]),
            payment_method=self.payment_method,
            return_url=self.return_url,
            manual_capture=self.manual_capture,
            capture_before=self.capture_before,
            amount_captured=self.amount_captured,
            amount_refunded=self.amount_refunded,
            refund_reserved=self.refund_reserved,
            open_operation=self.open_operation,
            candidates=self.candidates,
            soft_fallback=self.soft_fallback,
        )


@dataclass(slots=True, eq=False)
class ProviderRow:
    """A row of `providers`, as far as claims and the watch of a worker read it."""

    mode: str = "on"
    open_until: datetime | None = None
    open_count: int = 0
    suspected_by: str | None = None
    suspected_at: datetime | None = None


@dataclass(slots=True, eq=False)
class StoredNotice:
    """A row of `provider_events`, without its key."""

    payment_id: UUID | None
    provider_ref: str | None
    received_at: datetime
    done_at: datetime | None


@dataclass(slots=True, eq=False)
class Horizon:
    """The row of `sweep_horizon`. Nothing here is ever in the middle of a transaction, so every look proves the last one."""

    seen_at: datetime
    proven_at: datetime | None = None  # None is Postgres's -infinity


@dataclass(slots=True, eq=False)
class MemoryDatabase:
    """The tables. `clock` returns the seconds since the epoch."""

    clock: Callable[[], float]
    payments: dict[UUID, PaymentRow] = field(default_factory=dict)
    by_key: dict[tuple[str, str], PaymentRow] = field(default_factory=dict)
    events: dict[UUID, list[Event]] = field(default_factory=dict)
    sweep_cursors: dict[str, UUID] = field(default_factory=dict)
    providers: dict[str, ProviderRow] = field(default_factory=dict)
    notices: dict[tuple[str, str], StoredNotice] = field(default_factory=dict)
    # The provider of each claim, by payment and attempt, for the audit: the table of events keeps that of outcomes.
    claimed_for: dict[tuple[UUID, int], str] = field(default_factory=dict)
    horizon: Horizon = field(init=False)
    _ids_made: int = 0

    def __post_init__(self) -> None:
        self.horizon = Horizon(seen_at=self.now())

    def now(self) -> datetime:
        """Return the database's now()."""
        return datetime.fromtimestamp(self.clock(), UTC)

    def new_id(self) -> UUID:
        """Return a uuid v7 of this moment; the same ones in every run."""
        self._ids_made += 1
        return UUID(int=int(self.clock() * 1000) << 80 | 7 << 76 | 2 << 62 | self._ids_made)

    def change(
        self,
        row: PaymentRow,
        status: Status,
        event: str,
        *,
        actor: str,
        attempt: int | None = None,
        reason: str | None = None,
        provider: str | None = None,
        latency_ms: int | None = None,
        call: str | None = None,
        decline_code: str | None = None,
    ) -> None:
        """Write a change of a payment: an allowed status, the next version, and its event."""
        stays = event == "late_result" and status is row.status
        assert stays or status in TRANSITIONS[row.status], f"{row.id}: {row.status} must not become {status} ({event})"
        row.status = status
        row.rare_status = status if status in RARE_STATUSES else None
        row.version += 1
        row.updated_at = self.now()
        timeline = self.events[row.id]
        assert row.version == len(timeline) + 1, f"{row.id}: a gap before version {row.version}"
        timeline.append(
            Event(
                payment_id=row.id,
                version=row.version,
                at=row.updated_at,
                event=event,
                status=status,
                attempt=row.attempts if attempt is None else attempt,
                actor=actor,
                reason=reason,
                provider=provider,
                latency_ms=latency_ms,
                call=call,
                decline_code=decline_code,
            )
        )
        self.check(row)

    def check(self, row: PaymentRow) -> None:
        """Assert the invariants of a row after a write."""
        assert (row.lease_until is not None) == (row.status is Status.PROCESSING), f"{row.id}: a lease and no claim"
        assert row.retry_at is not None or row.status not in DELAYED, f"{row.id}: {row.status} for ever"
        assert row.sweep_at is not None or row.status not in DELAYED, (
            f"{row.id}: {row.status} is out of the sweep's sight"
        )
        waits = row.status is Status.PENDING and row.execute_at is not None
        assert row.sweep_at is not None or not waits, f"{row.id}: scheduled, and out of the sweep's sight"
        swept = row.sweep_at is not None
        assert not swept or row.status in CLOSED_UNCHARGED or not row.status.is_at_rest, (
            f"{row.id}: {row.status} is still swept"
        )
        assert (row.status is Status.NEEDS_REVIEW) <= (row.dead_at is not None), f"{row.id}: no human hears of it"


class MemoryPaymentStore:
    """`okane.store.PaymentStore` over a MemoryDatabase."""

    def __init__(
        self,
        db: MemoryDatabase,
        *,
        actor: str,
        lease: timedelta,
        grace: timedelta,
        late_look_ups: Sequence[timedelta] = LATE_LOOK_UPS,
        new_id: Callable[[], UUID] | None = None,
    ) -> None:
        self._db = db
        self._actor = actor
        self._lease = lease
        self._grace = grace
        self._late_look_ups = late_look_ups
        self._new_id = new_id or db.new_id
        self.usable_providers: Callable[[], Sequence[UsableProvider]] = lambda: ONLY_HTTP

    async def aclose(self) -> None:
        """Nothing to close."""

    def _accept(self, new: NewPayment, *, wake: bool) -> AcceptedRow:
        in_time = all(self._in_time(moment) for moment in (new.execute_at, new.expires_at))
        if in_time:  # else it is not even tried to be written
            _check_columns(new)
        found = self._db.by_key.get((new.account_id, new.idempotency_key))
        if found is None and not in_time:
            raise TimeOutOfRange(self._db.now())
        row = found or self._insert(new, wake=wake)
        if row.fingerprint != new.fingerprint:
            raise IdempotencyKeyReused(row.id)
        return AcceptedRow(row.payment(), created=found is None)

    async def accept_many(self, news: Sequence[NewPayment], *, wakes: int) -> Sequence[AcceptedRow | BaseException]:
        """Write these payments, or find those that their keys have already made."""
        answers: list[AcceptedRow | BaseException] = []
        for number, new in enumerate(news):
            try:
                answers.append(self._accept(new, wake=number < wakes))
            except (IdempotencyKeyReused, TimeOutOfRange, psycopg.Error) as error:
                answers.append(error)
        return answers

    async def find(self, new: NewPayment) -> Payment | None:
        """The payment that this key has made, if it has; writes nothing. Raises IdempotencyKeyReused."""
        row = self._db.by_key.get((new.account_id, new.idempotency_key))
        if row is None:
            return None
        if row.fingerprint != new.fingerprint:
            raise IdempotencyKeyReused(row.id)
        return row.payment()

    async def get(self, payment_id: UUID, *, account_id: str) -> Payment:
        """The payment as it is now. Raises PaymentNotFound, also for another account's."""
        row = self._db.payments.get(payment_id)
        if row is None or row.account_id != account_id:
            raise PaymentNotFound(str(payment_id))
        return row.payment()

    async def claim(self, payment_id: UUID) -> Claim | ClaimRefusal:
        """Take the sole right to call the provider for a payment, for the length of the lease."""
        valid_until_s = time.monotonic() + self._lease.total_seconds()
        now = self._db.now()
        row = self._db.payments.get(payment_id)
        if row is None:
            return ClaimRefusal(None, timedelta(0))
        offered = self.usable_providers()  # once: a half-open provider is offered to one claim
        usable = self._usable(offered, now)
        provider = self._provider_for(row, usable, defaults=[one.name for one in offered if one.is_default])
        if not _claimable(row, now) or provider is None:
            return self._refuse(row, now, without=provider is None)
        self._take(row, now, provider)
        return Claim(
            payment=row.payment(),
            look_up_first=row.look_up_first,
            look_ups=row.look_ups,
            since_call_s=_seconds_since(row.called_at, now),
            open_s=_seconds_since(row.open_since, now),
            valid_until_s=valid_until_s,
            expired=row.expires_at is not None and row.expires_at <= now,
            pending_s=None if row.pending_since is None else _seconds_since(row.pending_since, now),
            key_age_s=self._key_age_s(row, now),
            may_charge=usable[provider] if row.look_up_first else True,
        )

    async def settle(self, settlement: Settlement) -> timedelta | None:
        """Write an outcome under its attempt. The payment's age, or None if the attempt has lost the payment meanwhile."""
        row = self._db.payments.get(settlement.payment_id)
        if row is None:
            return None
        paid = settlement.status is Status.FAILED_FINAL and row.provider_ref is not None
        if self._holds(row, settlement.attempt) and not paid:
            self._write(row, settlement)
            return self._db.now() - row.created_at
        # A repeat whose first try was applied without our hearing of it.
        if row.attempts == settlement.attempt and row.status is settlement.status:
            return row.updated_at - row.created_at
        return None

    async def renew(self, payment_id: UUID, attempt: int) -> bool:
        """Lengthen the lease of this attempt. False if it has lost the payment."""
        row = self._db.payments.get(payment_id)
        if row is None or not self._holds(row, attempt):
            return False
        self._lend(row, self._db.now())
        return True

    async def record_late(self, settlement: Settlement, *, once: bool = False) -> Status | None:
        """Keep an outcome whose attempt had lost the payment. The payment's status afterwards."""
        row = self._db.payments.get(settlement.payment_id)
        if row is None:
            return None
        held = settlement.attempt_ref if settlement.status is Status.AUTHORIZED else None
        if once and row.provider_ref == settlement.provider_ref and held in (None, row.attempt_ref):
            return row.status
        reason = f"late {settlement.event}" + (f": {settlement.reason}" if settlement.reason else "")
        status = row.status
        if row.provider_ref is None:
            row.provider_ref = settlement.provider_ref
        row.attempt_ref = row.attempt_ref or held
        approved = settlement.status in (Status.SUCCESS, Status.AUTHORIZED)
        voided = any(one.event == "voided" for one in self._db.events[row.id])
        was_let_go = status is Status.CANCELED and held is not None and row.attempt_ref == held and voided
        contradicted = approved and status in (Status.FAILED_FINAL, Status.CANCELED) and not was_let_go
        if contradicted or (approved and status is Status.NEEDS_REVIEW):
            row.dead_at = self._db.now()
        if contradicted:
            status = Status.NEEDS_REVIEW
            row.last_error = reason
            row.sweep_at = None
        self._db.change(
            row,
            status,
            "late_result",
            actor=self._actor,
            attempt=settlement.attempt,
            reason=reason,
            provider=settlement.provider,
            latency_ms=_ms(settlement.latency),
            call=settlement.call,
            decline_code=settlement.decline_code,
        )
        return row.status

    async def fall_back(self, settlement: Settlement) -> timedelta | None:
        """Let a payment go from the provider that has declined it softly, and closed the charge."""
        row, now = self._db.payments[settlement.payment_id], self._db.now()
        if row.attempts != settlement.attempt:
            return None
        if row.status is not Status.PROCESSING:
            known = any(one.event == "fell_back" and one.attempt == row.attempts for one in self._db.events[row.id])
            return row.updated_at - row.created_at if known and row.status is Status.FAILED_RETRYABLE else None
        left = [name for name in row.candidates or () if name != row.provider]
        if row.provider_ref is not None or not left:
            return None
        row.look_ups = row.sweeps = 0
        row.provider_key = f"{row.id}:{row.version + 1}"
        row.attempt_ref = row.pinned = row.pending_since = row.next_action = row.open_since = row.lease_until = None
        row.candidates = left
        row.last_error = settlement.reason
        row.retry_at = now
        row.sweep_at = now + self._grace
        self._db.change(
            row,
            Status.FAILED_RETRYABLE,
            "fell_back",
            actor=self._actor,
            reason=settlement.reason,
            provider=settlement.provider,
            latency_ms=_ms(settlement.latency),
            call=settlement.call,
            decline_code=settlement.decline_code,
        )
        return now - row.created_at

    async def retry(self, payment_id: UUID, *, account_id: str, actor: str, version: int | None = None) -> Payment:
        """Make a failed payment pending again. Raises PaymentNotFound, or StatusConflict from any other status."""
        payment = await self.get(payment_id, account_id=account_id)
        row = self._db.payments[payment_id]
        refunded = payment.status is Status.FAILED_FINAL and row.provider_ref is not None
        if payment.status not in FAILED or refunded or version not in (None, payment.version):
            raise conflict(payment, "retried", FAILED, version)
        row.retries = 0
        row.look_ups = 0
        row.open_since = None
        if row.decline_code is not None:
            row.provider_key = f"{row.id}:{row.version + 1}"
            row.attempt_ref = None
        row.decline_code = None
        row.last_error = None
        row.retry_at = None
        row.sweep_at = self._db.now() + self._grace
        row.sweeps = 0
        row.dead_at = None
        self._db.change(row, Status.PENDING, "retried", actor=actor)
        return row.payment()

    async def cancel(self, payment_id: UUID, *, account_id: str, actor: str, version: int | None = None) -> Payment:
        """Withdraw a payment that is not being charged; one that is canceled stays so."""
        payment = await self.get(payment_id, account_id=account_id)
        if payment.status is Status.CANCELED:
            return payment
        row = self._db.payments[payment_id]
        charged = row.provider_ref is not None
        if payment.status not in CANCELABLE or charged or version not in (None, payment.version):
            raise conflict(payment, "canceled", CANCELABLE, version)
        row.retry_at = None
        row.sweep_at = self._late_look_up(row)
        row.sweeps = 0
        self._db.change(row, Status.CANCELED, "canceled", actor=actor)
        return row.payment()

    async def expire(self, payment_id: UUID) -> bool:
        """Cancel a payment whose time is over. False if it is not, or if its outcome is open."""
        row = self._db.payments.get(payment_id)
        if row is None or not _over(row, self._db.now()):
            return False
        row.last_error = "expired"
        row.retry_at = None
        row.sweep_at = self._late_look_up(row)
        row.sweeps = 0
        self._db.change(row, Status.CANCELED, "canceled", actor=self._actor, reason="expired")
        return True

    async def bury(self, payment_id: UUID, *, reason: str) -> bool:
        """Hand an unsettled payment to a human. False if it is settled, in a live claim, or unknown here."""
        now = self._db.now()
        row = self._db.payments.get(payment_id)
        if row is None or not (row.status in (Status.PENDING, *DELAYED) or _lease_ran_out(row, now)):
            return False
        row.last_error = reason
        row.lease_until = None
        row.retry_at = None
        row.sweep_at = None
        row.dead_at = now
        self._db.change(row, Status.NEEDS_REVIEW, "needs_review", actor=self._actor, reason=reason)
        return True

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
        """Decide a payment that needs a review; the same decision again changes nothing."""
        row = self._db.payments.get(payment_id)
        if row is None or account_id not in (None, row.account_id):
            raise PaymentNotFound(str(payment_id))
        if row.status is not Status.NEEDS_REVIEW:
            last = [event.event for event in self._db.events[row.id] if event.event != "late_result"][-1:]
            if row.status is decision and last == ["resolved"]:
                return row.payment()
            raise StatusConflict(row.status, "resolved")
        if version not in (None, row.version):
            raise conflict(row.payment(), "resolved", {Status.NEEDS_REVIEW}, version)
        row.sweep_at = self._late_look_up(row) if decision is Status.FAILED_FINAL else None
        row.look_ups = row.sweeps = 0
        row.provider_ref = row.provider_ref if provider_ref is None else provider_ref
        row.pinned = True if row.attempts > 0 else None
        row.decline_code = None if decision is Status.SUCCESS else row.decline_code
        row.last_error = None if decision is Status.SUCCESS else reason
        row.open_since = row.retry_at = row.dead_at = None
        self._db.change(row, decision, "resolved", actor=actor, reason=reason)
        return row.payment()

    async def begin_late_look_up(self, payment_id: UUID, *, again: Sequence[timedelta]) -> LateLookUp | None:
        """Begin the look-up of a closed payment that the sweep has sent; None if it is not for us to do."""
        row, now = self._db.payments.get(payment_id), self._db.now()
        if row is None or not _look_up_late(row):
            return None
        row.look_ups += 1
        row.open_since = row.open_since or now
        row.sweep_at = now + again[min(row.look_ups, len(again)) - 1]
        row.sweeps = 0
        self._db.check(row)
        return LateLookUp(row.payment(), _seconds_since(row.open_since, now), now)

    async def begin_authorization_look_up(self, payment_id: UUID) -> Payment | None:
        """Begin the look-up of an authorization that the sweep has sent; None if there is none to do."""
        row = self._db.payments.get(payment_id)
        if row is None or row.status is not Status.AUTHORIZED or row.sweep_at is None or not row.sweeps:
            return None
        ends = _void_due_at(row)
        again = self._db.now() + timedelta(hours=1)
        row.sweep_at, row.sweeps = max(row.sweep_at, again if ends is None else min(again, ends)), 0
        self._db.check(row)
        return row.payment()

    async def plan_authorization_look_up(self, payment: Payment) -> None:
        """Plan the next look at an authorization that lasts."""
        row, now = self._db.payments.get(payment.id), self._db.now()
        if row is None or row.status is not Status.AUTHORIZED or row.version != payment.version or row.sweeps:
            return
        if row.sweep_at is not None and row.sweep_at > now:
            row.sweep_at = _void_due_at(row) or now + timedelta(days=1)
            self._db.check(row)

    async def plan_late_look_up(self, payment: Payment, *, begun_at: datetime) -> None:
        """Plan the next look-up of a closed payment, or none if that was the last. Nothing, if it has changed."""
        row = self._db.payments.get(payment.id)
        if row is None or not _still(row, payment) or row.sweep_at is None:
            return
        row.look_ups = 0
        row.open_since = None
        if row.sweep_at > self._db.now() and not row.sweeps:  # else a notice came during the look-up
            times = (row.updated_at + delay for delay in self._late_look_ups)
            row.sweep_at = min((at for at in times if at > begun_at), default=None)
        self._db.check(row)

    async def fail_late_look_up(self, payment: Payment, *, reason: str) -> bool:
        """Hand a closed payment to a human, whose look-up was not answered for too long. False if it has changed."""
        row = self._db.payments.get(payment.id)
        if row is None or not _still(row, payment):
            return False
        row.last_error = reason
        row.sweep_at = None
        row.dead_at = self._db.now()
        self._db.change(row, Status.NEEDS_REVIEW, "unanswered", actor=self._actor, reason=reason)
        return True

    async def events(self, payment_id: UUID) -> Sequence[Event]:
        """The timeline of a payment, oldest first; empty if there is none."""
        row = self._db.payments.get(payment_id)
        if row is None:
            return []
        accepted = Event(row.id, 0, row.created_at, "accepted", Status.PENDING, 0, "api", None, None, None)
        return [accepted, *self._db.events[row.id]]

    async def check_writable(self) -> None:
        """Memory always is."""

    def _in_time(self, moment: datetime | None) -> bool:
        """Return True if a time of a new payment is in the future, and not too far away."""
        now = self._db.now()
        return moment is None or now < moment <= now + MAX_SCHEDULE_AHEAD

    def _insert(self, new: NewPayment, *, wake: bool) -> PaymentRow:
        now = self._db.now()
        payment_id = self._new_id()
        row = PaymentRow(
            id=payment_id,
            account_id=new.account_id,
            idempotency_key=new.idempotency_key,
            fingerprint=new.fingerprint,
            amount_minor=new.amount_minor,
            currency=new.currency,
            metadata=dict(new.metadata),
            lane=new.lane,
            provider_key=str(payment_id),
            created_at=now,
            updated_at=now,
            execute_at=new.execute_at,
            expires_at=new.expires_at,
            payment_method=new.payment_method,
            return_url=new.return_url,
            requested_provider=new.requested_provider,
            manual_capture=new.manual_capture,
            candidates=None if new.candidates is None else [*new.candidates],
            soft_fallback=new.soft_fallback,
        )
        if new.execute_at is not None:
            row.sweep_at = new.execute_at
        elif not wake:
            row.sweep_at = now
        elif self._out_of_time(payment_id, now):
            row.sweep_at = now + self._grace
        assert payment_id not in self._db.payments, f"{payment_id} was given twice"
        self._db.payments[payment_id] = self._db.by_key[new.account_id, new.idempotency_key] = row
        self._db.events[payment_id] = []
        return row

    def _out_of_time(self, payment_id: UUID, now: datetime) -> bool:
        """Return True if the cursor will not pass this id in due time: it is not of this moment, or passed already."""
        clock_s = (payment_id.int >> 80) / 1000
        skewed = abs(now.timestamp() - clock_s) > self._grace.total_seconds() / 2
        return skewed or any(payment_id < passed for passed in self._db.sweep_cursors.values())

    def _late_look_up(self, row: PaymentRow, *, ends: int = 0) -> datetime | None:
        """When a payment that is being closed is first looked up again; None if no call of it can be on its way.

        `ends` attempts are about to end with an answer that leaves none.
        """
        ended = ends + sum(each.event in ENDED for each in self._db.events[row.id])
        if row.provider_ref is not None or ended >= row.attempts:
            return None
        return self._db.now() + min(self._late_look_ups)

    def _usable(self, offered: Sequence[UsableProvider], now: datetime) -> dict[str, bool]:
        """Return the providers that can be called now, and whether they may charge."""
        rows = ((one.name, self._db.providers.get(one.name, ProviderRow())) for one in offered)
        return {
            name: row.mode == "on"
            for name, row in rows
            if row.mode != "off" and (row.open_until is None or row.open_until <= now)
        }

    def _provider_for(self, row: PaymentRow, usable: Mapping[str, bool], *, defaults: Sequence[str]) -> str | None:
        """Return the provider that a claim writes; None if there is none now."""
        if row.is_pinned:
            name = row.provider or "http"
            looks_up_only = row.status not in (Status.PENDING, Status.FAILED_RETRYABLE)
            return name if name in usable and (usable[name] or looks_up_only) else None
        if row.requested_provider is not None:
            return row.requested_provider if usable.get(row.requested_provider) else None
        if row.candidates is None:
            return next((name for name in defaults if usable.get(name)), None)
        left = [name for name in row.candidates if usable.get(name)]
        was_unavailable = row.status is Status.FAILED_RETRYABLE and self._db.events[row.id][-1].event == "unavailable"
        others = [name for name in left if not (was_unavailable and name == row.provider)]
        return next(iter(others or left), None)

    def _refuse(self, row: PaymentRow, now: datetime, *, without: bool) -> ClaimRefusal:
        """Refuse a claim. A payment that is due, and only lacks a provider, is postponed."""
        refused = _refused(row, now)
        without = without and row.status in (Status.PENDING, Status.PROCESSING, *DELAYED)
        if not without or refused.wait:
            return replace(refused, no_provider=without)
        open_until = [one.open_until for one in self._db.providers.values() if one.open_until and one.open_until > now]
        switched = any(one.mode != "on" for one in self._db.providers.values())
        longest_s = SWITCHED_WAIT_S if switched else NO_PROVIDER_WAIT_S
        wait_s = (min(open_until) - now).total_seconds() if open_until else longest_s
        wait = timedelta(seconds=min(max(wait_s, 1.0), 60.0))
        row.sweep_at = now + wait + self._grace
        return replace(refused, no_provider=True, wait=wait)

    def _key_age_s(self, row: PaymentRow, now: datetime) -> float:
        """Return the time since the first claim under the payment's provider key."""
        if row.attempts <= 1:
            return 0.0
        made_at = int(row.provider_key.partition(":")[2] or 0)
        claims = [one.at for one in self._db.events[row.id][:-1] if one.event == "claimed" and one.version > made_at]
        return _seconds_since(min(claims, default=None), now)

    def _take(self, row: PaymentRow, now: datetime, provider: str) -> None:
        """Write a claim."""
        before = row.status
        row.pinned = True if row.is_pinned else None
        row.provider = provider
        row.attempts += 1
        row.retries += before is Status.PROCESSING
        row.look_up_first = before in OPEN or row.provider_ref is not None
        was_open = before in (Status.PROCESSING, Status.UNKNOWN)
        row.open_since = (row.open_since or row.called_at) if was_open else None
        match before:
            case Status.PROCESSING:
                row.called_at = row.lease_until
            case Status.UNKNOWN | Status.REQUIRES_ACTION | Status.SUBMITTED:
                pass
            case _:
                row.called_at = now
        self._lend(row, now)
        self._db.change(row, Status.PROCESSING, "claimed", actor=self._actor)
        self._db.claimed_for[row.id, row.attempts] = provider

    def _lend(self, row: PaymentRow, now: datetime) -> None:
        row.lease_until = now + self._lease
        if row.sweep_at is not None:
            row.sweep_at = now + self._lease + self._grace

    def _holds(self, row: PaymentRow, attempt: int) -> bool:
        """The fence: whether this attempt still holds the payment."""
        return row.attempts == attempt and row.status is Status.PROCESSING

    def _write(self, row: PaymentRow, settlement: Settlement) -> None:
        """Write the outcome of the attempt that holds the row."""
        now, status = self._db.now(), settlement.status
        delay = None if settlement.delay is None else timedelta(milliseconds=_ms(settlement.delay))
        row.retries += settlement.event == "unavailable"
        row.look_ups = row.look_ups + 1 if status in (Status.UNKNOWN, *AWAITING) else 0
        row.attempt_ref = row.attempt_ref if settlement.attempt_ref is None else settlement.attempt_ref
        row.pending_since = (row.pending_since or now) if status in AWAITING else None
        action = settlement.next_action
        row.next_action = None if action is None else {"kind": action.kind, "url": action.url}
        row.provider_ref = row.provider_ref if settlement.provider_ref is None else settlement.provider_ref
        row.decline_code = settlement.decline_code
        row.last_error = settlement.reason
        still_open = status in (Status.UNKNOWN, Status.NEEDS_REVIEW)
        row.open_since = (row.open_since or row.called_at) if still_open else None
        row.called_at = now if settlement.call == "charge" else row.called_at
        row.lease_until = None
        row.retry_at = None if delay is None else now + delay
        row.sweep_at = None if delay is None else now + delay + self._grace
        if status is Status.FAILED_FINAL:
            row.sweep_at = self._late_look_up(row, ends=1)
        row.capture_before = settlement.capture_before
        if settlement.capture_before is not None:
            ahead = min(timedelta(minutes=5), (settlement.capture_before - now) / 10)
            row.sweep_at = max(now, settlement.capture_before - ahead)
        elif status is Status.AUTHORIZED:
            row.sweep_at = now + timedelta(days=1)
        row.sweeps = 0
        row.dead_at = now if settlement.event == "spent" or status is Status.NEEDS_REVIEW else None
        self._db.change(
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


class MemorySweepStore:
    """`okane.store.SweepStore` over a MemoryDatabase. `window` is the number of rows that one `mark_lost` reads."""

    def __init__(self, db: MemoryDatabase, *, grace: timedelta, window: int = WINDOW) -> None:
        self._db = db
        self._grace = grace
        self._window = window

    async def aclose(self) -> None:
        """Nothing to close."""

    async def advance_horizon(self) -> None:
        """Learn which transactions have ended meanwhile: all that had begun."""
        horizon = self._db.horizon
        horizon.proven_at, horizon.seen_at = horizon.seen_at, self._db.now()

    async def needs_sequencing(self) -> bool:
        """Return False: no account has an endpoint here. `tests.simulation.webhooks` has the queues of those that have."""
        return False

    async def mark_lost(self, lane: str, oldest_entry: timedelta | None) -> MarkResult:
        """Mark payments of `lane` that are older than the grace and than its oldest live entry, and still unsettled."""
        below = self._bound(oldest_entry)
        if lane not in self._db.sweep_cursors and not self._start(lane, below):
            return MarkResult(lost=0, more=self._db.sweep_cursors.get(ALL_LANES, below) < below)
        after = self._db.sweep_cursors[lane]
        if after >= below:
            return MarkResult(lost=0, more=False)
        window, more = self._window_from(after, below)
        lost = sum(self._mark(self._db.payments[one], lane) for one in window)
        self._move(lane, window[-1] if more else below)
        return MarkResult(lost=lost, more=more)

    async def plan_authorizations(self, after: AuthorizationPlace | None) -> PlannedPage:
        """Find none: no older version has written any here."""
        return PlannedPage(0, None)

    async def take_due(
        self, lanes: Mapping[str, timedelta | None], *, limit: int, by_retry_at: bool = False
    ) -> Sequence[WakeUp]:
        """Up to `limit` overdue payments of these lanes, each pushed back by the grace and its lane's age."""
        now = self._db.now()

        def is_due(row: PaymentRow, at: datetime) -> bool:
            if at <= now or not by_retry_at or at > now + self._grace:
                return at <= now
            is_retry = row.status in DELAYED
            return is_retry and row.sweeps == 0 and row.retry_at is not None and row.retry_at <= now

        due = [(row.sweep_at, row) for row in self._db.payments.values() if row.sweep_at is not None]
        ordered = sorted(due, key=lambda one: one[0])
        taken = [row for at, row in ordered if is_due(row, at) and row.lane in lanes][:limit]
        for row in taken:
            row.sweep_at = now + self._grace + min(lanes[row.lane] or timedelta(0), LONGEST_QUEUE)
            row.sweeps += 1
            self._db.check(row)
        return [WakeUp(row.id, row.lane, _planned(row)) for row in taken]

    def _bound(self, oldest_entry: timedelta | None) -> UUID:
        """The first id that must not be passed: payments from here on may still be on their way, or in their lane."""
        proven_at = self._db.horizon.proven_at
        if proven_at is None:
            return UUID(int=0)
        below_s = proven_at.timestamp() - self._grace.total_seconds()
        if oldest_entry is not None:
            below_s = min(below_s, self._db.now().timestamp() - (oldest_entry + self._grace).total_seconds())
        return UUID(int=int(max(below_s, 0.0) * 1000) << 80)

    def _start(self, lane: str, below: UUID) -> bool:
        """Put a new cursor where the first payment of any lane is open. False if this is not known yet."""
        passed = self._db.sweep_cursors.get(ALL_LANES)
        if passed is not None and passed >= below:
            self._move(lane, passed)
            return True
        after = passed or min(self._db.payments, default=None)
        if after is None or after >= below:
            return False
        window, more = self._window_from(after, below)
        first_open = next((one for one in window if _open(self._db.payments[one])), None)
        start = first_open or (window[-1] if more else below)
        self._move(ALL_LANES, start)
        if first_open is None and more:
            return False
        self._move(lane, start)
        return True

    def _window_from(self, after: UUID, below: UUID) -> tuple[Sequence[UUID], bool]:
        """As many rows as are looked at at once, and whether there may be more."""
        window = sorted(one for one in self._db.payments if after <= one < below)[: self._window]
        return window, len(window) == self._window

    def _move(self, lane: str, passed: UUID) -> None:
        self._db.sweep_cursors[lane] = max(passed, self._db.sweep_cursors.get(lane, passed))

    def _mark(self, row: PaymentRow, lane: str) -> bool:
        if row.lane != lane or not _open(row):
            return False
        now = self._db.now()
        row.sweep_at = max(now, row.lease_until or now)
        self._db.check(row)
        return True


def _check_columns(new: NewPayment) -> None:
    """The CHECKs of schema.sql that a request can fail."""
    if new.amount_minor <= 0 or not re.fullmatch(r"[A-Z]{3}", new.currency):
        raise psycopg.errors.CheckViolation(f"not a payment: {new.amount_minor} {new.currency}")


def _over(row: PaymentRow, now: datetime) -> bool:
    """Return True if its time is over and nothing is charged or may have been."""
    expired = row.expires_at is not None and row.expires_at <= now
    return expired and row.status in (Status.PENDING, Status.FAILED_RETRYABLE) and row.provider_ref is None


def _still(row: PaymentRow, payment: Payment) -> bool:
    """Return True if a closed payment has not changed since its look-up was taken."""
    return row.version == payment.version and row.status in CLOSED_UNCHARGED


def _void_due_at(row: PaymentRow) -> datetime | None:
    if row.capture_before is None:
        return None
    return row.capture_before - min(timedelta(minutes=5), (row.capture_before - (row.called_at or row.created_at)) / 10)


def _look_up_late(row: PaymentRow) -> bool:
    """Return True if the sweep sent a closed payment for a look-up."""
    return row.status in CLOSED_UNCHARGED and row.sweep_at is not None and row.sweeps > 0


def _sent_to_look_up(row: PaymentRow) -> bool:
    """Return True if the sweep sent a closed or authorized payment for a look-up."""
    return row.status in (*CLOSED_UNCHARGED, Status.AUTHORIZED) and row.sweep_at is not None and row.sweeps > 0


def _planned(row: PaymentRow) -> bool:
    """Return True if the wake-up that was just taken is the first of a scheduled payment, or one of a closed or authorized
    payment."""
    return row.status in (*CLOSED_UNCHARGED, Status.AUTHORIZED) or _scheduled(row)


def _scheduled(row: PaymentRow) -> bool:
    return row.execute_at is not None and row.status is Status.PENDING and row.attempts == 0 and row.sweeps == 1


def _claimable(row: PaymentRow, now: datetime) -> bool:
    if _over(row, now):
        return False
    match row.status:
        case Status.PENDING:
            return row.execute_at is None or row.execute_at <= now
        case Status.FAILED_RETRYABLE | Status.UNKNOWN | Status.REQUIRES_ACTION | Status.SUBMITTED:
            return row.retry_at is not None and row.retry_at <= now
        case _:
            return _lease_ran_out(row, now)


def _open(row: PaymentRow) -> bool:
    """Return True if only a wake-up or the cursor will find this row."""
    return row.status in ON_PATH and row.sweep_at is None


def _lease_ran_out(row: PaymentRow, now: datetime) -> bool:
    return row.status is Status.PROCESSING and row.lease_until is not None and row.lease_until <= now


def _refused(row: PaymentRow, now: datetime) -> ClaimRefusal:
    """Why a claim was refused, and when to ask again."""
    spent = None
    if row.status is Status.FAILED_FINAL and row.decline_code is None:
        spent = "spent" if row.last_error is None else row.last_error
    match row.status:
        case Status.PROCESSING:
            until = row.lease_until
        case Status.PENDING:
            until = row.execute_at
        case _:
            until = row.retry_at
    return ClaimRefusal(
        row.status, max(timedelta(0), (until or now) - now), spent, _over(row, now), _sent_to_look_up(row)
    )


def _seconds_since(then: datetime | None, now: datetime) -> float:
    return 0.0 if then is None else (now - then).total_seconds()


def _ms(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1000)
