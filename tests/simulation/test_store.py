"""The model in `store.py` against the real store: the same calls in the same order give the same answers and the same rows.

Both run on one clock that only the test moves: a schema in front of `pg_catalog` overrides Postgres's own, so that times are
equal to the microsecond and leases end exactly on their edge.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from okane.payment import CLOSED_UNCHARGED, NextAction, Status
from okane.store import (
    Call,
    NewPayment,
    PaymentStore,
    Settlement,
    SweepStore,
    UsableProvider,
)
from okane.store.provider_events import ProviderEvent
from tests.okane.stored_payments import new
from tests.simulation.store import (
    FAILED,
    MemoryPaymentStore,
    MemorySweepStore,
)
from tests.simulation.twins import COLUMNS, EVENT_COLUMNS, GRACE, LEASE, NOBODY, Twins, signatures

STEPS = 2_000
LANES = ("critical", "default", "low")
ACTION = NextAction("https://bank.example/3ds")


class Play:
    """A random sequence of calls, the same for one seed. What to do next is chosen by looking at the model."""

    def __init__(self, twins: Twins, seed: int) -> None:
        self._twins = twins
        self._dice = random.Random(seed)
        self._steps = 0

    async def step(self) -> None:
        """One call."""
        moves: Sequence[tuple[int, Callable[[], Awaitable[None]]]] = (
            (6, self._accept),
            (2, self._get),
            (12, self._claim),
            (10, self._settle),
            (2, self._renew),
            (3, self._record_late),
            (3, self._retry),
            (2, self._bury),
            (3, self._cancel),
            (3, self._expire),
            (2, self._resolve),
            (4, self._late),
            (2, self._switch),
            (3, self._notice),
            (3, self._wake_noticed),
            (6, self._sweep),
            (3, self._take_due),
            (7, self._advance),
        )
        self._steps += 1
        weights, calls = zip(*moves, strict=True)
        await self._dice.choices(calls, weights)[0]()

    async def _accept(self) -> None:
        dice = self._dice
        skew_s = dice.choice((0, 0, 0, 0, 0, 5, 6, -6, -300))
        at_ms = int((self._twins.now.timestamp() + skew_s) * 1000)
        self._twins.next_id = UUID(int=at_ms << 80 | 7 << 76 | 2 << 62 | dice.getrandbits(42) << 18)  # of cell 0
        wanted = NewPayment(
            account_id=self._account(),
            idempotency_key=f"key-{self._steps // 50 + dice.randrange(4)}",
            fingerprint=dice.choice((b"f", b"f", b"f", b"g")) * 32,
            amount_minor=dice.choice((440, 440, 440, 440, 0)),
            currency=dice.choice(("USD", "USD", "USD", "USD", "usd")),
            lane=dice.choice(LANES),
            metadata={"order": str(dice.randrange(100))} if dice.random() < 0.5 else {},
            execute_at=self._moment(),
            expires_at=self._moment(),
            payment_method=dice.choice((None, "pm_1")),
            return_url=dice.choice((None, "https://shop.example/back")),
            requested_provider=dice.choice((None, None, None, "http", "second")),
            manual_capture=dice.choice((None, None, True)),
            candidates=dice.choice((*[None] * 8, ["second"], ["http", "second"], ["second", "http"])),
            soft_fallback=dice.choice((None, None, True)),
        )
        await self._twins.same("find", wanted)
        await self._twins.same("accept", wanted, wake=dice.random() < 0.8)

        await self._twins.same("find", wanted)

    async def _switch(self) -> None:
        """Change the mode or the circuit of a provider, and which of them can be called."""
        dice = self._dice
        http, second = UsableProvider("http"), UsableProvider("second", dice.random() < 0.5)
        self._twins.usable = dice.choice(((http,), (http, second), (second, http), (http, second), ()))
        open_until = dice.choice((None, None, self._twins.now + timedelta(seconds=dice.choice((0.3, 5, 90)))))
        await self._twins.switch(dice.choice(("http", "second")), dice.choice(("on", "on", "drain", "off")), open_until)

    async def _notice(self) -> None:
        """One or two notices, mostly new ones of a payment that the provider has."""
        dice, rows = self._dice, self._twins.db.payments
        events = []
        for _ in range(dice.choice((1, 1, 2))):
            in_work = [row.id for row in rows.values() if row.status is Status.PROCESSING]
            payment_id = dice.choice((*in_work[-2:], self._payment_id(), self._payment_id(), NOBODY, None))
            row = None if payment_id is None else rows.get(payment_id)
            key = None if row is None else row.provider_key
            events.append(
                ProviderEvent(
                    event_id=f"evt_{dice.randrange(400)}",
                    kind="charge.succeeded",
                    payment_id=payment_id,
                    provider_ref=dice.choice((None, "pi_1", "pi_2")),
                    provider_key=dice.choice((None, key, key, "another")),
                    is_refusal=dice.random() < 0.3,
                )
            )
        await self._twins.same("take", dice.choice(("http", "http", "second")), events)

    async def _wake_noticed(self) -> None:
        """Sometimes after the attempt has ended during which a notice came."""
        rows = self._twins.db.payments
        noticed = [
            rows.get(one.payment_id) for one in self._twins.db.notices.values() if one.payment_id and not one.done_at
        ]
        in_work = [row for row in noticed if row is not None and row.status is Status.PROCESSING]
        if in_work and self._dice.random() < 0.5:
            row = self._dice.choice(in_work)
            await self._twins.same("settle", self._settlement(row.id, row.attempts))
        await self._twins.same("wake_noticed")

    def _moment(self) -> datetime | None:
        """Mostly none; else soon, now, or over."""
        by_s = self._dice.choice((None, None, None, None, None, None, 20, 5, 0, -5))
        return None if by_s is None else self._twins.now + timedelta(seconds=by_s)

    async def _expire(self) -> None:
        """Mostly one whose time is over."""
        now, rows = self._twins.now, self._twins.db.payments.values()
        over = [row.id for row in rows if row.expires_at is not None and row.expires_at <= now]
        choose = over and self._dice.random() < 0.7
        await self._twins.same("expire", self._dice.choice(over) if choose else self._payment_id())

    async def _get(self) -> None:
        await self._twins.same("get", self._payment_id(), account_id=self._account())
        await self._twins.same("events", NOBODY if self._dice.random() < 0.2 else self._payment_id())

    async def _claim(self) -> None:
        """Mostly one that is not settled."""
        waiting = [row.id for row in self._twins.db.payments.values() if not row.status.is_terminal]
        choose = waiting and self._dice.random() < 0.9
        await self._twins.same("claim", self._dice.choice(waiting) if choose else self._payment_id())

    async def _settle(self) -> None:
        payment_id, attempt = self._attempt()
        await self._twins.same("settle", self._settlement(payment_id, attempt))

    async def _renew(self) -> None:
        await self._twins.same("renew", *self._attempt())

    async def _record_late(self) -> None:
        payment_id, attempt = self._attempt()
        once = self._dice.random() < 0.3
        await self._twins.same("record_late", self._settlement(payment_id, attempt), once=once)

    async def _retry(self) -> None:
        """Sometimes one that may be."""
        failed = [row for row in self._twins.db.payments.values() if row.status in FAILED and row.provider_ref is None]
        row = self._dice.choice(failed) if failed and self._dice.random() < 0.3 else None
        payment_id, account_id = (self._payment_id(), self._account()) if row is None else (row.id, row.account_id)
        await self._twins.same("retry", payment_id, account_id=account_id, actor="someone")

    async def _bury(self) -> None:
        await self._twins.same("bury", self._payment_id(), reason="poison")

    async def _cancel(self) -> None:
        await self._twins.same("cancel", self._payment_id(), account_id=self._account(), actor="someone")

    async def _resolve(self) -> None:
        """Mostly one that needs it."""
        dice = self._dice
        waiting = [row.id for row in self._twins.db.payments.values() if row.status is Status.NEEDS_REVIEW]
        choose = waiting and dice.random() < 0.6
        await self._twins.same(
            "resolve",
            dice.choice(waiting) if choose else self._payment_id(),
            account_id=dice.choice((None, self._account())),
            decision=dice.choice((Status.SUCCESS, Status.FAILED_FINAL, Status.FAILED_FINAL)),
            reason="a human said so",
            provider_ref=dice.choice((None, None, "ref-4")),
            actor="someone",
        )

    async def _late(self) -> None:
        """The look-up of a closed payment, taken and answered, or not; sometimes of what it was before."""
        dice, rows = self._dice, self._twins.db.payments.values()
        closed = [row.id for row in rows if row.status in CLOSED_UNCHARGED and row.sweep_at is not None]
        payment_id = dice.choice(closed) if closed and dice.random() < 0.9 else self._payment_id()
        row = self._twins.db.payments.get(payment_id)
        if row is not None and row.sweep_at is not None and dice.random() < 0.7:
            await self._twins.advance(max(timedelta(0), row.sweep_at - self._twins.now))
            await self._twins.same("take_due", dict.fromkeys(LANES), limit=100)
        await self._twins.same("begin_late_look_up", payment_id, again=(LEASE, timedelta(hours=1)))
        if row is None:
            return
        payment = dataclasses.replace(row.payment(), version=row.version - dice.choice((0, 0, 0, 1)))
        match dice.randrange(5):
            case 0 | 1 | 2:
                begun_at = self._twins.now - dice.choice((timedelta(0), LEASE, timedelta(days=2)))
                await self._twins.same("plan_late_look_up", payment, begun_at=begun_at)
            case 3:
                await self._twins.same("fail_late_look_up", payment, reason="no answer")

    async def _sweep(self) -> None:
        for _ in range(self._dice.randrange(3)):
            await self._twins.same("advance_horizon")
        for lane in self._dice.sample(LANES, 2):
            await self._twins.same("mark_lost", lane, self._age())

    def _age(self) -> timedelta | None:
        """Of a lane's oldest entry."""
        age_s = self._dice.choice((None, None, 0, 5, 60, 400))
        return None if age_s is None else timedelta(seconds=age_s)

    async def _take_due(self) -> None:
        lanes = {lane: self._age() for lane in self._dice.sample(LANES, self._dice.randint(1, 3))}
        await self._twins.same("take_due", lanes, limit=self._limit(lanes), by_retry_at=len(lanes) == 2)

    async def _advance(self) -> None:
        """Some time, or exactly as much as is left until something happens; seldom the clock steps back."""
        edges = self._edges()
        if edges and self._dice.random() < 0.5:
            by = self._dice.choice(edges) - self._twins.now + timedelta(microseconds=self._dice.choice((-1, 0, 1)))
        else:
            by = timedelta(milliseconds=self._dice.choice((-20_000, 1, 999, 4_000, 10_000, 31_000, 70_000, 400_000)))
        await self._twins.advance(by)

    def _payment_id(self) -> UUID:
        ids = list(self._twins.db.payments)
        return self._dice.choice(ids) if ids and self._dice.random() < 0.95 else NOBODY

    def _account(self) -> str:
        return self._dice.choice(("default", "default", "default", "other"))

    def _attempt(self) -> tuple[UUID, int]:
        """A payment and an attempt, mostly the one that is under way."""
        claimed = [row.id for row in self._twins.db.payments.values() if row.status is Status.PROCESSING]
        payment_id = self._dice.choice(claimed) if claimed and self._dice.random() < 0.7 else self._payment_id()
        row = self._twins.db.payments.get(payment_id)
        attempts = 0 if row is None else row.attempts
        return payment_id, attempts + self._dice.choice((0, 0, 0, 0, -1, 1))

    def _settlement(self, payment_id: UUID, attempt: int) -> Settlement:
        dice = self._dice
        delay = timedelta(seconds=dice.choice((0, 0.0123456, 5, 60)))
        reason = dice.choice((None, "", "HTTP 503"))
        ends = self._twins.now + dice.choice((timedelta(days=7), timedelta(seconds=30), timedelta(0)))
        status, event, more = dice.choice(
            (
                (Status.SUCCESS, "success", {"provider_ref": dice.choice(("ref-1", "ref-2"))}),
                (Status.FAILED_FINAL, "declined", {"decline_code": "card_declined", "reason": "card_declined"}),
                (Status.FAILED_FINAL, "spent", {"reason": reason}),
                (Status.FAILED_RETRYABLE, "unavailable", {"reason": reason, "delay": delay}),
                (Status.UNKNOWN, "unknown", {"reason": reason, "delay": delay}),
                (Status.UNKNOWN, "unknown", {"reason": reason, "delay": delay, "provider_ref": "ref-3"}),
                (Status.NEEDS_REVIEW, "needs_review", {"reason": reason}),
                (Status.FAILED_RETRYABLE, "deferred", {"reason": reason, "delay": delay}),
                (Status.FAILED_FINAL, "declined", {"decline_code": "no", "attempt_ref": "pi_1"}),
                (Status.SUBMITTED, "pending", {"delay": delay, "attempt_ref": dice.choice((None, "pi_1", "pi_2"))}),
                (Status.REQUIRES_ACTION, "pending", {"delay": delay, "attempt_ref": "pi_3", "next_action": ACTION}),
                (
                    Status.AUTHORIZED,
                    "authorized",
                    {"attempt_ref": dice.choice(("pi_1", "pi_4")), "capture_before": ends},
                ),
            )
        )
        call: Call | None = dice.choice(("charge", "charge", "look_up", None))
        latency = timedelta(milliseconds=dice.randrange(5000))
        plain = Settlement(payment_id, attempt, status, event, call, provider="test", latency=latency)
        return dataclasses.replace(plain, **more)

    def _limit(self, lanes: Collection[str]) -> int:
        """Return how many to take: never some of several that are equally overdue, of which Postgres may choose any."""
        rows = [row for row in self._twins.db.payments.values() if row.lane in lanes]
        due = sorted(row.sweep_at for row in rows if row.sweep_at is not None and row.sweep_at <= self._twins.now)
        cuts = [number for number, (one, other) in enumerate(itertools.pairwise(due), 1) if one != other]
        return self._dice.choice([*cuts, 100])

    def _edges(self) -> Sequence[datetime]:
        rows = self._twins.db.payments.values()
        times = itertools.chain.from_iterable(
            (row.lease_until, row.retry_at, row.sweep_at, row.expires_at) for row in rows
        )
        return sorted(at for at in times if at is not None and at > self._twins.now)


