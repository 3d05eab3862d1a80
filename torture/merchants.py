"""The wishes of clients after their payments were acknowledged: capture held money or let it go, and give money back.

Each request is repeated until there is a clear answer, with the same key. Some ask for more than there is, or for a capture
and a void at once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from okane.load.client import HttpClient, Reply
from okane.operation import OperationKind
from torture.history.operations import OperationRequest

MANUAL, REFUNDED = 0.1, 0.1  # of all payments
_LOOKS, _PAUSE_S = 60, 0.5  # at a payment, until it can be captured or refunded
_LAST_LOOKS = 8  # when no new payments come: after a declined capture, say, a wait is in vain
_PAUSES_S = (0.1, 0.2, 0.4, 0.8)
_LATER = frozenset({0, 408, 429})  # statuses that say nothing about the request
_CAPTURE, _VOID, _REFUND = OperationKind.CAPTURE, OperationKind.VOID, OperationKind.REFUND


@dataclass(frozen=True, slots=True)
class Wish:
    """The wishes of one client: to hold its money first, and the shares of its amount to refund."""

    manual: bool = False
    refunds: Sequence[float] = ()


def wishes(seed: int) -> Iterator[Wish]:
    """Yield wishes without end, the same for the same seed."""
    dice = random.Random(f"operations {seed}")
    while True:
        manual, refunded, count = dice.random() < MANUAL, dice.random() < REFUNDED, dice.choice((1, 2, 3))
        shares = [dice.uniform(0.1, 0.7) for _ in range(count)]
        yield Wish(manual, shares if refunded or manual else ())


class Merchants:
    """Asks for operations. `journal` holds the answers; with `closing`, no payment is waited for much longer."""

    def __init__(self, *, urls: Sequence[str], http: HttpClient, seed: int, giving_up: asyncio.Event) -> None:
        self.journal: list[OperationRequest] = []
        self._urls = urls
        self._http = http
        self._dice = random.Random(f"merchants {seed}")
        self._giving_up = giving_up
        self._keys = 0
        self._seed = seed
        self.closing = False

    async def act(self, payment_id: str, amount_minor: int, wish: Wish) -> None:
        """Do what a client wishes, as soon as it can be done."""
        if wish.manual and await self._wait(payment_id, "authorized"):
            await self._end_authorization(payment_id, amount_minor)
        if wish.refunds and await self._wait(payment_id, "success"):
            parts = [max(1, int(amount_minor * share)) for share in wish.refunds]
            bodies = [{"payment": payment_id, "amount": part} for part in parts]
            await asyncio.gather(*(self._insist(_REFUND, payment_id, "/v1/refunds", body) for body in bodies))

    async def _wait(self, payment_id: str, wanted: str) -> bool:
        """Wait until a payment has this status; return False if that will not be."""
        looks = 0
        while looks < _LOOKS:
            reply = await self._http.get(f"{self._url()}/v1/payments/{payment_id}")
            payment = (reply.body or {}).get("payment")
            status = payment.get("status") if isinstance(payment, Mapping) else None
            if status == wanted:
                return True
            if status in ("success", "failed_final", "canceled", "needs_review") or self._giving_up.is_set():
                return False
            await asyncio.sleep(_PAUSE_S)
            looks = looks + 1 if not self.closing else max(looks + 1, _LOOKS - _LAST_LOOKS)
        return False

    async def _end_authorization(self, payment_id: str, amount_minor: int) -> None:
        roll = self._dice.random()
        part: dict[str, Any] = {} if roll < 0.3 else {"amount": max(1, int(amount_minor * roll))}
        asking = []
        if roll < 0.75:
            asking.append(self._insist(_CAPTURE, payment_id, f"/v1/payments/{payment_id}/capture", part))
        if roll > 0.65:
            asking.append(self._insist(_VOID, payment_id, f"/v1/payments/{payment_id}/cancel", {}))
        await asyncio.gather(*asking)

    async def _insist(self, kind: OperationKind, payment_id: str, path: str, body: dict[str, Any]) -> None:
        """Send to one API after the other, with the same key, until there is a clear answer."""
        self._keys += 1
        key = None if kind is _VOID else f"torture-op-{self._seed}-{self._keys}"  # okane gives a void its key
        sent = body if key is None else {**body, "idempotency_key": key}
        tries = 0
        while True:
            reply = await self._http.post(self._url() + path, sent)
            self._note(reply, key, payment_id, kind, body.get("amount"))
            if self._giving_up.is_set() or (reply.status < 500 and reply.status not in _LATER):
                return
            await asyncio.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
            tries += 1

    def _note(
        self, reply: Reply, key: str | None, payment_id: str, kind: OperationKind, amount_minor: int | None
    ) -> None:
        said = reply.body or {}
        made = said.get("operation") or said.get("refund")
        if 200 <= reply.status < 300 and made is None:
            return  # a cancel that found the payment voided already
        request = OperationRequest(
            key=key,
            payment_id=payment_id,
            kind=kind,
            amount_minor=amount_minor,
            status=reply.status,
            operation_id=str(made["id"]) if isinstance(made, Mapping) and "id" in made else None,
        )
        self.journal.append(request)

    def _url(self) -> str:
        return self._dice.choice(self._urls)
