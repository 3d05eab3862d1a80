"""The load: seeded clients that send payments to the APIs, repeat each request until it is answered, and record the answers.

Most send one payment once. Some send two equal requests at once, some the same again later, and a few another amount under
a used key, which must be refused.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from okane.load.client import HttpClient
from torture.history.journals import Request
from torture.merchants import Merchants, Wish, wishes
from torture.schedule import pick
from torture.system import provider_secrets

CURRENCIES = ("USD", "USD", "EUR", "JPY")
_LANES = ((1, 999), (1_000, 9_999), (1_000, 9_999), (10_000, 250_000))
_TWINS, _REPEATS, _REUSES = 0.05, 0.05, 0.02  # of all payments
_AT_GATEWAY = 0.3  # ask for the gateway
_LATER_S = (0.1, 5.0)
_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8)
TIMEOUT_S = 4.0  # of one request
_SECRETIVE = 50  # one order in so many carries a canary, which no log may show
_CARD = "4111111111111111"  # the API refuses it
_SECRET = "canary-3f1c9a77d2"  # noqa: S105 - a canary
CANARIES = (_SECRET, _CARD, *provider_secrets.CANARIES)
_IN_FLIGHT = 250  # payments: limits the requests that pile up during an outage of the API


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The requests of one client: one payment, and its repetitions."""

    number: int
    amount_minor: int
    currency: str
    metadata: Mapping[str, str]
    twin: bool
    repeat_after_s: float | None
    reuse_for_minor: int | None
    provider: str | None = None
    wish: Wish = field(default_factory=Wish)


def orders(seed: int) -> Iterator[Order]:
    """Yield orders without end, the same for the same seed."""
    dice, providers = random.Random(f"orders {seed}"), random.Random(f"providers {seed}")
    for number, wish in enumerate(wishes(seed)):
        amount = dice.randint(*pick(_LANES, dice.random()))
        kind = dice.random()
        yield Order(
            number=number,
            amount_minor=amount,
            currency=pick(CURRENCIES, dice.random()),
            metadata={"secret": _SECRET} if number % _SECRETIVE == 0 else {},
            twin=kind < _TWINS,
            repeat_after_s=dice.uniform(*_LATER_S) if _TWINS <= kind < _TWINS + _REPEATS else None,
            reuse_for_minor=amount + 1 if 1 - kind <= _REUSES else None,
            provider="stripe" if providers.random() < _AT_GATEWAY else None,
            wish=wish,
        )


class Clients:
    """Sends orders at `rate` a second. `journal` holds the answers; `acknowledged` counts payments."""

    def __init__(self, *, urls: Sequence[str], http: HttpClient, seed: int, rate: float, started_s: float) -> None:
        self.journal: list[Request] = []
        self.sent = 0
        self.acknowledged = 0
        self._urls = urls
        self._http = http
        self._seed = seed
        self._orders = orders(seed)
        self._rate = rate
        self._started_s = started_s  # time.monotonic()
        self._ids: dict[str, str] = {}  # of the payments whose clients want more of them
        self._places = asyncio.Semaphore(_IN_FLIGHT)
        self._wishes = True
        self._giving_up = asyncio.Event()
        self.merchants = Merchants(urls=urls, http=http, seed=seed, giving_up=self._giving_up)

    async def run(self, enough: Callable[[], bool], *, wishes: bool = True, at_most: float = math.inf) -> None:
        """Send until `enough`; when this returns, every order is answered, or `give_up` was called.

        Without `wishes` each client is content with its first answer, and nothing is waited for beyond that. `at_most` so
        many payments a second are sent.
        """
        rate = min(self._rate, at_most)
        self._giving_up.clear()  # this load's requests are repeated, though the last load's were not any more
        self.merchants.closing, self._wishes = False, wishes
        due_s = time.monotonic()
        async with asyncio.TaskGroup() as paying:
            for order in self._orders:
                if enough() or self._giving_up.is_set():
                    break
                await self._places.acquire()
                # Orders that an outage delayed are not sent in one burst.
                due_s = max(due_s + 1 / rate, time.monotonic() - 1)
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                self.sent += 1
                paying.create_task(self._serve(order))
            self.merchants.closing = True

    def give_up(self) -> None:
        """Stop repeating requests."""
        self._giving_up.set()

    async def _serve(self, order: Order) -> None:
        key = f"torture-{self._seed}-{order.number}"
        try:
            if order.metadata:
                await self._send_card(order)
            async with asyncio.TaskGroup() as asking:
                for offset in range(2 if order.twin else 1):
                    asking.create_task(self._insist(key, order, order.amount_minor, offset))
            self.acknowledged += 1
        finally:
            self._places.release()
        if not self._wishes:
            self._ids.pop(key, None)
            return
        if order.repeat_after_s is not None:
            await asyncio.sleep(order.repeat_after_s)
            await self._insist(key, order, order.amount_minor, 1)
        if order.reuse_for_minor is not None:
            await self._insist(key, order, order.reuse_for_minor, 0)
        payment_id = self._ids.pop(key, None)
        if payment_id is not None:
            await self.merchants.act(payment_id, order.amount_minor, order.wish)

    async def _send_card(self, order: Order) -> None:
        """Send a payment that the API refuses."""
        body = {"amount": order.amount_minor, "idempotency_key": _CARD, "metadata": {"card": _CARD}}
        reply = await self._http.post(f"{self._urls[order.number % len(self._urls)]}/v1/payments", body)
        assert not 200 <= reply.status < 300, "a card number was accepted"

    async def _insist(self, key: str, order: Order, amount_minor: int, offset: int) -> None:
        """Send to one API after the other, with the same key, until there is a clear answer."""
        turn = order.number + offset
        tries = 0
        while True:
            request = await self._ask(self._urls[(turn + tries) % len(self._urls)], key, order, amount_minor)
            self.journal.append(request)
            if request.payment_id is not None and (order.wish.manual or order.wish.refunds):
                self._ids[key] = request.payment_id
            if request.acknowledged or 400 <= request.status < 500 or self._giving_up.is_set():
                return
            await asyncio.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
            tries += 1

    async def _ask(self, url: str, key: str, order: Order, amount_minor: int) -> Request:
        sent_s = time.monotonic() - self._started_s
        body: dict[str, object] = {
            "amount": amount_minor,
            "currency": order.currency,
            "idempotency_key": key,
            "metadata": dict(order.metadata),
            "payment_method": "pm_card_torture",  # whatever provider it comes to
            "return_url": "https://shop.example/done",
        }
        if order.wish.manual:
            body["capture_method"] = "manual"
        if order.provider is not None:
            body["provider"] = order.provider
        reply = await self._http.post(f"{url}/v1/payments", body)
        return Request.answered(
            reply,
            key=key,
            amount_minor=amount_minor,
            currency=order.currency,
            sent_s=sent_s,
            answered_s=time.monotonic() - self._started_s,
        )