EVERY_WAY = {
    "accept: AcceptedRow",
    "accept: CheckViolation",
    "accept: IdempotencyKeyReused",
    "accept: TimeOutOfRange",
    "bury: False",
    "bury: True",
    "cancel: Payment",
    "cancel: PaymentNotFound",
    "cancel: StatusConflict",
    "claim: charge",
    "claim: look up first",
    "claim: ClaimRefusal",
    "claim: no provider",
    "find: IdempotencyKeyReused",
    "find: None",
    "find: Payment",
    "get: Payment",
    "get: PaymentNotFound",
    "plan_late_look_up: None",
    "fail_late_look_up: False",
    "fail_late_look_up: True",
    "record_late: None",
    "record_late: Status",
    "renew: False",
    "renew: True",
    "resolve: Payment",
    "resolve: PaymentNotFound",
    "resolve: StatusConflict",
    "retry: Payment",
    "retry: PaymentNotFound",
    "retry: StatusConflict",
    "settle: None",
    "settle: timedelta",
    "expire: False",
    "expire: True",
    "events: none",
    "events: some",
    "advance_horizon: None",
    "mark_lost: none",
    "mark_lost: some",
    "take_due: none",
    "take_due: some",
    "begin_late_look_up: LateLookUp",
    "begin_late_look_up: None",
    "take: some",
    "wake_noticed: none",
    "wake_noticed: some",
}


