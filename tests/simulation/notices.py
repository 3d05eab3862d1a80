"""A model of `okane.store.ProviderEventStore`, behind the network: the notices of providers, each stored once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID

from okane.payment import CLOSED_UNCHARGED, Status
from okane.store import ProviderEventStore, WakeUp
from okane.store.provider_events import MAX_WAKE_UPS, ProviderEvent, TakenEvent
from tests.simulation.postgres import Remote
from tests.simulation.store import MemoryDatabase, PaymentRow, StoredNotice

SETTLED = (Status.SUCCESS, Status.NEEDS_REVIEW)
OPEN = (Status.UNKNOWN, Status.REQUIRES_ACTION, Status.SUBMITTED)


class RemoteProviderEventStore:
    """The `ProviderEventStore` of one process."""

    def __init__(self, remote: Remote, database: MemoryDatabase, *, grace: timedelta) -> None:
        self._remote = remote
        self._store = MemoryProviderEventStore(database, grace=grace)

    async def take(self, provider: str, events: Sequence[ProviderEvent]) -> Sequence[TakenEvent]:
        return await self._remote.ask_repeatably("take_notice", lambda: self._store.take(provider, events))

    async def wake_noticed(self, *, limit: int = MAX_WAKE_UPS) -> Sequence[WakeUp]:
        return await self._remote.ask("wake_noticed", lambda: self._store.wake_noticed(limit=limit))

    async def delete_old(self, _older_than: timedelta, *, limit: int) -> int:
        """Nothing is that old here."""
        return 0 * limit


class MemoryProviderEventStore:
    """`okane.store.ProviderEventStore` over a MemoryDatabase."""

    def __init__(self, database: MemoryDatabase, *, grace: timedelta) -> None:
        self._database = database
        self._grace = grace

    async def take(self, provider: str, events: Sequence[ProviderEvent]) -> Sequence[TakenEvent]:
        """Store those notices that are new, and make their payments due."""
        return [self._take_one(provider, event) for event in events]

    async def wake_noticed(self, *, limit: int = MAX_WAKE_UPS) -> Sequence[WakeUp]:
        """Make those payments due whose notice came while a worker had them in work."""
        database, now = self._database, self._database.now()
        woken: dict[UUID, WakeUp] = {}
        waiting = [(provider, one) for (provider, _), one in database.notices.items() if one.done_at is None]
        for provider, notice in waiting[:limit]:
            assert notice.payment_id is not None
            row = database.payments[notice.payment_id]
            if row.status is Status.PROCESSING:
                continue
            notice.done_at = now
            if row.status in SETTLED or row.provider != provider:
                continue
            has_new_key = any(
                one.event in ("retried", "fell_back") and one.at >= notice.received_at
                for one in database.events[row.id]
            )
            if row.status in CLOSED_UNCHARGED and row.sweep_at is not None:
                row.sweep_at = min(row.sweep_at, now)
            if row.status is Status.AUTHORIZED and row.open_operation is None:
                row.sweep_at = now if row.sweep_at is None else min(row.sweep_at, now)
            wake_up = self._make_due(row, None if has_new_key else notice.provider_ref, now)
            if wake_up is not None:
                woken[row.id] = wake_up
        return list(woken.values())

    def _take_one(self, provider: str, event: ProviderEvent) -> TakenEvent:
        database, now = self._database, self._database.now()
        if (provider, event.event_id) in database.notices:
            return TakenEvent("repeated")
        row = None if event.payment_id is None else database.payments.get(event.payment_id)
        if row is not None and row.provider != provider:
            row = None
        held = None if row is None or row.status in SETTLED else row
        first_key = None if event.payment_id is None else str(event.payment_id)
        key = first_key if held is None else held.provider_key
        ref = event.provider_ref if key is not None and (event.provider_key or first_key) == key else None
        in_work = held is not None and held.status is Status.PROCESSING
        database.notices[provider, event.event_id] = StoredNotice(event.payment_id, ref, now, None if in_work else now)
        if row is None:
            return TakenEvent("unmatched")
        if held is None or in_work:
            return TakenEvent("taken")
        if held.status in CLOSED_UNCHARGED and held.provider_ref is None and not event.is_refusal:
            held.sweep_at = now
        if held.status is Status.AUTHORIZED and held.open_operation is None and event.is_refusal:
            held.sweep_at = now
        return TakenEvent("taken", self._make_due(held, ref, now))

    def _make_due(self, row: PaymentRow, ref: str | None, now: datetime) -> WakeUp | None:
        """Make an open payment due now; return its wake-up."""
        row.attempt_ref = row.attempt_ref or ref
        if row.status not in OPEN:
            self._database.check(row)
            return None
        if row.retry_at is not None and row.retry_at > now:
            row.look_ups = max(row.look_ups - 1, 0)
        row.retry_at, row.sweep_at, row.sweeps = now, now + self._grace, 0
        self._database.check(row)
        return WakeUp(row.id, row.lane)


def as_event_store(store: RemoteProviderEventStore) -> ProviderEventStore:
    """Return the store, typed as the real one."""
    return cast(ProviderEventStore, store)
