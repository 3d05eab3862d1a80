"""The bench of a case: the adapter behind the fault proxy, and a note of every result."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from okane.operation import Operation
from okane.payment import Payment, Status
from okane.providers.base import (
    Approved,
    Authorized,
    ChargeResult,
    LookUpResult,
    OperationLookUp,
    OperationResult,
    Pending,
    Provider,
)
from tests.conformance.fault_proxy import Fault, FaultProxy
from tests.conformance.gateway import Booked, Gateway, Money, SignedNotice, Wish

TIMEOUT = timedelta(seconds=3)


@dataclass
class Bench:
    """One case's adapter and proxy."""

    gateway: Gateway
    proxy: FaultProxy
    provider: Provider
    results: list[LookUpResult] = field(default_factory=list)

    async def payment(self, wish: Wish = Wish.APPROVED) -> Payment:
        """Return a payment with this outcome. Skips the case for a gateway that has no such outcome."""
        payment = await self.gateway.payment(wish)
        if payment is None:
            pytest.skip(f"{self.gateway.name} has no payment that is {wish.value}")
        return payment

    async def charge(self, payment: Payment) -> ChargeResult:
        result = await self.provider.charge(payment)
        self.results.append(result)
        return result

    async def look_up(self, payment: Payment, *, may_execute: bool = False) -> LookUpResult:
        """Look up; one that may execute nothing must send nothing that charges."""
        sent = len(self.proxy.requests)
        result = await self.provider.look_up(payment, may_execute=may_execute)
        charges = [request for request in self.proxy.requests[sent:] if self.gateway.is_charge(request)]
        assert may_execute or not charges, f"a look-up that may execute nothing has sent {charges}"
        self.results.append(result)
        return result

    async def settled(self, payment: Payment, result: LookUpResult, *, succeeded: bool = True) -> LookUpResult:
        """Return the result after the customer has acted, if the payment waits for that."""
        if not isinstance(result, Pending):
            return result
        await self.gateway.finish(result, succeeded=succeeded)
        return await self.look_up(replace(payment, attempt_ref=result.provider_ref))

    async def approved(self, payment: Payment) -> Approved:
        result = await self.settled(payment, await self.charge(payment))
        assert isinstance(result, Approved), result
        return result

    async def notice(self) -> tuple[Payment, SignedNotice]:
        """Return a charged payment and its notice. Skips the case for a gateway that sends none."""
        payment = await self.payment()
        await self.approved(payment)
        signed = await self.gateway.notice(payment)
        if signed is None:
            pytest.skip(f"{self.gateway.name} sends no notices")
        return payment, signed

    async def books(self, payment: Payment) -> list[Booked]:
        return list(await self.gateway.books(payment))

    async def booked_once(self, payment: Payment) -> Booked:
        """Return the one entry in the gateway's books; there must be no second one."""
        [entry] = await self.books(payment)
        assert (entry.amount_minor, entry.currency) == (payment.amount_minor, payment.currency)
        return entry

    def strike(self, fault: Fault) -> None:
        """Let this befall the next charge."""
        self.proxy.strike(fault, self.gateway.is_charge)

    def strike_operation(self, fault: Fault) -> None:
        """Let this befall the next capture, void or refund."""
        self.proxy.strike(fault, self.gateway.is_operation)

    async def authorized(self) -> Payment:
        """Return a payment whose money is held, as its row is then."""
        payment = replace(await self.payment(), manual_capture=True)
        held = await self.settled(payment, await self.charge(payment))
        assert isinstance(held, Authorized), held
        return replace(payment, status=Status.AUTHORIZED, attempt_ref=held.provider_ref)

    async def captured(self) -> Payment:
        """Return a payment that was charged at once, as its row is then."""
        payment = await self.payment()
        approved = await self.approved(payment)
        return replace(payment, status=Status.SUCCESS, provider_ref=approved.provider_ref)

    async def operate(self, operation: Operation, payment: Payment) -> OperationResult:
        result = await self.provider.operate(operation, payment)
        self.results.append(result)
        return result

    async def look_up_operation(
        self, operation: Operation, payment: Payment, *, may_execute: bool = False
    ) -> OperationLookUp:
        """Look up; one that may execute nothing must send nothing that does."""
        sent = len(self.proxy.requests)
        result = await self.provider.look_up_operation(operation, payment, may_execute=may_execute)
        executing = [request for request in self.proxy.requests[sent:] if self.gateway.is_operation(request)]
        assert may_execute or not executing, f"a look-up that may execute nothing has sent {executing}"
        self.results.append(result)
        return result

    async def money(self, payment: Payment) -> Money:
        return await self.gateway.money(payment)


@contextlib.asynccontextmanager
async def bench_of(gateway: Gateway) -> AsyncIterator[Bench]:
    """Yield a bench; afterwards check every request and every result."""
    async with FaultProxy(gateway.url) as proxy:
        provider = gateway.provider(proxy.url, timeout=TIMEOUT)
        try:
            bench = Bench(gateway, proxy, provider)
            yield bench
        finally:
            await provider.aclose()
        assert proxy.is_healed, "a fault has befallen no request"
        for request in proxy.requests:
            gateway.check_request(request)
        shown = repr(bench.results)
        leaked = [secret for secret in gateway.secrets if secret in shown]
        assert not leaked, f"a secret stands in a result: {shown}"
