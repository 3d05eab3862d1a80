"""Stripe World: cards that are attached to customers, and disputes from the webhook to the fetched answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import aiohttp
import stripe

from okane.dispute import DisputeStatus
from okane.payment import Payment
from okane.providers.base import Approved, Declined, NotFound, ReportedDispute
from okane.providers.stripe.provider import StripeProvider
from okane.providers.stripe.webhook import StripeNoticeParser
from tests.conformance.fault_proxy import FaultProxy
from tests.conformance.openapi import OpenApiDocument
from tests.conformance.stripe import _document_path
from tests.payments import PAYMENT

KEY = "sk_test_conformance"
SECRET = "whsec_conformance"


async def ask(url: str, path: str, form: Mapping[str, str] | None = None) -> dict[str, Any]:
    headers, method = {"Authorization": f"Bearer {KEY}"}, "GET" if form is None else "POST"
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, f"{url}/v1/{path}", data=form) as answer,
    ):
        found: dict[str, Any] = await answer.json()
    assert answer.status == 200, found
    return found


def paid_by(method: str) -> Payment:
    id_, now = uuid4(), datetime.now(UTC)
    return replace(PAYMENT, id=id_, provider_key=str(id_), created_at=now, updated_at=now, payment_method=method)


def stripe_at(url: str) -> StripeProvider:
    return StripeProvider(url, api_key=lambda: KEY, timeout=timedelta(seconds=5))


async def test_a_card_that_is_attached_to_a_customer_is_charged_for_that_customer_only(stripe_url: str) -> None:
    document = OpenApiDocument(_document_path())
    customer = (await ask(stripe_url, "customers", {"name": "Jo"}))["id"]
    method = (await ask(stripe_url, "payment_methods", {"type": "card", "card[token]": "tok_visa"}))["id"]
    await ask(stripe_url, f"payment_methods/{method}/attach", {"customer": customer})
    async with FaultProxy(stripe_url) as proxy, stripe_at(proxy.url) as provider:
        approved = await provider.charge(paid_by(f"{customer}/{method}"))
        assert isinstance(approved, Approved)
        assert isinstance(await provider.charge(paid_by(method)), Declined)
    intent = await ask(stripe_url, f"payment_intents/{approved.provider_ref}")
    assert (intent["customer"], intent["payment_method"], intent["status"]) == (customer, method, "succeeded")
    for request in proxy.requests:
        document.check(request)


async def test_a_dispute_comes_by_webhook_and_is_fetched_with_its_payment(stripe_url: str) -> None:
    document = OpenApiDocument(_document_path())
    payment = paid_by("pm_card_createDispute")
    async with FaultProxy(stripe_url) as proxy, stripe_at(proxy.url) as provider:
        approved = await provider.charge(payment)
        assert isinstance(approved, Approved)
        events = (await ask(stripe_url, "events?type=charge.dispute.created&limit=100"))["data"]
        [event] = [one for one in events if one["data"]["object"]["payment_intent"] == approved.provider_ref]
        body = json.dumps(event)
        signed = stripe.WebhookSignature.generate_signature_header(body, SECRET, int(datetime.now(UTC).timestamp()))
        parser = StripeNoticeParser(lambda: [SECRET])
        [notice] = parser({"stripe-signature": signed}, body.encode(), now=datetime.now(UTC))
        assert notice.dispute_ref is not None

        found = await provider.fetch_dispute(notice.dispute_ref)
        assert isinstance(found, ReportedDispute)
        assert (found.payment_id, found.amount_minor, found.currency) == (payment.id, 440, payment.currency)
        assert (found.status, found.reason) == (DisputeStatus.NEEDS_RESPONSE, "fraudulent")
        assert found.due_by is not None
        assert found.due_by > datetime.now(UTC)

        await ask(stripe_url, f"disputes/{notice.dispute_ref}/close", {})
        over = await provider.fetch_dispute(notice.dispute_ref)
        assert isinstance(over, ReportedDispute)
        assert over.status is DisputeStatus.LOST
        assert await provider.fetch_dispute("dp_nothing") == NotFound()
    for request in proxy.requests:
        document.check(request)
