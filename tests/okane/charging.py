"""A charge over a real store and a provider that answers by a script."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Self
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry

from okane.metrics import OkaneMetrics
from okane.payment import Payment, Status
from okane.providers.base import Approved, ChargeResult, LookUpResult, NotFound, Traits
from okane.store import PaymentStore
from okane.worker.charge import PaymentHandler
from okane.worker.lease_renewal import LeaseRenewal
from okane.worker.outcome_rules import OutcomeRules
from okane.worker.provider_set import ProviderSet
from streams import Message, RetryPolicy
from tests.no_operations import NoOperations
from tests.okane.stored_payments import GRACE, LEASE, accept_one, new

TRAITS = Traits(timeout=timedelta(seconds=5), consistency_lag=timedelta(0), unknown_deadline=timedelta(hours=24))


@dataclass
class Scripted(NoOperations):
    """A provider that answers as told and remembers what it was asked."""

    name: str = "scripted"
    charges: Callable[[], ChargeResult] = field(default=lambda: Approved("ref"))
    look_ups: Callable[[], LookUpResult] = field(default=NotFound)
    asked: list[str] = field(default_factory=list)
    traits: Traits = TRAITS

    async def charge(self, payment: Payment) -> ChargeResult:
        self.asked.append(f"charge {payment.provider_key}")
        return self.charges()

    async def look_up(self, payment: Payment, *, may_execute: bool) -> LookUpResult:
        self.asked.append(f"look up {payment.provider_key}")
        return self.look_ups()

    async def aclose(self) -> None:
        pass


@dataclass
class Desk:
    """A charge with everything around it."""

    store: PaymentStore
    provider: Scripted
    leases: LeaseRenewal
    charge: PaymentHandler
    metrics: OkaneMetrics
    url: str

    @classmethod
    @asynccontextmanager
    async def over(cls, url: str, *, look_up_delays: Sequence[timedelta]) -> AsyncIterator[Self]:
        """Yield one over this database."""
        store = PaymentStore(url, actor="w1", lease=LEASE, grace=GRACE)
        provider, leases = Scripted(), LeaseRenewal(store=store, lease=LEASE)
        rules = OutcomeRules(
            policy=RetryPolicy(max_attempts=2),
            max_deliveries=5,
            look_up_delays=look_up_delays,
        )
        providers = ProviderSet([provider])
        store.usable_providers = providers.usable
        metrics = OkaneMetrics(CollectorRegistry())
        charge = PaymentHandler(
            store=store, providers=providers, leases=leases, rules=rules, metrics=metrics, roll=lambda: 0.5
        )
        yield cls(store, provider, leases, charge, metrics, url)
        await store.aclose()

    async def accepted(self) -> UUID:
        return (await accept_one(self.store, new(str(uuid4())))).payment.id

    async def status(self, payment_id: UUID) -> Status:
        return (await self.store.get(payment_id, account_id="default")).status


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    async with Desk.over(database_url, look_up_delays=(timedelta(seconds=5),)) as one:
        yield one


def wake_up(payment_id: UUID, *, deliveries: int = 1) -> Message:
    return Message("1-1", "low", payment_id.bytes, deliveries=deliveries)
