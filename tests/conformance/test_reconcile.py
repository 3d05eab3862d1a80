"""A day at Stripe World, compared with rows here: planted differences are found, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from okane.providers.listing import ProviderRecord
from okane.providers.stripe.provider import StripeProvider
from okane.providers.stripe.records import StripeListing
from okane.reconcile.day import DayComparison, DayResult
from okane.reconcile.look_up import LookUps
from okane.store import ReviewStore
from okane.store.movements import MovementStore
from okane.store.operations import OperationStore
from tests.conformance.fault_proxy import CUT_ANSWER, LOST_ANSWER, Fault, FaultProxy
from tests.conformance.openapi import OpenApiDocument
from tests.conformance.stripe import _document_path
from tests.okane.money_days import Row, charged, write
from tests.okane.stored_payments import GRACE, LEASE

API_KEY = "sk_test_conformance"
Planted = set[tuple[str, str, str | None]]


class Account:
    """An account at Stripe World: each method is one request, and returns the name of what it made."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = f"{url}/v1"
        self._session = session

    async def post(self, path: str, form: Mapping[str, str]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {API_KEY}"}
        async with self._session.post(f"{self._url}/{path}", data=form, headers=headers) as answer:
            found: dict[str, Any] = await answer.json()
        assert answer.status in (200, 402), found
        return found

    async def charge(self, row: Row | None, amount: int, *, currency: str = "usd", **more: str) -> str:
        form = {
            "amount": str(amount),
            "currency": currency,
            "confirm": "true",
            "payment_method": "pm_card_visa",
            **more,
        }
        form["automatic_payment_methods[enabled]"] = "true"
        form["automatic_payment_methods[allow_redirects]"] = "never"
        if row is not None:
            form |= {"metadata[payment_id]": str(row.id), "metadata[attempt_key]": str(row.id)}
        answer = await self.post("payment_intents", form)
        intent = answer["error"]["payment_intent"] if "error" in answer else answer
        return str(intent["id"])

    async def refund(self, row: Row, amount: int, operation: UUID | None) -> str:
        form = {"payment_intent": str(row.provider_ref), "amount": str(amount)}
        if operation is not None:
            ids = {"payment_id": row.id, "operation_id": operation, "operation_key": operation}
            form |= {f"metadata[{name}]": str(id_) for name, id_ in ids.items()}
        return str((await self.post("refunds", form))["id"])


def paid(now: datetime, amount: int, **more: Any) -> Row:
    return charged(now, amount, provider="stripe", **more)


def held(now: datetime, amount: int, captured: int | None) -> tuple[Row, UUID]:
    row = Row(accepted=now, amount=amount, captured=captured, provider="stripe")
    row.event("authorized", now, "authorized")
    return row, row.operation("capture", captured or amount)


async def agreeing(account: Account, now: datetime) -> list[Row]:
    """Return rows of payments on which both sides agree."""
    plain, refused, refunded = paid(now, 1000), Row(accepted=now, amount=500, status="failed_final"), paid(now, 900)
    plain.provider_ref = await account.charge(plain, 1000)
    refused.provider = "stripe"
    refused.event("declined", now, "failed_final")
    await account.charge(refused, 500, payment_method="pm_card_visa_chargeDeclined")
    refunded.provider_ref = await account.charge(refunded, 900)
    for amount in (300, 600):
        refund = refunded.operation("refund", amount)
        name = await account.refund(refunded, amount, refund)
        refunded.operations[-1] = (refund, "refund", amount, "success", name)
        refunded.event("refunded", now, operation=refund)
    part, capture = held(now, 800, 700)
    part.provider_ref = await account.charge(part, 800, capture_method="manual")
    await account.post(f"payment_intents/{part.provider_ref}/capture", {"amount_to_capture": "700"})
    part.event("captured", now, operation=capture)
    voided, _ = held(now, 850, None)
    voided.status, voided.operations = "canceled", []
    voided.provider_ref = await account.charge(voided, 850, capture_method="manual")
    await account.post(f"payment_intents/{voided.provider_ref}/cancel", {})
    waiting, _ = held(now, 860, None)
    waiting.status, waiting.operations = "authorized", []
    waiting.provider_ref = await account.charge(waiting, 860, capture_method="manual")
    return [plain, refused, refunded, part, voided, waiting]


async def planted(account: Account, now: datetime) -> tuple[list[Row], Planted]:
    """Return rows that differ from the account, and the differences."""
    rows: list[Row] = []
    expected: Planted = set()

    def plant(kind: str, of: str, ref: str | None, *more: Row) -> None:
        rows.extend(more)
        expected.add((kind, of, ref))

    plant("missing_here", "charge", await account.charge(None, 1100))
    plant("missing_here", "charge", await account.charge(Row(accepted=now), 1200))
    twice = paid(now, 1300)
    twice.provider_ref = await account.charge(twice, 1300)
    plant("missing_here", "charge", await account.charge(twice, 1300), twice)
    plant("missing_there", "charge", None, paid(now, 1400))
    amount, currency = paid(now, 1500), paid(now, 1600)
    amount.provider_ref = await account.charge(amount, 1501)
    plant("amount", "charge", amount.provider_ref, amount)
    currency.provider_ref = await account.charge(currency, 1600, currency="eur")
    plant("currency", "charge", currency.provider_ref, currency)
    for status in ("unknown", "failed_final"):
        row = Row(accepted=now, amount=1700, status=status, provider="stripe").event(status, now, status)
        rows.append(row)
        name = await account.charge(row, 1700)
        if status == "failed_final":  # the other is being looked up
            plant("status", "charge", name)
    part, capture = held(now, 1800, 1700)
    part.provider_ref = await account.charge(part, 1800, capture_method="manual")
    await account.post(f"payment_intents/{part.provider_ref}/capture", {"amount_to_capture": "1600"})
    part.event("captured", now, operation=capture)
    plant("amount", "charge", part.provider_ref, part)
    base = paid(now, 1900)
    base.provider_ref = await account.charge(base, 1900)
    plant("missing_here", "refund", await account.refund(base, 100, None), base)
    refund = base.operation("refund", 150)
    name = await account.refund(base, 200, refund)
    base.operations[-1] = (refund, "refund", 150, "success", name)
    base.event("refunded", now, operation=refund)
    plant("amount", "refund", name)
    return rows, expected


async def compared(url: str, database_url: str, begin: datetime, end: datetime) -> DayResult:
    movements, reviews = MovementStore(database_url), ReviewStore(database_url)
    operations = OperationStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    listing = StripeListing(url, api_key=lambda: API_KEY)
    provider = StripeProvider(url, api_key=lambda: API_KEY)
    comparison = DayComparison(
        movements=movements,
        listing=listing,
        look_ups=LookUps(provider),
        find_payment=reviews.find,
        find_operation=operations.get,
        progress=lambda text: None,
    )
    try:
        return await comparison.run(begin, end)
    finally:
        for one in (movements, reviews, operations, listing, provider):
            await one.aclose()


async def test_planted_differences_are_found_in_the_list_of_stripe_and_nothing_else(
    stripe_url: str, database_url: str
) -> None:
    begin = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    await asyncio.sleep((begin - datetime.now(UTC)).total_seconds())  # other tests charge at the same account
    async with aiohttp.ClientSession() as session:
        account, now = Account(stripe_url, session), datetime.now(UTC)
        good = await agreeing(account, now)
        bad, expected = await planted(account, now)
    end = datetime.now(UTC) + timedelta(seconds=1)
    assert len(expected) >= 10
    await write(database_url, good)
    await write(database_url, bad)
    result = await compared(stripe_url, database_url, begin, end)
    found = [(one.kind, one.of, one.provider_ref) for one in result.differences]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert (result.unanswered, result.under_way) == (0, 1)
    assert result.fees["USD"] > 0


async def test_what_the_list_of_the_day_does_not_have_is_looked_up_and_agrees(
    stripe_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(self: StripeListing, begin: datetime, end: datetime) -> AsyncIterator[Sequence[ProviderRecord]]:
        yield []

    monkeypatch.setattr(StripeListing, "list_records", nothing)
    begin = datetime.now(UTC)
    async with aiohttp.ClientSession() as session:
        await write(database_url, await agreeing(Account(stripe_url, session), begin))
    result = await compared(stripe_url, database_url, begin, begin + timedelta(minutes=1))
    assert result.differences == []
    assert (result.compared, result.unanswered) == (5, 0)  # two charges, a capture, two refunds


async def test_each_record_of_several_pages_is_listed_once_although_some_requests_fail(stripe_url: str) -> None:
    document = OpenApiDocument(_document_path())
    begin = datetime.now(UTC).replace(microsecond=0)
    async with aiohttp.ClientSession() as session:
        account = Account(stripe_url, session)
        names = {await account.charge(Row(accepted=begin), 1000 + number) for number in range(101)}
    async with FaultProxy(stripe_url) as proxy:
        for fault in (LOST_ANSWER, CUT_ANSWER, Fault(status=429, headers={"Retry-After": "0"}), Fault(status=503)):
            proxy.strike(fault, lambda request: "starting_after" in request.target)
        listing = StripeListing(proxy.url, api_key=lambda: API_KEY, pauses_s=(0.0,) * 4)
        end = datetime.now(UTC) + timedelta(seconds=1)
        found = [one async for page in listing.list_records(begin, end) for one in page]
        await listing.aclose()
        assert proxy.is_healed
    assert names <= {one.provider_ref for one in found}
    assert len(found) == len({(one.kind, one.provider_ref) for one in found})
    for request in proxy.requests:
        document.check(request)
        assert request.headers["stripe-version"] == document.version