@pytest.mark.parametrize("seed", range(4))
async def test_the_model_does_what_the_store_does(twins: Twins, seed: int) -> None:
    play = Play(twins, seed)
    for number in range(4 * STEPS):
        if number >= STEPS and twins.seen == EVERY_WAY:  # some ways are rare
            break
        await play.step()
    assert twins.seen == EVERY_WAY


async def test_an_action_by_an_earlier_version_is_refused_as_in_the_store(twins: Twins) -> None:
    twins.next_id = payment_id = UUID(int=1)
    await twins.same("accept", new(), wake=True)
    await twins.same("claim", payment_id)
    failed = Settlement(
        payment_id, 1, Status.FAILED_RETRYABLE, "unavailable", "charge", "http", timedelta(seconds=1), delay=LEASE
    )
    await twins.same("settle", failed)
    for version in (1, 2, 2):
        await twins.same("retry", payment_id, account_id="default", actor="someone", version=version)
    await twins.same("bury", payment_id, reason="poison")
    for version in (3, 4, 4):
        await twins.same(
            "resolve",
            payment_id,
            account_id=None,
            decision=Status.FAILED_FINAL,
            reason="said so",
            provider_ref=None,
            actor="someone",
            version=version,
        )
    for version in (4, 5):
        await twins.same("retry", payment_id, account_id="default", actor="someone", version=version)
    for version in (5, 6, 6):
        await twins.same("cancel", payment_id, account_id="default", actor="someone", version=version)
    refusals = {one for one in twins.seen if one.endswith("VersionConflict")}
    assert refusals == {f"{method}: VersionConflict" for method in ("cancel", "resolve", "retry")}


