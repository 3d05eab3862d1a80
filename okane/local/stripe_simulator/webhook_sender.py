"""Send Stripe World's events as Stripe sends webhooks: signed, in order, repeated until they are taken."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any

# The events that docs/providers.md subscribes to.
KINDS = frozenset(
    {
        "payment_intent.succeeded",
        "payment_intent.payment_failed",
        "payment_intent.canceled",
        "payment_intent.processing",
        "payment_intent.requires_action",
        "payment_intent.amount_capturable_updated",
        "charge.expired",
        "charge.refunded",
        "charge.dispute.created",
        "charge.dispute.updated",
        "charge.dispute.closed",
        "refund.created",
        "refund.updated",
        "refund.failed",
    }
)
_PAUSES_S = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
_TIMEOUT_S = 10.0
_PAGE = 100


def signature(secret: str, body: bytes, at_s: int) -> str:
    """Return the `Stripe-Signature` header of a body."""
    digest = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"


class WebhookSender:
    """Sends the events that `call` lists to `url`. `look` says that there may be new ones; `run` sends until cancelled."""

    def __init__(self, call: Callable[[str, str], Awaitable[Any]], *, url: str, secret: str) -> None:
        self._call = call
        self._url = url
        self._secret = secret
        self._may_be_new = asyncio.Event()
        self._last: str | None = None

    def look(self) -> None:
        self._may_be_new.set()

    async def run(self) -> None:
        while True:
            await self._may_be_new.wait()
            self._may_be_new.clear()
            while events := await self._next():
                for event in events:
                    self._last = event["id"]
                    if event["type"] in KINDS:
                        await self._send(json.dumps(event).encode())

    async def _next(self) -> list[dict[str, Any]]:
        """Return the oldest events that were not sent, in order. The first time there are at most a page of them."""
        before = "" if self._last is None else f"&ending_before={self._last}"
        page = (await self._call("GET", f"/v1/events?limit={_PAGE}{before}")).document()
        return list(reversed(page["data"]))

    async def _send(self, body: bytes) -> None:
        for pause_s in (*_PAUSES_S, None):
            if await asyncio.to_thread(self._post, body) or pause_s is None:
                return
            await asyncio.sleep(pause_s)

    def _post(self, body: bytes) -> bool:
        headers = {
            "Content-Type": "application/json",
            "Stripe-Signature": signature(self._secret, body, int(time.time())),
        }
        request = urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310 - the operator's own URL
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - the same
                return bool(200 <= answer.status < 300)
        except OSError:
            return False
