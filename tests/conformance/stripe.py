"""Stripe as a gateway under test: `StripeProvider` and Stripe World.

Every request is held against Stripe's own OpenAPI document, which Stripe World carries (of the API version that it serves).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import aiohttp
import stripe

from okane.local.ports import free_port
from okane.local.stripe_simulator.server import PACKAGES, stripe_simulator
from okane.payment import Payment
from okane.providers.base import Pending, Provider
from okane.providers.stripe.provider import StripeProvider
from okane.providers.stripe.webhook import StripeNoticeParser
from tests.conformance.fault_proxy import Recorded
from tests.conformance.gateway import Booked, Gateway, Money, SignedNotice, Wish
from tests.conformance.openapi import OpenApiDocument
from tests.conformance.simulators import running
from tests.payments import PAYMENT

_KEY = "sk_test_conformance4242"
_SECRET = "whsec_conformance4242"
_CARDS = {
    Wish.APPROVED: "pm_card_visa",
    Wish.DECLINED: "pm_card_visa_chargeDeclinedStolenCard",
    Wish.SOFTLY_DECLINED: "pm_card_visa_chargeDeclinedInsufficientFunds",
    Wish.WAITS: "pm_card_threeDSecure2Required",
}
_MAY_MOVE = frozenset({"processing", "requires_action", "requires_capture", "requires_confirmation"})


class StripeGateway:
    """The driver of a Stripe World at `url`."""

    name = "stripe"
    secrets: Sequence[str] = (_KEY, _SECRET)
    finds_lost_charges = True
    limits_before_charging = True
    takes_operation_keys = True

    def __init__(self, url: str) -> None:
        self.url = url
        self._document = OpenApiDocument(_document_path())

    def provider(self, base_url: str, *, timeout: timedelta) -> Provider:
        return StripeProvider(base_url, api_key=lambda: _KEY, timeout=timeout)

    async def payment(self, wish: Wish) -> Payment:
        id_, now = uuid4(), datetime.now(UTC)
        return replace(
            PAYMENT,
            id=id_,
            provider_key=str(id_),
            amount_minor=1250,
            created_at=now,
            updated_at=now,
            payment_method=_CARDS[wish],
            return_url="https://shop.example/back" if wish is Wish.WAITS else None,
        )

    def is_charge(self, request: Recorded) -> bool:
        return request.method == "POST" and request.target.endswith("/payment_intents")

    def is_operation(self, request: Recorded) -> bool:
        return request.method == "POST" and request.target.endswith(("/capture", "/cancel", "/refunds"))

    async def money(self, payment: Payment) -> Money:
        intents = await intents_of(self.url, payment)
        refunds = [one for intent in intents for one in await self._refunds_of(intent["id"])]
        return Money(
            held=sum(one["amount_capturable"] for one in intents if one["status"] == "requires_capture"),
            captured=sum(one["amount_received"] for one in intents),
            refunded=sum(one["amount"] for one in refunds if one["status"] not in ("failed", "canceled")),
        )

    async def _refunds_of(self, intent: str) -> list[dict[str, Any]]:
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {_KEY}"}) as session,
            session.get(f"{self.url}/v1/refunds", params={"payment_intent": intent, "limit": "100"}) as answer,
        ):
            refunds: list[dict[str, Any]] = (await answer.json())["data"]
            return refunds

    async def finish(self, pending: Pending, *, succeeded: bool) -> None:
        assert pending.next_action is not None
        outcome = {"outcome": "succeeded" if succeeded else "failed"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(pending.next_action.url, data=outcome, allow_redirects=False) as answer,
        ):
            assert answer.status == 303, await answer.text()

    async def books(self, payment: Payment) -> Sequence[Booked]:
        return [
            Booked(one["id"], one["amount"], one["currency"].upper(), moved=one["status"] == "succeeded")
            for one in await intents_of(self.url, payment)
            if one["status"] == "succeeded" or one["status"] in _MAY_MOVE
        ]

    async def notice(self, payment: Payment) -> SignedNotice:
        return await self.notice_about(payment, "payment_intent.succeeded")

    async def notice_about(self, payment: Payment, kind: str) -> SignedNotice:
        """Return Stripe World's own event, signed by Stripe's own package."""
        headers = {"Authorization": f"Bearer {_KEY}"}
        params = {"type": kind, "limit": "100"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{self.url}/v1/events", params=params) as answer,
        ):
            events = (await answer.json())["data"]
        [event] = [one for one in events if one["data"]["object"]["metadata"].get("payment_id") == str(payment.id)]
        body = json.dumps(event)
        header = stripe.WebhookSignature.generate_signature_header(body, _SECRET, int(datetime.now(UTC).timestamp()))
        return SignedNotice(
            headers={"stripe-signature": header},
            body=body.encode(),
            secret=_SECRET,
            parser=lambda secrets: StripeNoticeParser(lambda: secrets),
        )

    def check_request(self, request: Recorded) -> None:
        self._document.check(request)
        assert request.headers["stripe-version"] == self._document.version
        assert request.headers["authorization"] == f"Bearer {_KEY}"
        # A repeated cancel changes nothing; under a key Stripe would repeat a saved failure.
        assert request.method == "GET" or request.target.endswith("/cancel") or request.headers["idempotency-key"]


async def intents_of(url: str, payment: Payment) -> list[dict[str, Any]]:
    """Return the payment's PaymentIntents from Stripe World's own list."""
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    headers = {"Authorization": f"Bearer {_KEY}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        while True:
            async with session.get(f"{url}/v1/payment_intents", params={"limit": "100", **after}) as answer:
                page = await answer.json()
            found += [one for one in page["data"] if one["metadata"].get("payment_id") == str(payment.id)]
            if not page["has_more"]:
                return found
            after = {"starting_after": page["data"][-1]["id"]}


@contextlib.asynccontextmanager
async def gateway() -> AsyncIterator[Gateway]:
    """Yield the driver, with a Stripe World of its own."""
    port = free_port()
    with (
        TemporaryDirectory() as folder,
        running(stripe_simulator(port=port, log=Path(folder) / "stripe.log")),
    ):
        yield StripeGateway(f"http://127.0.0.1:{port}")


def _document_path() -> Path:
    environment = PACKAGES.prepare().parents[1]
    [found] = environment.glob("lib/python3.*/site-packages/seahaven_stripe_world/spec/spec3.json")
    return found
