"""A simulated gateway with Stripe's protocol: PaymentIntents that a customer may have to complete, and keys that expire.

It answers the bytes that the product's adapter sends. It keeps the first answer under a key, a failure too, for `key_s`; then
the same key makes another charge.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from okane.http.connection import HttpResponse
from tests.simulation.network import Exchange, Network
from tests.simulation.provider import Charge, ProviderSide

DECLINED, ACTION, PROCESSING = 0.15, 0.15, 0.10  # of the charges
PAGE: Final = 5  # intents of a page, so that a look-up reads several
IDLE_CUSTOMERS: Final = 0.15
SUCCEEDS: Final = 0.7  # of what is decided later
NOTICES: Final = (0.7, 0.2)  # the chances of a notice, and of its double
_ERROR = {"type": "card_error", "code": "card_declined", "decline_code": "generic_decline"}


@dataclass(slots=True)
class Intent:
    """One PaymentIntent."""

    ref: str
    key: str
    amount: int
    currency: str
    payment_id: str
    created: int
    status: str = "succeeded"

    @property
    def captured(self) -> bool:
        return self.status == "succeeded"

    def to_json(self) -> dict[str, Any]:
        """Return it as Stripe shows it."""
        action = {"type": "redirect_to_url", "redirect_to_url": {"url": f"https://bank.simulated/{self.ref}"}}
        return {
            "id": self.ref,
            "object": "payment_intent",
            "amount": self.amount,
            "amount_received": self.amount if self.captured else 0,
            "currency": self.currency,
            "status": self.status,
            "created": self.created,
            "metadata": {"payment_id": self.payment_id, "attempt_key": self.key},
            "last_payment_error": _ERROR if self.status in ("requires_payment_method", "canceled") else None,
            "next_action": action if self.status == "requires_action" else None,
        }


@dataclass(slots=True)
class Key:
    """An idempotency key, with the body that came under it and its answer, once there is one."""

    body: bytes
    until_s: float
    answer: HttpResponse | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A request of the adapter."""

    is_post: bool
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    form: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: bytes) -> Request:
        head, _, body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        url = urlsplit(target)
        return cls(method == "POST", url.path, _flat(url.query), headers, body, _flat(body.decode("ascii")))


