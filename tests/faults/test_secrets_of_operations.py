"""Canaries in captures, refunds, payment methods, endpoints, disputes and the settings of a provider: what a client, a
gateway or a receiver says in them must not come out but where it is documented to."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bench.console.visitor import visiting
from okane.api_key import Mode, NewKey, Scope
from okane.local.okane_process import answers_http
from okane.local.postgres import PostgresServer
from okane.local.redis_server import RedisServer
from okane.store import ApiKeyStore
from tests.faults.test_secrets import CARDS, HEADERS, PROVIDER_PASSWORD, TOKEN, Watched, watched
from tests.flow.system import MASTER, System

__all__ = ["watched"]

NOTICE_SECRET = "canary-notices-44e1"
GATEWAY_KEY = "sk_live_canary51d0aa99XY"
# The gateway and the receiver repeat all that they know in every text.
LEAK = f"card {CARDS[0]}, key {GATEWAY_KEY}, password={PROVIDER_PASSWORD}"
METHOD_TOKEN = "pm_canary_7d21e0"  # no answer shows it
SECRETS = (NOTICE_SECRET, GATEWAY_KEY, MASTER, METHOD_TOKEN)
PAGES = (
    "/",
    "/payments",
    "/dead",
    "/reviews",
    "/disputes",
    "/providers",
    "/streams",
    "/webhooks",
    "/workers",
    "/audit",
)
OF_A_REFUND = ("idempotency_key", "currency", "amount", "payment", "reason", "metadata")
OF_A_CAPTURE = ("idempotency_key", "amount", "metadata")
OF_A_METHOD = ("idempotency_key", "customer", "brand", "kind", "tokens", "last4")
OF_AN_ENDPOINT = ("description", "payload", "url")
Members = dict[str, object]
DECLINED, LOST = 13, 14  # amounts of refunds that the gateway refuses, or fails


@dataclass
class Outside:
    """A gateway, a receiver of webhooks and a collector of traces on one port. `received` has all but the gateway's."""

    port: int = 0
    received: dict[str, list[bytes]] = field(default_factory=lambda: {"traces": [], "hook": []})

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/charges", self._charge)
        app.router.add_post("/operations", self._operate)
        app.router.add_get("/disputes/{ref}", self._dispute)
        app.router.add_post("/v1/traces", self._take)
        app.router.add_post("/hook", self._take)
        app.router.add_get("/{rest:.*}", self._fail)
        return app

    async def _charge(self, request: web.Request) -> web.Response:
        held = (await request.json()).get("capture") == "manual"
        return web.json_response({"provider_ref": "ch_1", "status": "authorized" if held else "captured"})

    async def _operate(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if asked["kind"] == "refund" and asked["amount"] == DECLINED:
            return web.json_response({"code": LEAK, "message": LEAK}, status=422)
        if asked["kind"] == "refund" and asked["amount"] == LOST:
            return web.Response(status=500, text=LEAK, reason="No")
        shown = {name: asked[name] for name in ("kind", "amount", "currency")}
        return web.json_response({**shown, "provider_ref": "op_1", "status": "succeeded"})

    async def _dispute(self, request: web.Request) -> web.Response:
        ref = request.match_info["ref"]
        shown = {"dispute": ref, "payment_id": ref.removeprefix("dp_"), "amount": 1, "currency": "USD"}
        return web.json_response({**shown, "status": "needs_response", "reason": LEAK})

    async def _fail(self, request: web.Request) -> web.Response:
        return web.json_response({"code": LEAK, "message": LEAK}, status=500)

    async def _take(self, request: web.Request) -> web.Response:
        self.received["hook" if request.path == "/hook" else "traces"].append(await request.read())
        return web.Response(status=500 if request.path == "/hook" else 200, text=LEAK)


@asynccontextmanager
async def outside() -> AsyncIterator[Outside]:
    one = Outside()
    runner = web.AppRunner(one.app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    one.port = runner.addresses[0][1]
    try:
        yield one
    finally:
        await runner.cleanup()


@dataclass
class Client:
    """A client of the API. `shown` are the answers that may hold no card number and no secret, but the client's own token."""

    http: aiohttp.ClientSession
    shown: list[bytes] = field(default_factory=list)

    async def ask(self, method: str, path: str, body: object = None, *, status: int = 202) -> Any:
        async with self.http.request(method, path, json=body, headers=HEADERS) as response:
            answer = await response.read()
            assert response.status == status, (path, response.status, answer)
            self.shown.append(answer)
            return json.loads(answer)

    async def pay(self, number: int, **more: object) -> str:
        body = {"amount": 440, "idempotency_key": f"{TOKEN}-{number}", "provider": "echo", "metadata": {"t": TOKEN}}
        return str((await self.ask("POST", "/v1/payments", body | more))["payment"]["id"])

    async def refused(self, one: Watched, method: str, path: str, body: object) -> None:
        """A request with canaries in it, whose answer must repeat none, not even the client's own."""
        async with self.http.request(method, path, data=json.dumps(body), headers=HEADERS) as response:
            answer = await response.read()
            if method == "GET" and response.status == 200:  # a parameter that the route does not read
                self.shown.append(answer)
                return
            assert 400 <= response.status < 500, (method, path, body, response.status)
            one._refusals.append(answer)


def _each(names: Sequence[str], card: str) -> list[Members]:
    """Return each of these members, and an unknown one, with a card number in it."""
    return [{name: card} for name in (*names, card)]


def wrong_requests(payment: str, refund: str, method: str, endpoint: str) -> list[tuple[str, str, object]]:
    """Return requests with a card number in each of their texts."""
    card, other = CARDS
    base: Members = {"payment": payment, "amount": 1, "idempotency_key": "k"}
    saved: Members = {"idempotency_key": "k", "kind": "card", "customer": "c", "tokens": {"echo": "pm_1"}}
    found: list[tuple[str, str, object]] = []
    in_metadata: list[Members] = [{"metadata": {"card": card}}, {"metadata": {card: TOKEN}}]
    for members in (*_each(OF_A_REFUND, card), *in_metadata):
        found.append(("POST", "/v1/refunds", base | members))
    for members in (*_each(OF_A_CAPTURE, card), *in_metadata):
        found.append(("POST", f"/v1/payments/{payment}/capture", {"amount": 1, "idempotency_key": "k", **members}))
    in_tokens: list[Members] = [{"tokens": {"echo": card}}, {"tokens": {card: TOKEN}}]
    for members in (*_each(OF_A_METHOD, card), *in_tokens):
        found.append(("POST", "/v1/payment-methods", saved | members))
    in_address: list[Members] = [{"url": f"https://x.example/{card}"}, {"types": [card]}]
    for members in (*_each(OF_AN_ENDPOINT, card), *in_address):
        found.append(("POST", "/v1/webhook-endpoints", {"url": "https://x.example/hook", **members}))
        found.append(("PATCH", f"/v1/webhook-endpoints/{endpoint}", members))
    for path in (f"/v1/refunds/{refund}", f"/v1/payments/{payment}"):
        found.append(("POST", f"{path}/resolve", {"status": "success", "reason": card}))
        found.append(("POST", f"{path}/resolve", {"status": "success", "reason": "seen", "provider_ref": card}))
        found.append(("POST", f"{path}/resolve", {"status": card, "reason": f"{TOKEN} {other}"}))
    for path in ("refunds", "disputes", "payment-methods", "webhook-endpoints", "payments", "events"):
        found.append(("GET", f"/v1/{path}/{card}", None))
        found.append(("GET", f"/v1/{path}?limit={card}", None))
        found.append(("GET", f"/v1/{path}?{card}={TOKEN}", None))
        found.append(("GET", f"/v1/{path}?after={card}", None))
    for query in (f"payment={card}", f"status={card}"):
        found.append(("GET", f"/v1/refunds?{query}", None))
        found.append(("GET", f"/v1/disputes?{query}", None))
    found.append(("DELETE", f"/v1/payment-methods/{card}", None))
    found.append(("POST", f"/v1/providers/{card}/webhook", {"id": TOKEN}))
    found.append(("POST", "/v1/dead-letters/replay", {"filter": {"payment_ids": [card]}}))
    return found


def signed(event_id: str, event: object) -> tuple[bytes, dict[str, str]]:
    """Return a notice of the gateway, and its headers."""
    body, at = json.dumps(event).encode(), int(time.time())
    digest = hmac.new(NOTICE_SECRET.encode(), f"{event_id}.{at}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{b64encode(digest).decode()}"
    return body, {"webhook-id": event_id, "webhook-timestamp": str(at), "webhook-signature": signature}


async def notify(client: Client, payment: str) -> None:
    """Send a notice about a dispute, one with canaries for its words, and a forged one."""
    about = {"payment_id": payment, "provider_ref": "ch_1"}
    notices = [
        ({"type": "dispute.opened", **about, "dispute": f"dp_{payment}"}, 200),
        ({"type": f"charge {CARDS[1]}", **about}, 200),
        ({"type": LEAK, **about}, 200),
    ]
    for number, (event, status) in enumerate(notices):
        body, headers = signed(f"evt_{number}", event)
        async with client.http.post("/v1/providers/echo/webhook", data=body, headers=headers) as response:
            client.shown.append(await response.read())
            assert response.status == status
    forged = {"webhook-id": CARDS[0], "webhook-timestamp": CARDS[1], "webhook-signature": f"v1,{NOTICE_SECRET}"}
    async with client.http.post("/v1/providers/echo/webhook", data=LEAK.encode(), headers=forged) as response:
        client.shown.append(await response.read())
        assert response.status == 400


async def configure(one: Watched, out: Outside, folder: Path) -> None:
    system = one.system
    path = folder / "providers.toml"
    address = f"http://okane:{PROVIDER_PASSWORD}@127.0.0.1:{out.port}"
    path.write_text(
        f'[providers.echo]\nkind = "okane_http"\nbase_url = "{address}"\ntimeout = "1s"\n'
        'webhook_secrets = ["env:CANARY_NOTICES"]\n'
    )
    system.env |= {
        "OKANE_PROVIDERS_FILE": str(path),
        "CANARY_NOTICES": NOTICE_SECRET,
        "OKANE_WEBHOOK_MASTER": MASTER,
        "OKANE_WEBHOOK_ALLOW": "127.0.0.0/8",
        "OKANE_TRACING": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{out.port}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    one.watch(*SECRETS)


async def move_money(client: Client, system: System) -> tuple[str, list[str]]:
    """Charge, capture and refund with the token in all texts; return a payment, and the ids of its refunds."""
    paid, held = await client.pay(1), await client.pay(2, capture_method="manual")
    async with asyncio.timeout(30):
        while {(await system.payment(one))["status"] for one in (paid, held)} != {"success", "authorized"}:
            await asyncio.sleep(0.05)
    key = {"idempotency_key": f"{TOKEN}-capture", "metadata": {"t": TOKEN}}
    await client.ask("POST", f"/v1/payments/{held}/capture", {"amount": 400, **key})
    refunds = []
    for amount in (1, DECLINED, LOST):
        wanted = {"payment": paid, "amount": amount, "idempotency_key": f"{TOKEN}-{amount}", "reason": TOKEN}
        answer = await client.ask("POST", "/v1/refunds", wanted | {"metadata": {"t": TOKEN}})
        refunds.append(str(answer["refund"]["id"]))
    expected = {"success", "failed_final", "unknown"}
    async with asyncio.timeout(30):
        while {one["status"] for one in await system.operations(paid)} != expected:
            await asyncio.sleep(0.05)
    return paid, refunds


async def console_pages(system: System, key: NewKey, paths: Sequence[str]) -> list[bytes]:
    """Return the pages of a console, and their texts of refusals."""
    port, metrics = system._port("console"), system._port("console metrics")
    env = {"OKANE_CONSOLE_PORT": str(port), "OKANE_METRICS_PORT": str(metrics), "OKANE_AUTH": "keys"}
    await system._start("console", ["console"], env, answers_http(port, "/healthz"))

    def visit() -> list[bytes]:
        with visiting(port, key.secret) as visitor:
            return [visitor.get(path).text.encode() for path in paths]

    return await asyncio.to_thread(visit)


@pytest.mark.timeout(240)
async def test_no_canary_gets_out_of_operations_methods_endpoints_and_disputes(
    watched: tuple[Watched, PostgresServer, RedisServer], tmp_path: Path
) -> None:
    one, postgres, _ = watched
    system, key = one.system, NewKey.make(Mode.TEST)
    keys = ApiKeyStore(postgres.url)
    await keys.create(key, account_id="default", mode=Mode.TEST, scopes=tuple(Scope))
    await keys.aclose()
    async with outside() as out, aiohttp.ClientSession(system.url) as http:
        await configure(one, out, tmp_path)
        await asyncio.gather(system.start_api(), system.start_worker("w1"), system.start_dispatcher("d1"))
        client = Client(http)
        made = await client.ask(
            "POST", "/v1/webhook-endpoints", {"url": f"http://127.0.0.1:{out.port}/hook", "types": ["*"]}, status=201
        )
        client.shown.pop()  # with the secret, once
        endpoint, secret = str(made["endpoint"]["id"]), str(made["secret"])
        one.watch(secret, secret.removeprefix("whsec_"), key.secret.rpartition("_")[2])
        paid, refunds = await move_money(client, system)
        saved = await client.ask(
            "POST",
            "/v1/payment-methods",
            {"idempotency_key": f"{TOKEN}-m", "kind": "card", "tokens": {"echo": METHOD_TOKEN}},
            status=201,
        )
        method = str(saved["payment_method"]["id"])
        await client.pay(3, payment_method=method)
        await notify(client, paid)
        async with asyncio.timeout(30):
            while not (await client.ask("GET", "/v1/disputes", status=200))["disputes"]:
                await asyncio.sleep(0.1)
        await one.until(lambda: len(out.received["hook"]) >= 4)
        for request in wrong_requests(paid, refunds[0], method, endpoint):
            await client.refused(one, *request)
        for path in (
            *(
                "/v1/payments",
                "/v1/refunds",
                "/v1/disputes",
                "/v1/payment-methods",
                "/v1/webhook-endpoints",
                "/v1/events",
            ),
            *(f"/v1/payments/{paid}{part}" for part in ("", "/events", "/attempts", "/operations")),
            *(f"/v1/refunds/{refund}" for refund in refunds),
            *(f"/v1/webhook-endpoints/{endpoint}{part}" for part in ("", "/deliveries")),
        ):
            await client.ask("GET", path, status=200)
        pages = await console_pages(system, key, [*PAGES, f"/payments/{paid}", f"/webhooks/{endpoint}"])
        await one.until(lambda: len(out.received["traces"]) > 3)
        await one.check("api", "w1", "d1", "console")
        await asyncio.gather(*(system.stop(name) for name in ("api", "w1", "d1")))  # the last spans
    visible = {"answers": client.shown, "pages": pages, "webhooks": out.received["hook"]}
    for where, texts in visible.items():
        assert texts
        for text in texts:
            for canary in (*CARDS, *one._secrets):
                assert canary == TOKEN or canary.encode() not in text, (where, canary, text)
    for span in out.received["traces"]:
        for canary in one._secrets:
            assert canary.encode() not in span, (canary, span)
