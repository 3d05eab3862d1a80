"""Send the payments, at a rate or flat out, each repeated with its own key until it is accepted or refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from okane.load.client import HttpClient, Reply
from okane.load.options import LoadOptions
from okane.load.report import Tally, Tracked

# Together about seven seconds: an API that restarts or fails over is back by then.
_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0)


class Sender:
    """Sends every payment, `options.connections` at a time, and calls `on_accepted` with each that was accepted."""

    def __init__(
        self,
        *,
        options: LoadOptions,
        http: HttpClient,
        tally: Tally,
        on_accepted: Callable[[Tracked], None],
        pauses_s: Sequence[float] = _PAUSES_S,
    ) -> None:
        self._options = options
        self._http = http
        self._tally = tally
        self._on_accepted = on_accepted
        self._pauses_s = pauses_s

    async def run(self, payments: Sequence[Tracked]) -> None:
        started = time.perf_counter()
        queue = iter(payments)
        try:
            async with asyncio.TaskGroup() as hands:
                for _ in range(min(self._options.connections, len(payments))):
                    hands.create_task(self._hand(queue, started))
        finally:
            self._tally.sending_s = time.perf_counter() - started

    async def _hand(self, queue: Iterator[Tracked], started: float) -> None:
        for payment in queue:
            wait_s = started + self._options.due_s(payment.number) - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            await self._send(payment)

    async def _send(self, payment: Tracked) -> None:
        """Send one payment until it is accepted or refused, or the pauses are used up."""
        body = self._options.body(payment.number, payment.amount, payment.method)
        sent = time.perf_counter()
        for pause_s in (*self._pauses_s, None):
            reply = await self._http.post(f"{self._options.url}/v1/payments", body)
            if reply.status in (200, 202) and take_in(payment, reply):
                payment.accept_ms = (time.perf_counter() - sent) * 1000
                self._on_accepted(payment)
                return
            self._tally.errors[f"POST {reply.error_kind}"] += 1
            if pause_s is None or not _worth_repeating(reply):
                return
            self._tally.retried += 1
            await asyncio.sleep(pause_s)


def take_in(payment: Tracked, reply: Reply) -> bool:
    """Copy the payment from the reply; return False when it does not hold one."""
    found = (reply.body or {}).get("payment")
    if not isinstance(found, dict):
        return False
    try:
        payment.created_at = datetime.fromisoformat(found["created_at"])
        payment.updated_at = datetime.fromisoformat(found["updated_at"])
        payment.status = str(found["status"])
        payment.id = payment.id or str(found["id"])
        action = found.get("next_action")
        payment.action_url = str(action["url"]) if action else None
        payment.wrong_amount |= found["amount"] != payment.amount or found["id"] != payment.id
    except (KeyError, TypeError, ValueError):
        return False
    return True


def _worth_repeating(reply: Reply) -> bool:
    """Return True unless the reply is a clear refusal: no answer, 429 or a 5xx are repeated."""
    return reply.status in (0, 429) or reply.status >= 500
