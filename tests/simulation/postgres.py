"""The payment store of a process: the model of Postgres, behind a network that delays and loses."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar, cast
from uuid import UUID

from okane.errors import StoreBusy, StoreUnavailable
from okane.payment import Payment, Status
from okane.store import (
    AcceptedRow,
    Claim,
    ClaimRefusal,
    LateLookUp,
    NewPayment,
    PaymentStore,
    Settlement,
    SweepStore,
    UsableProvider,
    WakeUp,
)
from okane.store.sweep import MarkResult
from tests.simulation.network import Exchange, Link, Network, NoAnswer, NotSent
from tests.simulation.store import MemoryDatabase, MemoryPaymentStore, MemorySweepStore

T = TypeVar("T")

TIMEOUT_S: Final = 11.0  # the statement's own ten seconds, and one more for a silent server


class Remote:
    """The way to the database over the network."""

    def __init__(self, network: Network, link: Link) -> None:
        self.network = network
        self._link = link

    async def ask(self, what: str, statement: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Execute a statement and return its result. Raises StoreUnavailable if the answer is lost."""

        def effect(_exchange: Exchange) -> T:
            if self._link.busy and self.network.dice.random() < self._link.busy:
                self.network.faults["busy row"] += 1
                raise StoreBusy("canceling statement due to lock timeout")
            return _at_once(statement())

        try:
            return cast(T, await self.network.call(self._link, what, effect, timeout_s=TIMEOUT_S))
        except (NotSent, NoAnswer) as error:
            raise StoreUnavailable(str(error)) from None

    async def ask_repeatably(self, what: str, statement: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """`ask`, once more if the connection turns out to be dead, as `Session.fetch_repeatable` does."""
        asked_s = self.network.loop.time()
        try:
            return await self.ask(what, statement)
        except StoreUnavailable as error:
            if isinstance(error, StoreBusy) or self.network.loop.time() - asked_s > 1.0:
                raise
        return await self.ask(what, statement)


class RemotePaymentStore:
    """The `PaymentStore` of one process."""

    def __init__(
        self,
        remote: Remote,
        database: MemoryDatabase,
        *,
        actor: str,
        lease: timedelta,
        grace: timedelta,
        late_look_ups: Sequence[timedelta],
        dies_of: str | None = None,
    ) -> None:
        """With `dies_of`, a process dies before it claims the payment of this idempotency key."""
        self._remote = remote
        self._dies_of = dies_of
        self._database = database
        self._actor, self._lease, self._grace = actor, lease, grace
        self._store = MemoryPaymentStore(database, actor=actor, lease=lease, grace=grace, late_look_ups=late_look_ups)

    @property
    def usable_providers(self) -> Callable[[], Sequence[UsableProvider]]:
        return self._store.usable_providers

    @usable_providers.setter
    def usable_providers(self, usable: Callable[[], Sequence[UsableProvider]]) -> None:
        self._store.usable_providers = usable

    async def _accept(self, new: NewPayment, *, wake: bool) -> AcceptedRow | BaseException:
        # The id is made here: its time is that of the request, whenever it arrives.
        ours = self._database.new_id()
        store = MemoryPaymentStore(
            self._database, actor=self._actor, lease=self._lease, grace=self._grace, new_id=lambda: ours
        )
        [row] = await self._remote.ask_repeatably("accept", lambda: store.accept_many([new], wakes=int(wake)))
        return replace(row, created=row.payment.id == ours) if isinstance(row, AcceptedRow) else row

    async def accept_many(self, news: Sequence[NewPayment], *, wakes: int) -> Sequence[AcceptedRow | BaseException]:
        answers: list[AcceptedRow | BaseException] = []
        for number, new in enumerate(news):
            try:
                answers.append(await self._accept(new, wake=number < wakes))
            except StoreUnavailable as error:
                answers.append(error)
        return answers

    async def get(self, payment_id: UUID, *, account_id: str) -> Payment:
        return await self._remote.ask_repeatably("get", lambda: self._store.get(payment_id, account_id=account_id))

    async def claim(self, payment_id: UUID) -> Claim | ClaimRefusal:
        if self._dies_of is not None:
            row = self._database.payments.get(payment_id)
            if row is not None and row.idempotency_key == self._dies_of:
                await self._remote.network.die("poison")
        valid_until_s = self._remote.network.loop.time() + self._lease.total_seconds()
        claim = await self._remote.ask("claim", lambda: self._store.claim(payment_id))
        return replace(claim, valid_until_s=valid_until_s) if isinstance(claim, Claim) else claim

    async def settle(self, settlement: Settlement) -> timedelta | None:
        return await self._remote.ask("settle_row", lambda: self._store.settle(settlement))

    async def fall_back(self, settlement: Settlement) -> timedelta | None:
        return await self._remote.ask("fall_back", lambda: self._store.fall_back(settlement))

    async def renew(self, payment_id: UUID, attempt: int) -> bool:
        return await self._remote.ask("renew_row", lambda: self._store.renew(payment_id, attempt))

    async def record_late(self, settlement: Settlement, *, once: bool = False) -> Status | None:
        return await self._remote.ask("record_late", lambda: self._store.record_late(settlement, once=once))

    async def begin_late_look_up(self, payment_id: UUID, *, again: Sequence[timedelta]) -> LateLookUp | None:
        return await self._remote.ask("take_late", lambda: self._store.begin_late_look_up(payment_id, again=again))

    async def begin_authorization_look_up(self, payment_id: UUID) -> Payment | None:
        return await self._remote.ask("take_held", lambda: self._store.begin_authorization_look_up(payment_id))

    async def plan_authorization_look_up(self, payment: Payment) -> None:
        return await self._remote.ask("held_answered", lambda: self._store.plan_authorization_look_up(payment))

    async def plan_late_look_up(self, payment: Payment, *, begun_at: datetime) -> None:
        return await self._remote.ask(
            "late_answered", lambda: self._store.plan_late_look_up(payment, begun_at=begun_at)
        )

    async def fail_late_look_up(self, payment: Payment, *, reason: str) -> bool:
        return await self._remote.ask("late_failed", lambda: self._store.fail_late_look_up(payment, reason=reason))

    async def retry(self, payment_id: UUID, *, account_id: str, actor: str, version: int | None = None) -> Payment:
        return await self._remote.ask(
            "retry", lambda: self._store.retry(payment_id, account_id=account_id, actor=actor, version=version)
        )

    async def cancel(self, payment_id: UUID, *, account_id: str, actor: str, version: int | None = None) -> Payment:
        return await self._remote.ask(
            "cancel", lambda: self._store.cancel(payment_id, account_id=account_id, actor=actor, version=version)
        )

    async def find(self, new: NewPayment) -> Payment | None:
        return await self._remote.ask_repeatably("find", lambda: self._store.find(new))

    async def expire(self, payment_id: UUID) -> bool:
        return await self._remote.ask("expire", lambda: self._store.expire(payment_id))

    async def bury(self, payment_id: UUID, *, reason: str) -> bool:
        return await self._remote.ask("bury", lambda: self._store.bury(payment_id, reason=reason))


class RemoteSweepStore:
    """The `SweepStore` of one process."""

    def __init__(self, remote: Remote, database: MemoryDatabase, *, grace: timedelta) -> None:
        self._remote = remote
        self._store = MemorySweepStore(database, grace=grace)

    async def advance_horizon(self) -> None:
        await self._remote.ask("advance_horizon", self._store.advance_horizon)

    async def mark_lost(self, lane: str, oldest_entry: timedelta | None) -> MarkResult:
        return await self._remote.ask("mark_lost", lambda: self._store.mark_lost(lane, oldest_entry))

    async def take_due(
        self, lanes: Mapping[str, timedelta | None], *, limit: int, by_retry_at: bool = False
    ) -> Sequence[WakeUp]:
        return await self._remote.ask(
            "take_due", lambda: self._store.take_due(lanes, limit=limit, by_retry_at=by_retry_at)
        )


def as_payment_store(store: RemotePaymentStore) -> PaymentStore:
    """Return the store, typed as the real one."""
    return cast(PaymentStore, store)


def as_sweep_store(store: RemoteSweepStore) -> SweepStore:
    """Return the store, typed as the real one."""
    return cast(SweepStore, store)


def _at_once(statement: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that never suspends."""
    try:
        statement.send(None)
    except StopIteration as done:
        return cast(T, done.value)
    raise AssertionError("the model of the store waits for something")