class StripeGateway(ProviderSide):
    """The gateway's side."""

    name = "stripe"

    def __init__(self, network: Network, dice: Random, *, lag_s: float, patience_s: float, key_s: float) -> None:
        super().__init__(network, dice, lag_s=lag_s, patience_s=patience_s)
        self._intents: list[Intent] = []
        self._keys: dict[str, Key] = {}
        self._key_s = key_s
        self.notify: Callable[[bytes], None] = lambda _body: None
        self._notices = 0

    def charges(self) -> Iterable[Charge]:
        """Return the journal: one line for each PaymentIntent, whatever has become of it by now."""
        return [
            Charge(one.key, one.payment_id, one.amount, one.currency.upper(), one.captured, one.ref, 0.0, self.name)
            for one in self._intents
        ]

    def receive(self, raw: bytes, exchange: Exchange, *, travel_s: float, answer_s: float) -> None:
        """Take a request that has arrived, and answer it later."""
        request = Request.parse(raw)
        limited = self.limits() and not self.is_held_back(travel_s)
        if limited or not request.is_post:
            answer = _error(429, "rate_limit_error", "rate_limit") if limited else self._read(request)
            self._network.later(answer_s, exchange.answer, answer)
        else:
            take = self._cancel if request.path.endswith("/cancel") else self._take
            self._network.later(travel_s, take, request, exchange, answer_s)

    def _take(self, request: Request, exchange: Exchange, answer_s: float) -> None:
        """Execute a POST under its key, or repeat its first answer."""
        name, now_s = request.headers["idempotency-key"], self._network.loop.time()
        key = self._keys.get(name)
        if key is not None and now_s < key.until_s:
            self._network.later(answer_s, exchange.answer, self._repeat(name, key, request))
            return
        if key is not None:
            self._network.faults["expired key used again"] += 1
        self._keys[name] = key = Key(request.body, now_s + self._key_s)
        answer = self._execute(name, request.form)
        self._network.later(answer_s, self._answer, key, answer, exchange)

    def _answer(self, key: Key, answer: HttpResponse, exchange: Exchange) -> None:
        key.answer = answer
        exchange.answer(answer)

    def _repeat(self, name: str, key: Key, request: Request) -> HttpResponse:
        if key.body != request.body:
            self.on_mismatch(f"key {name} came with {request.body!r} after {key.body!r}")
            return _error(400, "idempotency_error", "idempotency_key_reused")
        if key.answer is None:
            return _error(409, "idempotency_error", "idempotency_key_in_use")
        self._network.faults["replayed answer"] += 1
        saved = key.answer
        return HttpResponse(saved.status, saved.body, None, headers={"idempotent-replayed": "true"})

    def is_canceled(self, ref: str | None) -> bool:
        """Return True if the intent can move no money any more."""
        return any(one.ref == ref and one.status == "canceled" for one in self._intents)

    def _cancel(self, request: Request, exchange: Exchange, answer_s: float) -> None:
        """Cancel an intent, unless it is canceled already or its money has moved. Its answer may be lost."""
        ref = request.path.split("/")[-2]
        intent = next(one for one in self._intents if one.ref == ref)
        if self._dice.random() < self.mood.fail:
            answer = _error(500, "api_error", "")
        elif intent.status in ("canceled", "succeeded", "processing"):
            answer = _error(400, "invalid_request_error", "payment_intent_unexpected_state")
        else:
            intent.status = "canceled"
            self._network.faults["intent canceled"] += 1
            self._tell(intent)
            answer = _json(200, intent.to_json())
        self._network.later(answer_s, exchange.answer, answer)

    def _execute(self, name: str, form: Mapping[str, str]) -> HttpResponse:
        fails, decides = self._dice.random() < self.mood.fail, self._dice.random() < 0.5
        if fails:
            self._network.faults["saved server error"] += 1
        if fails and decides:
            return _error(500, "api_error", "")
        intent = self._make(name, form)
        if fails:
            return _error(500, "api_error", "")
        if intent.status == "requires_payment_method":
            return _json(402, {"error": {**_ERROR, "payment_intent": intent.to_json()}})
        return _json(200, intent.to_json())

    def _make(self, name: str, form: Mapping[str, str]) -> Intent:
        roll, wait_s = self._dice.random(), 0.3 + self._dice.random() ** 2 * 8
        intent = Intent(
            ref=f"pi_{len(self._intents)}",
            key=name,
            amount=int(form["amount"]),
            currency=form["currency"],
            payment_id=form["metadata[payment_id]"],
            created=int(self._network.loop.wall_s()),
        )
        self._intents.append(intent)
        if roll < DECLINED:
            intent.status = "requires_payment_method"
        elif roll < DECLINED + ACTION:
            intent.status = "requires_action" if "return_url" in form else "requires_payment_method"
        elif roll < DECLINED + ACTION + PROCESSING:
            intent.status = "processing"
        self._network.faults[f"intent {intent.status}"] += 1
        if intent.status in ("processing", "requires_action"):
            self._network.later(wait_s, self._decide, intent)
        self._tell(intent)
        return intent

    def _decide(self, intent: Intent) -> None:
        """Let the customer, or the bank, decide."""
        if intent.status == "requires_action" and self._dice.random() < IDLE_CUSTOMERS:
            self._network.faults["idle customer"] += 1
            return
        intent.status = "succeeded" if self._dice.random() < SUCCEEDS else "requires_payment_method"
        self._tell(intent)

    def _tell(self, intent: Intent) -> None:
        """Send a notice of the intent as it is now: late, twice, after a newer one, or never."""
        kind = {"requires_payment_method": "payment_failed"}.get(intent.status, intent.status)
        self._notices += 1
        event = {"id": f"evt_{self._notices}", "type": f"payment_intent.{kind}", "data": {"object": intent.to_json()}}
        body = json.dumps(event).encode()
        for chance in NOTICES:
            if self._dice.random() < chance:
                self._network.later(0.01 + self._dice.random() ** 3 * 6, self.notify, body)

    def _read(self, request: Request) -> HttpResponse:
        """Answer a GET: one intent, or a page of them, the newest first."""
        if self._dice.random() < self.mood.fail:
            return _error(500, "api_error", "")
        ref = request.path.removeprefix("/v1/payment_intents").strip("/")
        if ref:
            found = next((one for one in self._intents if one.ref == ref), None)
            return (
                _error(404, "invalid_request_error", "resource_missing")
                if found is None
                else _json(200, found.to_json())
            )
        since = int(request.query["created[gte]"])
        newest = [one for one in reversed(self._intents) if one.created >= since]
        after = request.query.get("starting_after")
        first = 0 if after is None else [one.ref for one in newest].index(after) + 1
        page = [one.to_json() for one in newest[first : first + PAGE]]
        return _json(200, {"object": "list", "data": page, "has_more": first + PAGE < len(newest)})


def _json(status: int, body: object) -> HttpResponse:
    return HttpResponse(status, json.dumps(body).encode(), None)


def _error(status: int, kind: str, code: str) -> HttpResponse:
    return _json(status, {"error": {"type": kind, "code": code, "message": "simulated"}})


def _flat(text: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(text).items()}
