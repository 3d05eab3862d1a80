"""The captures, cancels and refunds of the gateway: Stripe's routes and rules.

POST /v1/payment_intents/{id}/capture   amount_to_capture: once; what is not captured is let go
POST /v1/payment_intents/{id}/cancel    before any money has moved
POST /v1/refunds                        payment_intent, amount, metadata[operation_id]
GET  /v1/refunds/{id}                   GET /v1/refunds?payment_intent=…, the newest first
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol
from urllib.parse import parse_qs

from aiohttp import web

from torture.gateway import disputes
from torture.gateway.books import OPEN, Intent, Refund, Saved, Taken

DECIDED_S = (0.1, 2.0)  # until a bank decides a refund
_FAILS_S = (0.5, 4.0)  # until one that succeeded comes back
_CANCELABLE = (*OPEN, "requires_payment_method")


class Host(disputes.Host, Protocol):
    """The gateway, as far as it is needed here."""

    def may_be_disputed(self, intent: Intent) -> None: ...

    async def keyed(self, request: web.Request, make: Callable[[str, str], Saved]) -> web.Response: ...


class GatewayOperations:
    """The routes of captures, cancels and refunds."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_post("/v1/payment_intents/{ref}/capture", self._capture)
        app.router.add_post("/v1/payment_intents/{ref}/cancel", self._cancel)
        app.router.add_post("/v1/refunds", self._refund)
        app.router.add_get("/v1/refunds", self._list)
        app.router.add_get("/v1/refunds/{ref}", self._retrieve)

    async def decide(self, ref: str, status: str, after_s: tuple[float, float] = DECIDED_S) -> None:
        """Let a bank decide a refund after a while."""
        host = self._host
        await asyncio.sleep(host.dice.uniform(*after_s))
        refund = host.books.decide_refund(ref, status)
        if status == "failed":
            await self._tell_failed(refund)
        else:
            await host.tell("refund.updated", refund.to_json())

    def resume(self) -> None:
        """Go on where an earlier life has ended."""
        for refund in self._host.books.refunds_in("pending"):
            self._host.later(self.decide(refund.ref, "succeeded"), is_awaited=True)
        for refund in self._host.books.refunds_in("failed"):
            self._host.later(self._tell_failed(refund), is_awaited=True)

    async def _tell_failed(self, refund: Refund) -> None:
        """Tell that a refund has come back until it is taken, as real gateways do: nothing else would ever tell it."""
        await self._host.tell("refund.failed", refund.to_json(), until_taken=True)

    async def _capture(self, request: web.Request) -> web.Response:
        return await self._host.keyed(request, partial(self._make_capture, request.match_info["ref"]))

    async def _cancel(self, request: web.Request) -> web.Response:
        return await self._host.keyed(request, partial(self._make_void, request.match_info["ref"]))

    async def _refund(self, request: web.Request) -> web.Response:
        return await self._host.keyed(request, self._make_refund)

    def _make_capture(self, ref: str, key: str, body: str) -> Saved:
        books, intent = self._host.books, self._host.books.find(ref)
        if intent is None:
            return self._refused(key, body, 404, "resource_missing")
        amount = int(form_of(body).get("amount_to_capture", intent.amount))
        if intent.status != "requires_capture":
            return self._refused(key, body, 400, "payment_intent_unexpected_state", intent)
        if amount > intent.amount or not amount:
            return self._refused(key, body, 400, "amount_too_large", intent)
        if self._host.roll(self._host.behaviour.decline_operation):
            return self._refused(key, body, 402, "card_declined", intent, kind="card_error")
        after = replace(intent, status="succeeded", received=amount)
        saved = self._saved(body, after.to_json())
        books.take(after, _taken("capture", key, intent, amount), saved)
        self._host.later(self._host.tell("payment_intent.succeeded", after.to_json()))
        self._host.may_be_disputed(after)
        return saved

    def _make_void(self, ref: str, key: str, body: str) -> Saved:
        books, intent = self._host.books, self._host.books.find(ref)
        if intent is None:
            return self._refused(key, body, 404, "resource_missing")
        if intent.status not in _CANCELABLE:
            return self._refused(key, body, 400, "payment_intent_unexpected_state", intent)
        after = replace(intent, status="canceled")
        saved = self._saved(body, after.to_json())
        books.take(after, _taken("void", key, intent, intent.amount), saved)
        self._host.later(self._host.tell("payment_intent.canceled", after.to_json()))
        return saved

    def _make_refund(self, key: str, body: str) -> Saved:
        host, form = self._host, form_of(body)
        intent = host.books.find(form["payment_intent"])
        if intent is None:
            return self._refused(key, body, 404, "resource_missing")
        left = host.books.refundable(intent)
        amount = int(form.get("amount", left))
        if not left or amount > left:
            return self._refused(key, body, 400, "amount_too_large" if left else "charge_already_refunded")
        if host.roll(host.behaviour.decline_operation):
            return self._refused(key, body, 400, "charge_not_refundable")
        refund = Refund(
            ref=f"re_{secrets.token_hex(8)}",
            key=key,
            operation_id=form["metadata[operation_id]"],
            payment_id=intent.payment_id,
            intent=intent.ref,
            amount=amount,
            currency=intent.currency,
            status="pending" if host.roll(host.behaviour.slow_refund) else "succeeded",
            at_s=time.time(),
            operation_key=form.get("metadata[operation_key]", ""),
        )
        saved = self._saved(body, refund.to_json())
        host.books.refund(refund, saved)
        if refund.status == "pending":
            fails = host.roll(host.behaviour.failing_refund)
            host.later(self.decide(refund.ref, "failed" if fails else "succeeded"), is_awaited=True)
        elif host.roll(host.behaviour.failing_refund):
            host.later(self.decide(refund.ref, "failed", _FAILS_S), is_awaited=True)
        return saved

    def _saved(self, body: str, shown: Mapping[str, object]) -> Saved:
        if self._host.roll(self._host.behaviour.fail):
            return Saved(body, 500, json.dumps({"error": {"type": "api_error", "message": "broken"}}))
        return Saved(body, 200, json.dumps(shown))

    def _refused(
        self, key: str, body: str, status: int, code: str, intent: Intent | None = None, *, kind: str = ""
    ) -> Saved:
        """Write and return a refusal, which did nothing."""
        error: dict[str, object] = {"type": kind or "invalid_request_error", "code": code, "message": "refused"}
        if intent is not None:
            error["payment_intent"] = intent.to_json()
        saved = Saved(body, status, json.dumps({"error": error}))
        self._host.books.refuse(key, saved)
        return saved

    async def _list(self, request: web.Request) -> web.Response:
        found = self._host.books.refunds_of(request.query["payment_intent"])
        return _json(200, {"object": "list", "data": [one.to_json() for one in found], "has_more": False})

    async def _retrieve(self, request: web.Request) -> web.Response:
        refund = self._host.books.find_refund(request.match_info["ref"])
        if refund is None:
            return _json(404, {"error": {"type": "invalid_request_error", "code": "resource_missing"}})
        return _json(200, refund.to_json())


def form_of(asked: str) -> Mapping[str, str]:
    """Return the form in the record of a request: its path, a space, and its body."""
    return {name: values[-1] for name, values in parse_qs(asked.partition(" ")[2]).items()}


def _taken(kind: str, key: str, intent: Intent, amount: int) -> Taken:
    return Taken(
        kind=kind, key=key, payment_id=intent.payment_id, amount=amount, currency=intent.currency, at_s=time.time()
    )


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=json.dumps(body).encode(), content_type="application/json")
