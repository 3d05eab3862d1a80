"""A Stripe account in this process: intents that stay open until a test decides them, and the webhooks about them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from okane.client import NewPayment
from tests.flow.system import System

SECRET = "whsec_flow"

_FILE = """
[providers.stripe]
kind = "stripe"
base_url = "{url}"
api_key = "sk_test_flow"
webhook_secrets = ["{secret}"]
"""


@dataclass
class StripeAccount:
    """The intents by their ids, each `processing` until it is decided; the refunds by theirs, `pending` until a test changes
    them; and the number of calls by method. With `declines` every charge is declined softly."""

    url: str = ""
    intents: dict[str, dict[str, Any]] = field(default_factory=dict)
    refunds: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    declines: bool = False
    _by_key: dict[str, str] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def providers_file(self, folder: Path) -> Path:
        """Write a providers file with this account as the only provider."""
        path = folder / "providers.toml"
        path.write_text(_FILE.format(url=self.url, secret=SECRET))
        return path

    def intent_of(self, payment_id: str) -> dict[str, Any]:
        [found] = [one for one in self.intents.values() if one["metadata"]["payment_id"] == payment_id]
        return found

    def decide(self, payment_id: str, status: str = "succeeded") -> dict[str, Any]:
        """Decide the intent of a payment; return it."""
        intent = self.intent_of(payment_id)
        intent |= {"status": status, "amount_received": intent["amount"] if status == "succeeded" else 0}
        return intent

    async def create(self, request: web.Request) -> web.Response:
        self.calls["POST"] += 1
        form = await request.post()
        key = request.headers["Idempotency-Key"]
        if key in self._by_key:
            return self._created(self.intents[self._by_key[key]], {"Idempotent-Replayed": "true"})
        intent: dict[str, Any] = {
            "id": f"pi_{next(self._numbers)}",
            "object": "payment_intent",
            "status": "processing",
            "amount": int(str(form["amount"])),
            "amount_received": 0,
            "currency": form["currency"],
            "created": int(time.time()),
            "customer": form.get("customer"),
            "payment_method": form["payment_method"],
            "metadata": {name: form[f"metadata[{name}]"] for name in ("payment_id", "attempt_key")},
        }
        self._by_key[key] = intent["id"]
        self.intents[intent["id"]] = intent
        if self.declines:
            error = {"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds"}
            intent |= {"status": "requires_payment_method", "last_payment_error": error}
        return self._created(intent, {})

    def _created(self, intent: dict[str, Any], headers: Mapping[str, str]) -> web.Response:
        if not self.declines:
            return web.json_response(intent, headers=headers)
        error = intent["last_payment_error"] | {"payment_intent": {**intent, "status": "requires_payment_method"}}
        return web.json_response({"error": error}, status=402, headers=headers)

    async def refund(self, request: web.Request) -> web.Response:
        self.calls["refund"] += 1
        form = await request.post()
        intent = self.intents[str(form["payment_intent"])]
        names = ("payment_id", "operation_id", "operation_key")
        refund = {
            "id": f"re_{next(self._numbers)}",
            "object": "refund",
            "status": "pending",
            "amount": int(str(form["amount"])),
            "currency": intent["currency"],
            "payment_intent": intent["id"],
            "metadata": {name: form[f"metadata[{name}]"] for name in names},
        }
        self.refunds[str(refund["id"])] = refund
        return web.json_response(refund)

    async def retrieve_refund(self, request: web.Request) -> web.Response:
        self.calls["GET refund"] += 1
        return web.json_response(self.refunds[request.match_info["id"]])

    async def cancel(self, request: web.Request) -> web.Response:
        self.calls["cancel"] += 1
        intent = self.intents[request.match_info["id"]]
        if intent["status"] == "canceled":
            return web.json_response({"error": {"type": "invalid_request_error"}}, status=400)
        intent["status"] = "canceled"
        return web.json_response(intent)

    async def dispute(self, request: web.Request) -> web.Response:
        self.calls["dispute"] += 1
        return web.json_response(dispute_of(self.intents[f"pi_{request.match_info['number']}"], expanded=True))

    async def retrieve(self, request: web.Request) -> web.Response:
        self.calls["GET"] += 1
        return web.json_response(self.intents[request.match_info["id"]])


def dispute_of(intent: Mapping[str, Any], *, expanded: bool = False) -> dict[str, Any]:
    """Return the dispute of an intent, with the same number; `expanded` with the intent in it."""
    return {
        "id": f"dp_{intent['id'].removeprefix('pi_')}",
        "object": "dispute",
        "amount": intent["amount"],
        "currency": intent["currency"],
        "status": "needs_response",
        "reason": "fraudulent",
        "evidence_details": {"due_by": int(time.time()) + 86400},
        "metadata": {},
        "payment_intent": dict(intent) if expanded else intent["id"],
    }


_KINDS = {"dispute": "charge.dispute.created", "refund": "refund.updated"}


def webhook(
    intent: Mapping[str, Any], event_id: str = "evt_1", *, secret: str = SECRET
) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of the webhook that tells of this intent, refund or dispute."""
    kind = _KINDS.get(intent["object"], f"payment_intent.{intent['status']}")
    body = json.dumps({"id": event_id, "object": "event", "type": kind, "data": {"object": intent}}).encode()
    at = int(time.time())
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return body, {"Stripe-Signature": f"t={at},v1={digest}", "Content-Type": "application/json"}


async def send(url: str, intent: Mapping[str, Any], event_id: str = "evt_1", *, secret: str = SECRET) -> int:
    """Send a webhook to an API; return the status of the answer, 0 if the connection broke."""
    body, headers = webhook(intent, event_id, secret=secret)
    async with aiohttp.ClientSession() as session:
        try:
            async with session.post(f"{url}/v1/providers/stripe/webhook", data=body, headers=headers) as answer:
                return answer.status
        except aiohttp.ClientError:
            return 0


async def submitted(system: System, key: str = "k") -> str:
    """Make a payment, and wait until the account has it."""
    new = NewPayment(amount=440, idempotency_key=key, payment_method="pm_card_visa")
    payment_id = str((await system.client.pay(new)).payment.id)
    await status_is(system, payment_id, "submitted")
    return payment_id


async def status_is(system: System, payment_id: str, status: str) -> None:
    async with asyncio.timeout(30):
        while (found := (await system.payment(payment_id))["status"]) != status:
            assert found in {"pending", "processing", "submitted"}, found
            await asyncio.sleep(0.02)


@asynccontextmanager
async def stripe_account(system: System, folder: Path) -> AsyncIterator[StripeAccount]:
    """Serve an account inside the block; processes of `system` that start in it charge there."""
    account = StripeAccount()
    app = web.Application()
    app.router.add_post("/v1/payment_intents", account.create)
    app.router.add_get("/v1/payment_intents/{id}", account.retrieve)
    app.router.add_post("/v1/payment_intents/{id}/cancel", account.cancel)
    app.router.add_post("/v1/refunds", account.refund)
    app.router.add_get("/v1/refunds/{id}", account.retrieve_refund)
    app.router.add_get("/v1/disputes/dp_{number}", account.dispute)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    account.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    system.env |= {"OKANE_PROVIDERS_FILE": str(account.providers_file(folder)), "VISIBILITY_TIMEOUT": "40s"}
    try:
        yield account
    finally:
        await runner.cleanup()
