"""Payments at one provider and the notices about them, in a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from okane.payment import Payment, Status
from okane.store import PaymentStore, ProviderEvent, ProviderEventStore, SweepStore, UsableProvider
from okane.store.provider_events import TakenEvent
from tests.okane.lane_states import EMPTY
from tests.okane.stored_payments import GRACE, LEASE, accept_one, claimed, new, settlement

STRIPE = "stripe"


@dataclass
class Books:
    """The stores of one database. Payments are charged at `stripe`."""

    url: str
    payments: PaymentStore
    events: ProviderEventStore
    sweeps: SweepStore

    async def payment(self, status: Status, *, key: str = "key", delay: timedelta = timedelta(hours=1)) -> Payment:
        """Make a payment that was charged once and settled with this status; an open one is due after `delay`."""
        payment_id = (await accept_one(self.payments, new(key))).payment.id
        claim = await claimed(self.payments, payment_id)
        if status is not Status.PROCESSING:
            more: dict[str, Any] = {"provider": STRIPE}
            if status is Status.FAILED_FINAL:
                more |= {"event": "declined", "decline_code": "card_declined"}
            if not status.is_at_rest:
                more["delay"] = delay
            assert await self.payments.settle(settlement(claim.payment, status, **more)) is not None
        return await self.payments.get(payment_id, account_id="default")

    async def row(self, payment_id: UUID, *columns: str) -> tuple[Any, ...]:
        [row] = await self.rows(f"SELECT {', '.join(columns)} FROM payments p WHERE id = %s", payment_id)
        return row

    async def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            return await (await connection.execute(statement, parameters)).fetchall()

    async def open_events(self) -> set[str]:
        return {name for (name,) in await self.rows("SELECT event_id FROM provider_events WHERE done_at IS NULL")}

    async def due(self) -> set[UUID]:
        """Return what the sweep takes now."""
        return {one.payment_id for one in await self.sweeps.take_due(EMPTY, limit=100)}

    async def begin_late(self, payment_id: UUID) -> bool:
        return await self.payments.begin_late_look_up(payment_id, again=[timedelta(minutes=1)]) is not None


@pytest.fixture
async def books(database_url: str) -> AsyncIterator[Books]:
    payments = PaymentStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    payments.usable_providers = lambda: (UsableProvider(STRIPE),)
    events, sweeps = ProviderEventStore(database_url, grace=GRACE), SweepStore(database_url, grace=GRACE)
    yield Books(database_url, payments, events, sweeps)
    for store in (payments, events, sweeps):
        await store.aclose()


def event(payment_id: UUID | None, event_id: str = "evt_1", **more: Any) -> ProviderEvent:
    return ProviderEvent(event_id, "payment_intent.succeeded", payment_id, **{"provider_ref": "pi_1", **more})


async def take_one(books: Books, one: ProviderEvent, provider: str = STRIPE) -> TakenEvent:
    [taken] = await books.events.take(provider, [one])
    return taken