async def test_a_soft_decline_leads_to_the_next_candidate_as_in_the_store(twins: Twins) -> None:
    for number in range(3):
        twins.next_id = payment_id = UUID(int=number + 1)
        candidates = (None, ["http"], ["http", "second"])[number]
        await twins.same("accept", dataclasses.replace(new(str(number)), candidates=candidates), wake=True)
        await twins.same("claim", payment_id)
        fallen = Settlement(
            payment_id, 1, Status.FAILED_RETRYABLE, "fell_back", "charge", "http", timedelta(seconds=1), delay=LEASE
        )
        for attempt in (2, 1, 1):
            await twins.same("fall_back", dataclasses.replace(fallen, attempt=attempt))
        await twins.same("claim", payment_id)


async def test_each_look_comes_as_late_as_in_the_store(twins: Twins) -> None:
    twins.next_id = UUID(int=1)
    await twins.same("accept", new(), wake=False)
    [row] = twins.db.payments.values()
    for age in (None, timedelta(seconds=30), timedelta(hours=1)):
        assert row.sweep_at is not None
        await twins.advance(row.sweep_at - twins.now)
        await twins.same("take_due", dict.fromkeys(LANES, age), limit=1)
    assert row.sweep_at == twins.now + GRACE + timedelta(minutes=5)


@pytest.mark.parametrize(("real", "model"), [(PaymentStore, MemoryPaymentStore), (SweepStore, MemorySweepStore)])
def test_the_model_has_the_methods_of_the_store(real: type, model: type) -> None:
    assert signatures(model) == signatures(real)


async def test_the_model_has_the_columns_of_the_table(twins: Twins) -> None:
    assert await twins.columns("payments") == set(COLUMNS)
    assert await twins.columns("payment_events") == set(EVENT_COLUMNS)
