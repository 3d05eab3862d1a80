"""The model of the store of operations against the real one: the same calls give the same answers, rows and events."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from okane.operation import NewOperation, OperationCall, OperationKind, OperationStatus
from okane.payment import Status
from okane.store import NewPayment, Settlement, UsableProvider
from okane.store.operation_records import OperationSettlement
from okane.store.operations import OperationStore
from okane.store.provider_events import ProviderEvent
from tests.okane.stored_payments import new
from tests.simulation.operations.tables import GAVE_BACK, MemoryOperationStore, OperationRow
from tests.simulation.twins import (
    LEASE,
    NOBODY,
    OPERATION_COLUMNS,
    OPERATION_EVENT_COLUMNS,
    Twins,
    signatures,
)

STEPS = 1_000
_S = OperationStatus
CAPTURE, VOID, REFUND = OperationKind.CAPTURE, OperationKind.VOID, OperationKind.REFUND
LANES = tuple(OperationKind)


class Play:
    """A random sequence of calls, the same for one seed. What to do next is chosen by looking at the model."""

    def __init__(self, twins: Twins, seed: int) -> None:
        self._twins = twins
        self._dice = random.Random(f"operations {seed}")
        self._steps = 0

    async def step(self) -> None:
        """One call."""
        moves: Sequence[tuple[int, Callable[[], Awaitable[None]]]] = (
            (4, self._pay),
            (12, self._request),
            (2, self._void_expired),
            (12, self._claim),
            (14, self._settle),
            (2, self._settle_together),
            (2, self._renew),
            (4, self._record_late),
            (1, self._record_late_of_payment),
            (6, self._retry),
            (2, self._bury),
            (3, self._cancel),
            (4, self._resolve),
            (5, self._late),
            (3, self._notice),
            (3, self._due),
            (2, self._switch),
            (2, self._read),
            (6, self._advance),
        )
        self._steps += 1
        weights, calls = zip(*moves, strict=True)
        await self._dice.choices(calls, weights)[0]()

    async def _pay(self) -> None:
        """A new payment: mostly charged, or authorized, sometimes not yet."""
        dice, twins = self._dice, self._twins
        manual = dice.random() < 0.6
        payment: NewPayment = dataclasses.replace(
            new(f"payment-{self._steps}", amount_minor=dice.choice((1, 440, 10_000))),
            account_id=dice.choice(("default", "default", "other")),
            manual_capture=True if manual else None,
        )
        payment_id = twins.next_id = self._new_id()
        await twins.same("accept", payment, wake=True)
        if dice.random() < 0.05:
            return
        await twins.same("claim", payment_id)
        if manual and dice.random() < 0.9:
            length = dice.choice((timedelta(days=7), timedelta(seconds=30), timedelta(0)))
            status, more = Status.AUTHORIZED, {"attempt_ref": "pi_1", "capture_before": twins.now + length}
        else:
            status, more = Status.SUCCESS, {"provider_ref": "ref-1"}
        latency = timedelta(milliseconds=3)
        settled = Settlement(payment_id, 1, status, status.value, "charge", "http", latency, **more)  # type: ignore[arg-type]
        await twins.same("settle", settled)

    async def _request(self) -> None:
        """Mostly what can be done with a payment; now and then anything."""
        dice, twins = self._dice, self._twins
        payments = [row for row in twins.db.payments.values() if row.status in (Status.AUTHORIZED, Status.SUCCESS)]
        row = dice.choice(payments) if payments and dice.random() < 0.9 else None
        payment_id = self._payment_id() if row is None else row.id
        fitting = (REFUND,) if row is not None and row.status is Status.SUCCESS else (CAPTURE, CAPTURE, VOID)
        kind = dice.choice(fitting if dice.random() < 0.75 else LANES)
        amount = 10_000 if row is None else row.amount_minor
        part = dice.choice((None, amount, max(1, amount // 3), max(1, amount // 3), amount + 1))
        twins.next_id = self._new_id()
        await twins.same_operation(
            "request",
            NewOperation(
                payment_id=payment_id,
                account_id=dice.choice((None, "default", "default", "other")) if row is None else row.account_id,
                kind=kind,
                idempotency_key=f"key-{self._steps // 20 + dice.randrange(8)}",
                fingerprint=dice.choice((b"f", b"f", b"f", b"g")) * 32,
                amount_minor=None if kind is VOID else part,
                currency=dice.choice((None, None, None, "USD", "EUR")),
                reason=dice.choice((None, None, "requested_by_customer")),
                metadata={"order": "7"} if dice.random() < 0.3 else {},
            ),
            actor=dice.choice((None, "someone")),
        )

    async def _void_expired(self) -> None:
        """Mostly of a payment whose authorization is about to end."""
        dice, twins = self._dice, self._twins
        held = [row for row in twins.db.payments.values() if row.status is Status.AUTHORIZED and row.capture_before]
        row = dice.choice(held) if held and dice.random() < 0.9 else None
        if row is not None and row.sweep_at is not None and dice.random() < 0.5:
            await twins.advance(max(timedelta(0), row.sweep_at - twins.now))
        twins.next_id = self._new_id()
        await twins.same_operation("void_expired", self._payment_id() if row is None else row.id)

    async def _claim(self) -> None:
        """Mostly one that has not come to rest."""
        waiting = [row.id for row in self._rows if not row.status.is_at_rest]
        await self._twins.same_operation("claim", self._choose(waiting, 0.9))

    async def _settle(self) -> None:
        await self._twins.same_operation("settle", self._settlement(*self._attempt()))

    async def _settle_together(self) -> None:
        """Several operations in one statement, most of them of one payment."""
        dice = self._dice
        claimed = [row for row in self._rows if row.status is _S.PROCESSING]
        if not claimed:
            return
        payment_id = dice.choice(claimed).payment_id
        chosen = [row for row in claimed if row.payment_id == payment_id or dice.random() < 0.2]
        await self._twins.same_settled_together([self._settlement(row.id, row.attempts) for row in chosen])

    async def _renew(self) -> None:
        await self._twins.same_operation("renew", *self._attempt())

    async def _record_late(self) -> None:
        """Of an attempt that was lost, or found by a late look-up."""
        settlement, once = self._settlement(*self._attempt(claimed=0.3)), self._dice.random() < 0.4
        await self._twins.same_operation("record_late", settlement, once=once)

    async def _record_late_of_payment(self) -> None:
        """A charge that was held is seen again: only one that no operation let go needs a human."""
        dice, row = self._dice, self._twins.db.payments.get(self._payment_id())
        if row is None:
            return
        held = Settlement(
            row.id,
            row.attempts,
            Status.AUTHORIZED,
            "authorized",
            "look_up",
            "http",
            timedelta(seconds=1),
            attempt_ref=dice.choice(("pi_1", "pi_2")),
        )
        await self._twins.same("record_late", held, once=dice.random() < 0.5)

    async def _retry(self) -> None:
        """Mostly one that has failed, by the version that was seen, or by an earlier one."""
        dice = self._dice
        failed = [row for row in self._rows if row.status in (_S.FAILED_FINAL, _S.FAILED_RETRYABLE)]
        payments = self._twins.db.payments
        beside_others = [row.id for row in failed if payments[row.payment_id].open_operation not in (None, row.id)]
        operation_id = self._choose(beside_others if dice.random() < 0.2 else [row.id for row in failed], 0.8)
        await self._twins.same_operation(
            "retry",
            operation_id,
            account_id=self._account(),
            actor="someone",
            version=self._version(operation_id),
        )
        if dice.random() < 0.3:
            await self._twins.same_operation("claim", operation_id)

    async def _bury(self) -> None:
        await self._twins.same_operation("bury", self._choose([], 0.0), reason="poison")

    async def _cancel(self) -> None:
        waiting = [row.id for row in self._rows if row.status in (_S.PENDING, _S.FAILED_RETRYABLE)]
        operation_id = self._choose(waiting, 0.6)
        version = self._version(operation_id)
        await self._twins.same_operation(
            "cancel", operation_id, account_id=self._account(), actor="someone", version=version
        )

    async def _resolve(self) -> None:
        """Mostly one that needs it; sometimes once more."""
        dice = self._dice
        operation_id = self._choose([row.id for row in self._rows if row.status is _S.NEEDS_REVIEW], 0.7)
        decision = dice.choice((_S.SUCCESS, _S.FAILED_FINAL))
        for _ in range(dice.choice((1, 1, 1, 2))):
            await self._twins.same_operation(
                "resolve",
                operation_id,
                account_id=self._account(),
                decision=decision,
                reason="a human said so",
                provider_ref=dice.choice((None, None, "ref-4")),
                actor="someone",
                version=self._version(operation_id),
            )

    async def _late(self) -> None:
        """The look-up of a closed operation, begun and answered, or not; sometimes of what it was before."""
        dice, twins = self._dice, self._twins
        closed = [row.id for row in self._rows if row.status in (*GAVE_BACK, _S.SUCCESS) and row.sweep_at is not None]
        operation_id = self._choose(closed, 0.9)
        row = twins.tables.rows.get(operation_id)
        if row is not None and row.sweep_at is not None and dice.random() < 0.7:
            await twins.advance(max(timedelta(0), row.sweep_at - twins.now))
            await twins.same_operation("due", dict.fromkeys(LANES), limit=1_000)
        await twins.same_operation("begin_late_look_up", operation_id, again=(LEASE, timedelta(hours=1)))
        if row is None:
            return
        seen = dataclasses.replace(row.operation(), version=row.version - dice.choice((0, 0, 0, 1)))
        match dice.randrange(6):
            case 0 | 1 | 2:
                begun_at = twins.now - dice.choice((timedelta(0), LEASE, timedelta(days=2)))
                await twins.same_operation("plan_late_look_up", seen, begun_at=begun_at)
            case 3:
                await twins.same_operation("fail_late_look_up", seen, reason="no answer")
            case 4:
                await twins.same_operation("record_late", self._settlement(row.id, row.attempts), once=True)

    async def _notice(self) -> None:
        rows = [row for row in self._rows if row.status not in (_S.PROCESSING, _S.NEEDS_REVIEW)]
        if not rows:
            return
        row = self._dice.choice(rows)
        await self._twins.same_notice(
            ProviderEvent(
                event_id=f"evt_{self._steps}",
                kind="refund.updated",
                payment_id=row.payment_id,
                provider_ref=None,
                operation_id=row.id,
                is_refusal=self._dice.random() < 0.5,
            )
        )

    async def _due(self) -> None:
        dice = self._dice
        chosen = dice.sample(LANES, dice.randint(1, 3))
        lanes = {str(lane): dice.choice((None, timedelta(0), timedelta(seconds=60), LEASE * 20)) for lane in chosen}
        await self._twins.same_operation("due", lanes, limit=self._limit(lanes), by_retry_at=len(lanes) == 2)

    async def _switch(self) -> None:
        """Change the mode or the circuit of the provider, and whether it can be called."""
        dice = self._dice
        self._twins.usable = dice.choice(((UsableProvider("http"),), (UsableProvider("http"),), ()))
        open_until = dice.choice((None, None, self._twins.now + timedelta(seconds=dice.choice((0.3, 5, 90)))))
        await self._twins.switch("http", dice.choice(("on", "on", "drain", "off")), open_until)

    async def _read(self) -> None:
        operation_id = self._choose([], 0.0)
        await self._twins.same_operation("get", operation_id, account_id=self._account())
        await self._twins.same_operation("events", operation_id)

    async def _advance(self) -> None:
        """Some time, or exactly as much as is left until something happens; seldom the clock steps back."""
        dice, twins = self._dice, self._twins
        times = itertools.chain.from_iterable((row.lease_until, row.retry_at, row.sweep_at) for row in self._rows)
        edges: Sequence[datetime] = sorted(at for at in times if at is not None and at > twins.now)
        if edges and dice.random() < 0.5:
            by = dice.choice(edges[:20]) - twins.now + timedelta(microseconds=dice.choice((-1, 0, 1)))
        else:
            by = timedelta(milliseconds=dice.choice((-20_000, 1, 999, 4_000, 10_000, 31_000, 70_000)))
        await twins.advance(by)

    @property
    def _rows(self) -> Sequence[OperationRow]:
        return list(self._twins.tables.rows.values())

    def _new_id(self) -> UUID:
        at_ms = int(self._twins.now.timestamp() * 1000)
        return UUID(int=at_ms << 80 | 7 << 76 | 2 << 62 | self._dice.getrandbits(42) << 18)  # of cell 0

    def _payment_id(self) -> UUID:
        ids = list(self._twins.db.payments)
        return self._dice.choice(ids) if ids and self._dice.random() < 0.95 else NOBODY

    def _choose(self, preferred: Sequence[UUID], how_often: float) -> UUID:
        """Return one of these, or any operation, or one that does not exist."""
        if preferred and self._dice.random() < how_often:
            return self._dice.choice(preferred)
        ids = list(self._twins.tables.rows)
        return self._dice.choice(ids) if ids and self._dice.random() < 0.9 else NOBODY

    def _account(self) -> str | None:
        return self._dice.choice((None, None, None, "default", "default", "other"))

    def _version(self, operation_id: UUID) -> int | None:
        row = self._twins.tables.rows.get(operation_id)
        return None if row is None else self._dice.choice((None, None, row.version, row.version - 1))

    def _attempt(self, *, claimed: float = 0.8) -> tuple[UUID, int]:
        """An operation and an attempt, mostly the one that is under way."""
        operation_id = self._choose([row.id for row in self._rows if row.status is _S.PROCESSING], claimed)
        row = self._twins.tables.rows.get(operation_id)
        return operation_id, (0 if row is None else row.attempts) + self._dice.choice((0, 0, 0, 0, 0, -1, 1))

    def _settlement(self, operation_id: UUID, attempt: int) -> OperationSettlement:
        dice = self._dice
        delay = timedelta(seconds=dice.choice((0, 0.0123456, 5, 60)))
        reason = dice.choice((None, "", "HTTP 503"))
        status, event, more = dice.choice(
            (
                (_S.SUCCESS, "success", {"provider_ref": dice.choice(("ref-1", "ref-2"))}),
                (_S.SUCCESS, "success", {"provider_ref": None}),
                (_S.FAILED_FINAL, "declined", {"decline_code": "not_refundable", "reason": "not_refundable"}),
                (_S.FAILED_FINAL, "spent", {"reason": reason}),
                (_S.FAILED_RETRYABLE, "unavailable", {"reason": reason, "delay": delay}),
                (_S.FAILED_RETRYABLE, "deferred", {"reason": reason, "delay": delay}),
                (_S.UNKNOWN, "unknown", {"reason": reason, "delay": delay}),
                (_S.SUBMITTED, "pending", {"delay": delay, "provider_ref": dice.choice((None, "ref-3"))}),
                (_S.NEEDS_REVIEW, "needs_review", {"reason": reason}),
            )
        )
        call: OperationCall | None = dice.choice(("operate", "operate", "look_up", None))
        latency = timedelta(milliseconds=dice.randrange(5000))
        plain = OperationSettlement(operation_id, attempt, status, event, call, "http", latency)
        return dataclasses.replace(plain, **more)

    def _limit(self, lanes: dict[str, timedelta | None]) -> int:
        """Return how many to take: never some of several that are equally overdue, of which Postgres may choose any."""
        rows = [row for row in self._rows if row.kind in lanes]
        due = sorted(row.sweep_at for row in rows if row.sweep_at is not None and row.sweep_at <= self._twins.now)
        cuts = [number for number, (one, other) in enumerate(itertools.pairwise(due), 1) if one != other]
        return self._dice.choice([*cuts, 1_000])


EVERY_WAY = {
    *(f"request: {code}" for code in ("RequestedOperation", "IdempotencyKeyReused", "PaymentNotFound")),
    *(f"request: {code}" for code in ("currency_mismatch", "payment_not_captured", "refund_exceeds_captured")),
    *(f"request: {code}" for code in ("payment_not_authorized", "operation_in_progress", "capture_exceeds_authorized")),
    *(f"void_expired: {answer}" for answer in ("None", "Operation")),
    *(f"claim: {answer}" for answer in ("charge", "look up first", "OperationRefusal", "no provider")),
    *(f"settle: {answer}" for answer in ("None", "timedelta", "together")),
    *(f"renew: {answer}" for answer in (True, False)),
    *(f"record_late: {answer}" for answer in ("None", "OperationStatus", "Status")),
    *(f"bury: {answer}" for answer in (True, False)),
    *(f"cancel: {answer}" for answer in ("Operation", "OperationNotFound", "StatusConflict", "VersionConflict")),
    *(f"retry: {answer}" for answer in ("Operation", "OperationNotFound", "StatusConflict", "VersionConflict")),
    *(f"retry: {answer}" for answer in ("refund_exceeds_captured", "payment_not_authorized", "operation_in_progress")),
    *(f"resolve: {answer}" for answer in ("Operation", "OperationNotFound", "StatusConflict", "VersionConflict")),
    *(f"begin_late_look_up: {answer}" for answer in ("None", "LateOperationLookUp")),
    "plan_late_look_up: None",
    *(f"fail_late_look_up: {answer}" for answer in (True, False)),
    *(f"due: {answer}" for answer in ("some", "none")),
    *(f"get: {answer}" for answer in ("Operation", "OperationNotFound")),
    *(f"events: {answer}" for answer in ("some", "none")),
    "notice",
}


@pytest.mark.parametrize("seed", range(2))
async def test_the_model_of_operations_does_what_the_store_does(twins: Twins, seed: int) -> None:
    play = Play(twins, seed)
    for number in range(4 * STEPS):
        if number >= STEPS and twins.seen >= EVERY_WAY:  # some ways are rare
            break
        await play.step()
    assert twins.seen >= EVERY_WAY, (number, EVERY_WAY - twins.seen)


def test_the_model_of_operations_has_the_methods_of_the_store() -> None:
    assert signatures(MemoryOperationStore) == signatures(OperationStore)


async def test_the_model_of_operations_has_the_columns_of_the_tables(twins: Twins) -> None:
    assert await twins.columns("operations") == set(OPERATION_COLUMNS)
    assert await twins.columns("operation_events") == set(OPERATION_EVENT_COLUMNS)
