"""The HTTP side of the gateway: Stripe's routes, the faults in force, and signed notices.

POST /v1/payment_intents            form, Idempotency-Key: make and confirm, or repeat the first answer
POST /v1/payment_intents/{id}/capture, /cancel; POST /v1/refunds, GET /v1/refunds[/{id}]: see `operations`
GET  /v1/disputes/{id}: see `disputes`
GET  /v1/payment_intents/{id}       GET /v1/payment_intents?created[gte]=…   GET /v1/payment_intents/search?query=…
GET  /control                       the behaviour in force; PUT with some of its fields changes those
GET  /health
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import json
import random
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import aiohttp
from aiohttp import web

from torture.gateway.books import ERROR, OPEN, Books, Intent, Saved
from torture.gateway.disputes import GatewayDisputes
from torture.gateway.operations import GatewayOperations, form_of

MOST_LISTED = 100
_SEARCHED = re.compile(r"metadata\['payment_id'\]:'([0-9a-f-]+)'")
_SUCCEEDS = 0.7  # of what is decided later
DECIDED_S = (0.1, 2.0)
_TOLD_AGAIN_S = 1.0
_NOTICE_TIMEOUT = aiohttp.ClientTimeout(total=3)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The chances of each act, per call. `hang_s`: how long a call without an answer is held."""

    decline: float = 0.05
    action: float = 0.10
    processing: float = 0.05
    limit: float = 0.01  # 429, nothing happens
    refuse: float = 0.01  # 500, nothing happens and nothing is kept
    fail: float = 0.0  # 500, although it charged; a repeat gets it, too
    silent: float = 0.0  # no answer, although it charged
    decline_operation: float = 0.05  # a capture or refund
    slow_refund: float = 0.2  # the bank decides later
    failing_refund: float = 0.05  # it succeeds, and comes back later
    dispute: float = 0.05  # of what was charged
    lose_notice: float = 0.1
    double_notice: float = 0.1
    latency_s: float = 0.02
    hang_s: float = 3.0
    hold_s: float = 3_600.0  # until an authorization ends


