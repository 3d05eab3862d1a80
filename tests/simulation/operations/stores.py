"""The operation store of a process: the model of Postgres, behind a network that delays and loses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from okane.errors import PaymentNotFound
from okane.operation import NewOperation, Operation, OperationStatus
from okane.store import UsableProvider
from okane.store.operation_records import (
    LateOperationLookUp,
    OperationClaim,
    OperationRefusal,
    OperationSettlement,
    OperationWakeUp,
    RequestedOperation,
)
from okane.store.operations import OperationLists, OperationStore
from tests.simulation.operations.tables import MemoryOperationStore, OperationTables
from tests.simulation.postgres import Remote


class RemoteOperationStore:
    """The `OperationStore` of one process."""

    def __init__(
        self,
        remote: Remote,
        tables: OperationTables,
        *,
        actor: str,
        lease: timedelta,
        grace: timedelta,
        late_look_ups: Sequence[timedelta],
    ) -> None:
        self._remote = remote
        self._tables = tables
        self._actor, self._lease, self._grace, self._late_look_ups = actor, lease, grace, late_look_ups
        self._store = self._with()

    @property
    def usable_providers(self) -> Callable[[], Sequence[UsableProvider]]:
        return self._store.usable_providers

    @usable_providers.setter
    def usable_providers(self, usable: Callable[[], Sequence[UsableProvider]]) -> None:
        self._store.usable_providers = usable

    async def request(self, new: NewOperation, *, actor: str | None = None) -> RequestedOperation:
        ours = self._tables.db.new_id()
        store = self._with(lambda: ours)
        requested = await self._remote.ask_repeatably("accept", lambda: store.request(new, actor=actor))
        return replace(requested, created=requested.operation.id == ours)

    async def void_expired(self, payment_id: UUID, *, is_over: bool = False) -> Operation | None:
        return await self._remote.ask("expire", lambda: self._store.void_expired(payment_id, is_over=is_over))

    async def claim(self, operation_id: UUID) -> OperationClaim | OperationRefusal:
        asked_s = self._remote.network.loop.time()
        claim = await self._remote.ask("claim", lambda: self._store.claim(operation_id))
        if isinstance(claim, OperationRefusal):
            return claim
        return replace(claim, valid_until_s=asked_s + self._lease.total_seconds())

    async def settle(self, settlement: OperationSettlement) -> timedelta | None:
        return await self._remote.ask("settle_row", lambda: self._store.settle(settlement))

    async def renew(self, operation_id: UUID, attempt: int) -> bool:
        return await self._remote.ask("renew_row", lambda: self._store.renew(operation_id, attempt))

    async def record_late(self, settlement: OperationSettlement, *, once: bool = False) -> OperationStatus | None:
        return await self._remote.ask("record_late", lambda: self._store.record_late(settlement, once=once))

    async def bury(self, operation_id: UUID, *, reason: str) -> bool:
        return await self._remote.ask("bury", lambda: self._store.bury(operation_id, reason=reason))

    async def cancel(
        self, operation_id: UUID, *, account_id: str | None, actor: str, version: int | None = None
    ) -> Operation:
        return await self._remote.ask(
            "cancel", lambda: self._store.cancel(operation_id, account_id=account_id, actor=actor, version=version)
        )

    async def retry(
        self, operation_id: UUID, *, account_id: str | None, actor: str, version: int | None = None
    ) -> Operation:
        return await self._remote.ask(
            "retry", lambda: self._store.retry(operation_id, account_id=account_id, actor=actor, version=version)
        )

    async def resolve(self, operation_id: UUID, **decision: Any) -> Operation:
        return await self._remote.ask("resolve", lambda: self._store.resolve(operation_id, **decision))

    async def begin_late_look_up(self, operation_id: UUID, *, again: Sequence[timedelta]) -> LateOperationLookUp | None:
        return await self._remote.ask("take_late", lambda: self._store.begin_late_look_up(operation_id, again=again))

    async def plan_late_look_up(self, operation: Operation, *, begun_at: datetime) -> None:
        await self._remote.ask("late_answered", lambda: self._store.plan_late_look_up(operation, begun_at=begun_at))

    async def fail_late_look_up(self, operation: Operation, *, reason: str) -> bool:
        return await self._remote.ask("late_failed", lambda: self._store.fail_late_look_up(operation, reason=reason))

    async def due(
        self, lanes: Mapping[str, timedelta | None], *, limit: int, by_retry_at: bool = False
    ) -> Sequence[OperationWakeUp]:
        return await self._remote.ask("take_due", lambda: self._store.due(lanes, limit=limit, by_retry_at=by_retry_at))

    async def get(self, operation_id: UUID, *, account_id: str | None = None) -> Operation:
        return await self._remote.ask_repeatably("get", lambda: self._store.get(operation_id, account_id=account_id))

    def _with(self, new_id: Callable[[], UUID] | None = None) -> MemoryOperationStore:
        return MemoryOperationStore(
            self._tables,
            actor=self._actor,
            lease=self._lease,
            grace=self._grace,
            late_look_ups=self._late_look_ups,
            new_id=new_id,
        )


class RemoteOperationLists:
    """The `OperationLists` of one process."""

    def __init__(self, remote: Remote, tables: OperationTables) -> None:
        self._remote = remote
        self._tables = tables

    async def of_payment(self, payment_id: UUID, *, account_id: str | None) -> Sequence[Operation]:
        async def read() -> Sequence[Operation]:
            payment = self._tables.db.payments.get(payment_id)
            if payment is None or account_id not in (None, payment.account_id):
                raise PaymentNotFound(str(payment_id))
            return [row.operation() for row in self._tables.of_payment(payment_id)]

        return await self._remote.ask_repeatably("get", read)


def as_operation_store(store: RemoteOperationStore) -> OperationStore:
    """Return the store, typed as the real one."""
    return cast(OperationStore, store)


def as_operation_lists(lists: RemoteOperationLists) -> OperationLists:
    """Return the lists, typed as the real ones."""
    return cast(OperationLists, lists)
