"""okane's own protocol as a gateway under test: `OkaneHttpProvider` and the mock provider, which charges what it is told."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import aiohttp

from okane.payment import Payment
from okane.providers.base import Pending, Provider
from okane.providers.okane_http.provider import OkaneHttpProvider
from okane.simulator.app import serving
from okane.simulator.options import SimulatorOptions
from tests.conformance.fault_proxy import Recorded
from tests.conformance.gateway import Booked, Gateway, Money, SignedNotice, Wish
from tests.conformance.skeleton import SkeletonProvider
from tests.payments import PAYMENT

_AMOUNTS = {Wish.APPROVED: 1250, Wish.DECLINED: 4002}  # the mock provider's magic amounts
_PASSWORD = "conformance-password"


class OkaneHttpGateway:
    """The driver of the mock provider."""

    name = "okane_http"
    secrets: Sequence[str] = (_PASSWORD,)
    finds_lost_charges = True
    limits_before_charging = True
    takes_operation_keys = True

    def __init__(self, url: str) -> None:
        self.url = url

    def provider(self, base_url: str, *, timeout: timedelta) -> Provider:
        return OkaneHttpProvider(base_url.replace("//", f"//okane:{_PASSWORD}@", 1), timeout=timeout)

    async def payment(self, wish: Wish) -> Payment | None:
        if wish not in _AMOUNTS:
            return None
        id_, now = uuid4(), datetime.now(UTC)
        return replace(
            PAYMENT, id=id_, provider_key=str(id_), amount_minor=_AMOUNTS[wish], created_at=now, updated_at=now
        )

    def is_charge(self, request: Recorded) -> bool:
        return request.method == "POST" and request.target.endswith("/charges")

    def is_operation(self, request: Recorded) -> bool:
        return request.method == "POST" and request.target.endswith("/operations")

    async def money(self, payment: Payment) -> Money:
        charges, operations = await self._lines("journal", payment), await self._lines("operations", payment)
        done = [(one["kind"], one["amount"]) for one in operations if one["status"] != "failed"]
        captured = sum(one["amount"] for one in charges if one["status"] == "captured")
        captured += sum(amount for kind, amount in done if kind == "capture")
        held = sum(one["amount"] for one in charges if one["status"] == "authorized")
        return Money(
            held=0 if captured or any(kind == "void" for kind, _ in done) else held,
            captured=captured,
            refunded=sum(amount for kind, amount in done if kind == "refund"),
        )

    async def finish(self, pending: Pending, *, succeeded: bool) -> None:
        raise AssertionError("okane's own protocol has no pending charge")

    async def books(self, payment: Payment) -> Sequence[Booked]:
        return [
            Booked(line["provider_ref"], line["amount"], line["currency"], moved=line["status"] == "captured")
            for line in await self._lines("journal", payment)
            if line["status"] != "declined"
        ]

    async def _lines(self, journal: str, payment: Payment) -> list[Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/{journal}", params={"payment_id": str(payment.id)}) as answer,
        ):
            return [json.loads(line) for line in (await answer.text()).splitlines()]

    async def notice(self, payment: Payment) -> SignedNotice | None:
        return None

    def check_request(self, request: Recorded) -> None:
        if self.is_charge(request):
            assert json.loads(request.body).keys() - {"capture"} == {"payment_id", "amount", "currency"}
        if self.is_operation(request):
            members = {"kind", "charge", "operation_id", "payment_id", "amount", "currency"}
            assert json.loads(request.body).keys() == members


class SkeletonGateway(OkaneHttpGateway):
    """The same mock provider with the adapter that docs/providers.md shows; it is sent a key, and takes any."""

    name = "skeleton"

    def provider(self, base_url: str, *, timeout: timedelta) -> Provider:
        return SkeletonProvider(base_url, api_key=lambda: _PASSWORD, timeout=timeout)


@contextlib.asynccontextmanager
async def gateway(driver: Callable[[str], Gateway] = OkaneHttpGateway) -> AsyncIterator[Gateway]:
    """Yield the driver, with a mock provider that charges unless the amount says otherwise."""
    with TemporaryDirectory() as folder:
        journal = Path(folder) / "journal.jsonl"
        options = SimulatorOptions(journal=journal, port=0, success=1, unavailable=0, decline=0, magic_amounts=True)
        async with serving(options) as url:
            yield driver(url)


def skeleton() -> AbstractAsyncContextManager[Gateway]:
    """Return the driver of the skeleton."""
    return gateway(SkeletonGateway)
