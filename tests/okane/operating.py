"""Captures, voids and refunds over a real store and a provider that answers by a script."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry

from okane.lanes import operations_stream
from okane.metrics import OkaneMetrics
from okane.operation import NewOperation, Operation, OperationKind
from okane.payment import Payment
from okane.providers.base import (
    Approved,
    Authorized,
    ChargeResult,
    LookUpResult,
    NotFound,
    OperationLookUp,
    OperationResult,
    Traits,
)
from okane.store import PaymentStore
from okane.store.operations import OperationStore
from okane.worker.charge import PaymentHandler
from okane.worker.lease_renewal import LeaseRenewal
from okane.worker.operate import OperationHandler
from okane.worker.operation_metrics import OperationMetrics
from okane.worker.operation_rules import OperationRules
from okane.worker.outcome_rules import OutcomeRules
from okane.worker.provider_calls import ProviderCalls
from okane.worker.provider_set import ProviderSet
from okane.worker.swept_operations import EndingAuthorizations
from streams import Message, RetryPolicy
from streams.testing import MemoryQueue
from tests.no_operations import NoOperations
from tests.okane.charging import TRAITS, wake_up
from tests.okane.stored_payments import GRACE, LEASE, accept_one, execute, new

CAPTURE, VOID, REFUND = OperationKind.CAPTURE, OperationKind.VOID, OperationKind.REFUND


@dataclass
class ScriptedOperations(NoOperations):
    """A provider whose operations are answered as told, and who remembers what it was asked."""

    name: str = "scripted"
    charges: Callable[[], ChargeResult] = field(default=lambda: Approved("ref"))
    holds: Callable[[], LookUpResult] | None = None  # the answers to look-ups of authorizations
    operates: Callable[[], OperationResult] = field(default=lambda: Approved("op"))
    look_ups: Callable[[], OperationLookUp] = field(default=NotFound)
    asked: list[str] = field(default_factory=list)
    traits: Traits = TRAITS

    async def charge(self, payment: Payment) -> ChargeResult:
        return self.charges()

    async def look_up(self, payment: Payment, *, may_execute: bool) -> LookUpResult:
        assert self.holds is not None, "no payment is looked up here"
        assert not may_execute
        self.asked.append(f"look up {payment.attempt_ref}")
        return self.holds()

    async def operate(self, operation: Operation, payment: Payment) -> OperationResult:
        self.asked.append(f"{operation.kind} {operation.amount_minor}")
        return self.operates()

    async def look_up_operation(self, operation: Operation, payment: Payment, *, may_execute: bool) -> OperationLookUp:
        self.asked.append(f"look up{'' if may_execute else ', no more'}")
        return self.look_ups()

    async def aclose(self) -> None:
        pass


@dataclass
class OperationDesk:
    """The handlers of both streams of a worker, with everything around them."""

    payments: PaymentStore
    store: OperationStore
    provider: ScriptedOperations
    leases: LeaseRenewal
    charge: PaymentHandler
    operate: OperationHandler
    metrics: OperationMetrics
    queue: MemoryQueue  # of okane's own voids
    url: str

    @classmethod
    @asynccontextmanager
    async def over(cls, url: str) -> AsyncIterator[Self]:
        """Yield one over this database."""
        payments = PaymentStore(url, actor="w1", lease=LEASE, grace=GRACE)
        store = OperationStore(url, actor="w1", lease=LEASE, grace=GRACE)
        rules = OutcomeRules(
            policy=RetryPolicy(max_attempts=2), max_deliveries=5, look_up_delays=(timedelta(seconds=5),)
        )
        provider = ScriptedOperations()
        providers = ProviderSet([provider])
        payments.usable_providers = store.usable_providers = providers.usable
        registry = CollectorRegistry()
        metrics, process = OperationMetrics(registry), OkaneMetrics(registry)
        queue = MemoryQueue(operations_stream("test"))
        leases = LeaseRenewal(store=store, lease=LEASE)
        charge = PaymentHandler(
            store=payments,
            providers=providers,
            leases=LeaseRenewal(store=payments, lease=LEASE),
            rules=rules,
            metrics=process,
            end_authorization=EndingAuthorizations(store, queue).void,
        )
        operate = OperationHandler(
            store=store,
            providers=providers,
            calls=ProviderCalls(process),
            leases=leases,
            rules=OperationRules(rules),
            metrics=metrics,
            roll=lambda: 0.5,
        )
        yield cls(payments, store, provider, leases, charge, operate, metrics, queue, url)
        await payments.aclose()
        await store.aclose()

    async def captured(self) -> UUID:
        """Make a payment that was charged: 440 minor units."""
        payment_id = (await accept_one(self.payments, new(str(uuid4())))).payment.id
        await self.charge(wake_up(payment_id))
        return payment_id

    async def authorized(self, *, ends_in: timedelta | None = timedelta(days=7)) -> UUID:
        """Make a payment whose money is held: 440 minor units. `ends_in` None: the provider does not tell for how long."""
        ends = None if ends_in is None else datetime.now(UTC) + ends_in
        self.provider.charges = lambda: Authorized("auth", ends)
        try:
            return await self.captured()
        finally:
            self.provider.charges = lambda: Approved("ref")

    async def request(self, kind: OperationKind, payment_id: UUID, amount_minor: int | None = None) -> UUID:
        """Request an operation; return its id."""
        wanted = NewOperation(
            payment_id=payment_id,
            account_id="default",
            kind=kind,
            idempotency_key=str(uuid4()),
            fingerprint=b"f" * 32,
            amount_minor=amount_minor,
        )
        return (await self.store.request(wanted)).operation.id

    async def payment(self, payment_id: UUID) -> Payment:
        return await self.payments.get(payment_id, account_id="default")

    async def expire_lease(self, operation_id: UUID) -> None:
        await execute(self.url, "UPDATE operations SET lease_until = now() WHERE id = %s", [operation_id])


@pytest.fixture
async def operation_desk(database_url: str) -> AsyncIterator[OperationDesk]:
    async with OperationDesk.over(database_url) as one:
        yield one


def operation_wake_up(operation_id: UUID, *, deliveries: int = 1) -> Message:
    return Message("1-1", "refund", operation_id.bytes, deliveries=deliveries)
