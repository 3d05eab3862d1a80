"""The customers: each saves a payment method, pays with it, first present and later absent, and deletes it beside a payment.

Every request is repeated until there is a clear answer, with its key. After the deletion one more payment must be refused.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from okane.load.client import HttpClient, Reply
from torture.history.journals import Request
from torture.history.methods import MethodHistory, MethodPayment, SavedMethod
from torture.schedule import pick

CANARY = "canary9a41"  # in every token: no log may show one
_AT_ONCE = 3  # customers
_PAUSE_S = (0.1, 1.0)
_AGAIN_S = 0.2
_MOST_TRIES = 100
_LATER = frozenset({0, 408, 429})  # statuses that say nothing about the request
_TWINS = 0.2  # of the creations
_AT_GATEWAY_ONLY = 0.7  # of the methods
_MOST_LATER = 3  # payments without the customer
_AMOUNTS = (1, 50_000)
_ROUTE = "/v1/payment-methods"


class Customers:
    """Saves, uses and deletes payment methods. `methods` holds them by their keys, `payments` the tries to pay."""

    def __init__(self, *, urls: Sequence[str], http: HttpClient, seed: int, started_s: float) -> None:
        self.methods: dict[str, SavedMethod] = {}
        self.payments: list[MethodPayment] = []
        self._urls = urls
        self._http = http
        self._seed = seed
        self._started_s = started_s  # time.monotonic()
        self._dice = random.Random(f"customers {seed}")
        self._numbers = itertools.count(1)

    @property
    def history(self) -> MethodHistory:
        """The journals that are kept here, without the charges of the gateway."""
        return MethodHistory(methods=self.methods, payments=self.payments)

    @property
    def requests(self) -> Sequence[Request]:
        """The requests for payments, but those that were refused for their method: these are judged by their own rules."""
        return [one.request for one in self.payments if one.request.status != 422]

    async def run(self, enough: Callable[[], bool]) -> None:
        """Serve customers until `enough`; when this returns, every request has a clear answer, or none after many tries."""
        async with asyncio.TaskGroup() as living:
            for _ in range(_AT_ONCE):
                living.create_task(self._live(enough))

    async def _live(self, enough: Callable[[], bool]) -> None:
        while not enough():
            method = await self._save()
            if not method.ids:
                continue
            first = await self._pay(method, is_present=True)
            for _ in range(self._dice.randrange(_MOST_LATER + 1)):
                if enough():
                    break
                await asyncio.sleep(self._dice.uniform(*_PAUSE_S))
                await self._pay(method, is_present=False)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._delete(method))
                both.create_task(self._pay(method, is_present=False))
            await self._pay(method, is_present=self._dice.random() < 0.5)  # refused
            await self._insist_to_pay(method, first, is_present=True)  # known already

    async def _save(self) -> SavedMethod:
        number = next(self._numbers)
        customer, token = f"cus_{number}", f"pm_{CANARY}{number}"
        tokens = {"stripe": f"{customer}/{token}"}
        if self._dice.random() >= _AT_GATEWAY_ONLY:
            tokens["http"] = f"tok_{CANARY}{number}"
        key = f"torture-method-{self._seed}-{number}"
        body = {"tokens": tokens, "kind": "card", "customer": f"customer-{number}", "idempotency_key": key}
        count = 2 if self._dice.random() < _TWINS else 1
        replies = await asyncio.gather(*(self._insist(_ROUTE, body) for _ in range(count)))
        ids = [
            str(made["id"]) for one in replies if isinstance(made := (one.body or {}).get("payment_method"), Mapping)
        ]
        method = SavedMethod(key=key, ids=ids, customer=customer, token=token, providers=frozenset(tokens))
        self.methods[key] = method
        return method

    async def _delete(self, method: SavedMethod) -> None:
        self.methods[method.key] = replace(method, asked_s=self._now_s)
        reply = await self._insist(f"{_ROUTE}/{method.ids[0]}")
        if 200 <= reply.status < 300:
            self.methods[method.key] = replace(self.methods[method.key], deleted_s=self._now_s)

    async def _pay(self, method: SavedMethod, *, is_present: bool) -> Mapping[str, object]:
        """Make a payment and return its request."""
        key = f"torture-saved-{self._seed}-{next(self._numbers)}"
        body: dict[str, object] = {
            "amount": self._dice.randint(*_AMOUNTS),
            "currency": "USD",
            "idempotency_key": key,
            "payment_method": method.ids[0],
            "customer_present": is_present,
        }
        if is_present:
            body["return_url"] = "https://shop.example/done"
        await self._insist_to_pay(method, body, is_present=is_present)
        return body

    async def _insist_to_pay(self, method: SavedMethod, body: Mapping[str, Any], *, is_present: bool) -> None:
        for _ in range(_MOST_TRIES):
            sent_s = self._now_s
            reply = await self._send("/v1/payments", body)
            request = Request.answered(
                reply,
                key=body["idempotency_key"],
                amount_minor=body["amount"],
                currency=body["currency"],
                sent_s=sent_s,
                answered_s=self._now_s,
            )
            self.payments.append(MethodPayment(method_key=method.key, is_present=is_present, request=request))
            if _is_clear(reply):
                return
            await asyncio.sleep(_AGAIN_S)

    async def _insist(self, path: str, body: Mapping[str, object] | None = None) -> Reply:
        """Send to one API after the other until there is a clear answer; return the last one."""
        reply = Reply()
        for _ in range(_MOST_TRIES):
            reply = await self._send(path, body)
            if _is_clear(reply):
                break
            await asyncio.sleep(_AGAIN_S)
        return reply

    async def _send(self, path: str, body: Mapping[str, object] | None) -> Reply:
        """Send a body with POST, or else a DELETE, to one of the APIs."""
        url = f"{pick(self._urls, self._dice.random())}{path}"
        return await (self._http.delete(url) if body is None else self._http.post(url, body))

    @property
    def _now_s(self) -> float:
        return time.monotonic() - self._started_s


def _is_clear(reply: Reply) -> bool:
    return reply.status < 500 and reply.status not in _LATER