class Gateway:
    """The gateway. `notify` are the addresses of the API's webhook, of which each notice goes to one."""

    def __init__(self, books: Books, *, notify: Sequence[str], secret: str, dice: random.Random) -> None:
        self.behaviour = Behaviour()
        self.books = books
        self._notify = itertools.cycle(notify)
        self._secret = secret.encode()
        self.dice = dice
        self._busy: set[str] = set()
        self._operations = GatewayOperations(self)
        self._disputes = GatewayDisputes(self)
        self._tasks: set[asyncio.Task[None]] = set()
        self._awaited: set[asyncio.Task[None]] = set()

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application()
        app.router.add_post("/v1/payment_intents", self._charge)
        app.router.add_get("/v1/payment_intents", self._list)
        app.router.add_get("/v1/payment_intents/search", self._search)
        app.router.add_get("/v1/payment_intents/{ref}", self._retrieve)
        self._operations.add_to(app)
        self._disputes.add_to(app)
        app.router.add_get("/control", self._show_control)
        app.router.add_put("/control", self._change_control)
        app.router.add_get("/health", self._health)
        app.cleanup_ctx.append(self._running)
        return app

    async def _running(self, _app: web.Application) -> AsyncIterator[None]:
        """Decide what an earlier life has left undecided."""
        self._http = aiohttp.ClientSession(timeout=_NOTICE_TIMEOUT)
        for intent in self.books.undecided():
            self._decide_later(intent)
        self._operations.resume()
        self._disputes.resume()
        yield
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()
        self.books.close()

    async def _charge(self, request: web.Request) -> web.Response:
        return await self.keyed(request, self._make)

    async def keyed(self, request: web.Request, make: Callable[[str, str], Saved]) -> web.Response:
        """Answer a POST: `make` gets its key and its body, once for each key."""
        body, key = (await request.read()).decode(), request.headers["Idempotency-Key"]
        if self.roll(self.behaviour.limit):
            return _error(429, "invalid_request_error", "rate_limit")
        if self.roll(self.behaviour.refuse):
            return _error(500, "api_error", "")
        asked = f"{request.path} {body}"
        saved = self.books.find_key(key)
        if saved is not None:
            if key in self._busy:
                return _error(409, "idempotency_error", "idempotency_key_in_use")
            if saved.request != asked:
                return _error(400, "idempotency_error", "idempotency_key_reused")
            return _answer(saved, replayed=True)
        saved = make(key, asked)
        self._busy.add(key)
        try:
            await asyncio.sleep(self.behaviour.latency_s * self.dice.random() * 2)
        finally:
            self._busy.discard(key)
        if self.roll(self.behaviour.silent):
            await asyncio.sleep(self.behaviour.hang_s)
            if request.transport is not None:
                request.transport.abort()
        return _answer(saved)

    def _make(self, key: str, body: str) -> Saved:
        """Make a PaymentIntent; return the answer, which is written with it."""
        form = form_of(body)
        manual = form.get("capture_method") == "manual"
        roll, chances = self.dice.random(), self.behaviour
        status = "requires_capture" if manual else "succeeded"
        if roll < chances.decline:
            status = "requires_payment_method"
        elif roll < chances.decline + chances.action:
            status = "requires_action" if "return_url" in form else "requires_payment_method"
        elif roll < chances.decline + chances.action + chances.processing:
            status = "processing"
        intent = Intent(
            ref=f"pi_{secrets.token_hex(8)}",
            key=key,
            payment_id=form["metadata[payment_id]"],
            amount=int(form["amount"]),
            currency=form["currency"],
            status=status,
            at_s=time.time(),
            manual=manual,
            capture_before_s=time.time() + chances.hold_s if manual else None,
            method=form.get("payment_method", ""),
            customer=form.get("customer", ""),
            off_session=form.get("off_session") == "true",
        )
        shown = intent.to_json()
        if self.roll(chances.fail):
            saved = Saved(body, 500, json.dumps({"error": {"type": "api_error", "message": "broken"}}))
        elif status == "requires_payment_method":
            saved = Saved(body, 402, json.dumps({"error": {**ERROR, "payment_intent": shown}}))
        else:
            saved = Saved(body, 200, json.dumps(shown))
        self.books.make(intent, saved)
        if status in OPEN:
            self._decide_later(intent)
        elif intent.captured:
            self.may_be_disputed(intent)
        return saved

    def may_be_disputed(self, intent: Intent) -> None:
        """Let the customer of a charge dispute it, or not."""
        self._disputes.may_begin(intent)

    def later(self, acting: Coroutine[None, None, None], *, is_awaited: bool = False) -> None:
        """Run something beside the requests. The gateway is busy while it runs, if it `is_awaited`."""
        task = asyncio.get_running_loop().create_task(acting)
        for tasks in (self._tasks, self._awaited) if is_awaited else (self._tasks,):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    def _decide_later(self, intent: Intent) -> None:
        """Let the customer, or the bank, decide after a while; an authorization ends in its time."""
        if intent.status == "requires_capture":
            self.later(self._end(intent.ref, (intent.capture_before_s or 0.0) - time.time()))
        else:
            self.later(self._decide(intent.ref, self.dice.uniform(*DECIDED_S)))

    async def _end(self, ref: str, after_s: float) -> None:
        """End an authorization that was neither captured nor let go."""
        await asyncio.sleep(after_s)
        intent = self.books.find(ref)
        if intent is not None and intent.status == "requires_capture":
            await self.tell("payment_intent.canceled", self.books.decide(ref, "canceled").to_json())

    async def _decide(self, ref: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        intent = self.books.find(ref)
        if intent is None or intent.status not in OPEN:  # canceled meanwhile
            return
        succeeds = self.roll(_SUCCEEDS)
        status = "requires_capture" if intent.manual else "succeeded"
        intent = self.books.decide(ref, status if succeeds else "requires_payment_method")
        if succeeds and intent.manual:
            self._decide_later(intent)
        elif succeeds:
            self.may_be_disputed(intent)
        kind = "amount_capturable_updated" if intent.manual else "succeeded"
        await self.tell(f"payment_intent.{kind if succeeds else 'payment_failed'}", intent.to_json())

    async def tell(self, kind: str, about: Mapping[str, object], *, until_taken: bool = False) -> None:
        """Send a notice: never, once or twice; or until it is taken."""
        if not until_taken and self.roll(self.behaviour.lose_notice):
            return
        event = {"id": f"evt_{secrets.token_hex(8)}", "type": kind, "data": {"object": about}}
        for _ in range(2 if self.roll(self.behaviour.double_notice) else 1):
            while True:
                taken = await self._send(json.dumps(event).encode())
                if taken or not until_taken:
                    break
                await asyncio.sleep(_TOLD_AGAIN_S)

    async def _send(self, body: bytes) -> bool:
        """Send a signed notice once, and return whether it was taken. One that was not is lost: polls must do."""
        signed_at = str(int(time.time()))
        signature = hmac.new(self._secret, f"{signed_at}.".encode() + body, hashlib.sha256).hexdigest()
        headers = {"Stripe-Signature": f"t={signed_at},v1={signature}", "Content-Type": "application/json"}
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._http.post(next(self._notify), data=body, headers=headers) as answer:
                await answer.read()
                return answer.status < 300
        return False

    async def _retrieve(self, request: web.Request) -> web.Response:
        intent = self.books.find(request.match_info["ref"])
        if intent is None:
            return _error(404, "invalid_request_error", "resource_missing")
        return _json(200, intent.to_json())

    async def _list(self, request: web.Request) -> web.Response:
        newest = self.books.newest(int(request.query["created[gte]"]))
        after = request.query.get("starting_after")
        if after is not None:
            newest = itertools.islice(itertools.dropwhile(lambda one: one.ref != after, newest), 1, None)
        page = list(itertools.islice(newest, MOST_LISTED + 1))
        listed = [one.to_json() for one in page[:MOST_LISTED]]
        return _json(200, {"object": "list", "data": listed, "has_more": len(page) > MOST_LISTED})

    async def _search(self, request: web.Request) -> web.Response:
        asked = _SEARCHED.fullmatch(request.query["query"])
        found = [] if asked is None else [one.to_json() for one in self.books.of_payment(asked[1])]
        return _json(200, {"object": "search_result", "data": found, "has_more": False})

    async def _show_control(self, _request: web.Request) -> web.Response:
        return _json(200, asdict(self.behaviour))

    async def _change_control(self, request: web.Request) -> web.Response:
        changes: Mapping[str, float] = await request.json()
        if unknown := changes.keys() - {one.name for one in fields(Behaviour)}:
            return _json(400, {"unknown": sorted(unknown)})
        self.behaviour = replace(self.behaviour, **changes)
        return _json(200, asdict(self.behaviour))

    def is_busy(self) -> bool:
        """Tell whether a refund or dispute will change, or waits to be told."""
        return bool(self._awaited)

    async def _health(self, _request: web.Request) -> web.Response:
        return _json(200, {**self.books.counts(), "busy": self.is_busy()})

    def roll(self, chance: float) -> bool:
        """Return True with this chance."""
        return self.dice.random() < chance


async def serve(
    *, port: int, journal: Path, notify: Sequence[str], secret: str, seed: int, stop: asyncio.Event
) -> None:
    """Serve on the loopback address until `stop` is set."""
    gateway = Gateway(Books(journal), notify=notify, secret=secret, dice=random.Random(seed))
    runner = web.AppRunner(gateway.app(), access_log=None, shutdown_timeout=1.0)
    try:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await stop.wait()
    finally:
        await runner.cleanup()


def _answer(saved: Saved, *, replayed: bool = False) -> web.Response:
    headers = {"Idempotent-Replayed": "true"} if replayed else None
    return web.Response(
        status=saved.status, body=saved.answer.encode(), content_type="application/json", headers=headers
    )


def _error(status: int, kind: str, code: str) -> web.Response:
    return _json(status, {"error": {"type": kind, "code": code, "message": "as the torture wants it"}})


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=json.dumps(body).encode(), content_type="application/json")
