"""The disputes of the gateway: a customer asks their bank for the money of a charge back, and in the end one side has won.

GET /v1/disputes/{id}   with its PaymentIntent, if `expand[]` asks for it

Every change is told until it is taken, as real gateways do: later than it happens, so that notices come out of order. After a
death the last state of each is told again.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from torture.gateway.books import DISPUTES_OVER, Books, Dispute, Intent

if TYPE_CHECKING:
    from torture.gateway.server import Behaviour

_LASTS_S = (0.2, 2.0)  # until it changes
_TOLD_S = (0.0, 2.0)  # until a change is told
_AN_INQUIRY = 0.2
_DISPUTES = (
    ("needs_response", "under_review", "won"),
    ("needs_response", "under_review", "lost"),
    ("needs_response", "lost"),
)
_INQUIRIES = (
    ("warning_needs_response", "warning_under_review", "warning_closed"),
    ("warning_needs_response", "prevented"),
)


class Host(Protocol):
    """The gateway, as far as it is needed here."""

    behaviour: Behaviour
    books: Books
    dice: random.Random

    def roll(self, chance: float) -> bool: ...

    def later(self, acting: Coroutine[None, None, None], *, is_awaited: bool = False) -> None: ...

    async def tell(self, kind: str, about: Mapping[str, object], *, until_taken: bool = False) -> None: ...


class GatewayDisputes:
    """The route of disputes, and what becomes of each."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def add_to(self, app: web.Application) -> None:
        """Add the route."""
        app.router.add_get("/v1/disputes/{ref}", self._retrieve)

    def may_begin(self, intent: Intent) -> None:
        """Let the customer of a charge dispute it, or not."""
        host = self._host
        if not host.roll(host.behaviour.dispute):
            return
        life = host.dice.choice(_INQUIRIES if host.roll(_AN_INQUIRY) else _DISPUTES)
        ref = f"du_{secrets.token_hex(8)}"
        host.later(self._live(ref, intent.ref, life), is_awaited=True)

    def resume(self) -> None:
        """Go on where an earlier life has ended."""
        for dispute in self._host.books.disputes():
            self._tell_later("updated", dispute)
            if dispute.status not in DISPUTES_OVER:
                end = "warning_closed" if dispute.status.startswith("warning") else "lost"
                self._host.later(self._live(dispute.ref, dispute.intent, (end,)), is_awaited=True)

    async def _live(self, ref: str, intent_ref: str, life: tuple[str, ...]) -> None:
        host = self._host
        for status in life:
            await asyncio.sleep(host.dice.uniform(*_LASTS_S))
            intent = host.books.find(intent_ref)
            assert intent is not None, "it was charged"
            before = host.books.find_dispute(ref)
            dispute = Dispute(
                ref=ref,
                intent=intent.ref,
                payment_id=intent.payment_id,
                amount=intent.received_minor,
                currency=intent.currency,
                status=status,
                at_s=time.time() if before is None else before.at_s,
            )
            host.books.dispute(dispute)
            kind = "created" if before is None else "closed" if status in DISPUTES_OVER else "updated"
            self._tell_later(kind, dispute)

    def _tell_later(self, kind: str, dispute: Dispute) -> None:
        self._host.later(self._tell(kind, dispute), is_awaited=True)

    async def _tell(self, kind: str, dispute: Dispute) -> None:
        host = self._host
        await asyncio.sleep(host.dice.uniform(*_TOLD_S))
        await host.tell(f"charge.dispute.{kind}", dispute.to_json(None), until_taken=True)

    async def _retrieve(self, request: web.Request) -> web.Response:
        host = self._host
        if host.roll(host.behaviour.limit):
            return _json(429, {"error": {"type": "invalid_request_error", "code": "rate_limit"}})
        if host.roll(host.behaviour.refuse):
            return _json(500, {"error": {"type": "api_error"}})
        dispute = host.books.find_dispute(request.match_info["ref"])
        if dispute is None:
            return _json(404, {"error": {"type": "invalid_request_error", "code": "resource_missing"}})
        expanded = "payment_intent" in request.query.getall("expand[]", [])
        return _json(200, dispute.to_json(host.books.find(dispute.intent) if expanded else None))


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=json.dumps(body).encode(), content_type="application/json")
