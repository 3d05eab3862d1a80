"""A worker charges a saved payment method by the token of the provider, and nothing where there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

import pytest

from okane.errors import StoreUnavailable
from okane.payment import Payment, Status
from okane.payment_id import PaymentId
from okane.providers.base import ChargeResult, LookUpResult
from okane.worker.charge import PaymentHandler
from okane.worker.outcome_rules import OutcomeRules
from okane.worker.provider_set import ProviderSet
from streams import Done, RetryPolicy
from tests.okane.charging import Desk, Scripted, wake_up
from tests.okane.stored_payments import accept_one, expire_lease, new

METHOD = UUID(int=PaymentId().int)


@dataclass
class Noting(Scripted):
    """A provider that remembers the payment method of each call, and whether a look-up might charge."""

    methods: list[tuple[str, str | None]] = field(default_factory=list)

    async def charge(self, payment: Payment) -> ChargeResult:
        self.methods.append(("charge", payment.payment_method))
        return await super().charge(payment)

    async def look_up(self, payment: Payment, *, may_execute: bool) -> LookUpResult:
        self.methods.append((f"look up {may_execute}", payment.payment_method))
        return await super().look_up(payment, may_execute=may_execute)


@dataclass
class Tokens:
    """The tokens of `METHOD`, once Postgres has failed as often as told."""

    of_method: Mapping[str, str]
    failures: int = 0

    async def tokens(self, account_id: str, method_id: UUID) -> Mapping[str, str]:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away")
        return self.of_method if (account_id, method_id) == ("default", METHOD) else {}


@dataclass
class Till:
    """A handler over a real store, with saved methods."""

    desk: Desk
    provider: Noting = field(default_factory=Noting)

    async def charged(self, method: str | None, tokens: Tokens, *, crashed: bool = False) -> tuple[object, Payment]:
        """Handle one payment with this method; return the outcome of its wake-up, and the payment as it is then."""
        rules = OutcomeRules(policy=RetryPolicy(max_attempts=2), max_deliveries=5, look_up_delays=())
        handler = PaymentHandler(
            store=self.desk.store,
            providers=ProviderSet([self.provider]),
            leases=self.desk.leases,
            rules=rules,
            metrics=self.desk.metrics,
            methods=tokens,
            roll=lambda: 0.0,
        )
        row = await accept_one(self.desk.store, replace(new(str(uuid4())), payment_method=method))
        if crashed:
            await self.desk.store.claim(row.payment.id)
            await expire_lease(self.desk.url, row.payment.id)
        outcome = await handler(wake_up(row.payment.id))
        return outcome, await self.desk.store.get(row.payment.id, account_id="default")


@pytest.fixture
async def till(database_url: str) -> AsyncIterator[Till]:
    async with Desk.over(database_url, look_up_delays=()) as desk:
        yield Till(desk)


async def test_the_provider_gets_its_token_and_the_row_keeps_the_id(till: Till) -> None:
    outcome, payment = await till.charged(str(METHOD), Tokens({"scripted": "pm_1", "other": "x"}, failures=2))
    assert (outcome, payment.status, payment.payment_method) == (Done(), Status.SUCCESS, str(METHOD))
    assert till.provider.methods == [("charge", "pm_1")]


async def test_an_attempt_after_a_crash_is_looked_up_and_charged_by_the_same_token(till: Till) -> None:
    _, payment = await till.charged(str(METHOD), Tokens({"scripted": "pm_1"}), crashed=True)
    assert payment.status is Status.SUCCESS
    assert till.provider.methods == [("look up True", "pm_1"), ("charge", "pm_1")]


@pytest.mark.parametrize("crashed", [False, True])
async def test_nothing_is_sent_without_a_token_at_the_provider(till: Till, crashed: bool) -> None:
    _, payment = await till.charged(str(METHOD), Tokens({"other": "x"}), crashed=crashed)
    assert (payment.status, payment.decline_code) == (Status.FAILED_FINAL, "payment_method_unusable")
    assert till.provider.methods == ([("look up False", str(METHOD))] if crashed else [])


@pytest.mark.parametrize("method", ["pm_own", None, "6f9619ff-8b86-4011-b42d-00cf4fc964ff"])
async def test_a_method_that_is_not_saved_is_the_providers_own_token(till: Till, method: str | None) -> None:
    _, payment = await till.charged(method, Tokens({"scripted": "pm_1"}))
    assert payment.status is Status.SUCCESS
    assert till.provider.methods == [("charge", method)]
