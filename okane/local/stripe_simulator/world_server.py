"""Serve Stripe World as Stripe's API on one port. Run by the simulator's own Python: it imports nothing of okane.

Every answer about money is Stripe World's. Three things that Stripe has and Stripe World lacks are added on the way: test
payment methods by their short names (`pm_card_visa`), `return_url` with a page on which a customer completes 3-D Secure,
and signed webhooks. `/journal` lists the payments that Stripe World's own list of PaymentIntents calls succeeded.
"""

from __future__ import annotations

import argparse
import asyncio
import html
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

sys.path.insert(0, str(Path(__file__).parent))  # run with -I, which leaves out the folder of the script

import webhook_sender
from account import Account

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_INTENTS = "/v1/payment_intents"
_PAGE = 100
_PAGE_HTML = """<!doctype html><title>3-D Secure (simulated)</title>
<h1>Authenticate {intent}</h1><p>{amount} {currency}. This page stands for that of the customer's bank.</p>
<form method="post"><button name="outcome" value="succeeded">Complete</button>
<button name="outcome" value="failed">Fail</button></form>
"""


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)

    def document(self) -> dict[str, Any]:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found


class World:
    """The account, called as Stripe's API. Its key is not checked, but must be there."""

    def __init__(self, account: Account) -> None:
        self._account = account

    async def call(self, method: str, path: str, form: dict[str, str] | None = None) -> Answer:
        headers = [(b"content-type", b"application/x-www-form-urlencoded"), (b"authorization", b"Bearer sk_test_page")]
        path, _, query = path.partition("?")
        return await self.forward(method, path, query.encode(), headers, urlencode(form or {}).encode())

    async def forward(
        self, method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> Answer:
        sent = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
        answer = await asyncio.to_thread(self._account.respond, method, path, query.decode("latin-1"), sent, body)
        kept = tuple((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers)
        return Answer(answer.status, answer.body_bytes, kept)

    async def intents(self) -> AsyncIterator[dict[str, Any]]:
        """Yield every PaymentIntent, newest first, from the list that Stripe's API has."""
        after = ""
        while True:
            page = (await self.call("GET", f"{_INTENTS}?limit={_PAGE}{after}")).document()
            for intent in page["data"]:
                yield intent
            if not page["has_more"]:
                return
            after = f"&starting_after={page['data'][-1]['id']}"


class StripeServer:
    """The ASGI application. `url` is its own address, for the pages that customers open."""

    def __init__(
        self, world: World, *, account: Account, url: str, sender: webhook_sender.WebhookSender | None
    ) -> None:
        self._world = world
        self._account = account
        self._url = url
        self._sender = sender
        self._one_card_at_a_time = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        answer = await self._answer(scope, body)
        headers = [*answer.headers, (b"content-length", str(len(answer.body)).encode())]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _live(self, receive: Receive, send: Send) -> None:
        """Save the account when the server stops: the server's own process ends by the signal right after it."""
        while True:
            kind = (await receive())["type"]
            if kind == "lifespan.shutdown":
                await asyncio.to_thread(self._account.save)
                await asyncio.to_thread(self._account.close)
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _answer(self, scope: Scope, body: bytes) -> Answer:
        method, path = scope["method"], scope["path"]
        if path == "/health":
            return Answer(200, b"{}")
        if path == "/journal":
            return Answer(200, await self._journal())
        if path.startswith("/authenticate/"):
            return await self._authenticate(method, path.removeprefix("/authenticate/"), body)
        return await self._api(method, path, scope, body)

    async def _api(self, method: str, path: str, scope: Scope, body: bytes) -> Answer:
        return_url = None
        if method == "POST" and path.startswith(_INTENTS):
            form = dict(parse_qsl(body.decode(), keep_blank_values=True))
            return_url = form.pop("return_url", None)
            if form.get("payment_method", "").startswith("pm_card_"):
                form["payment_method"] = await self._card(form["payment_method"])
            body = urlencode(form).encode()
        answer = await self._world.forward(method, path, scope["query_string"], list(scope["headers"]), body)
        if not path.startswith(_INTENTS):
            return answer
        if method == "POST" and self._sender is not None:
            self._sender.look()
        document = answer.document()
        if return_url is not None and "id" in document:
            self._account.return_urls[document["id"]] = return_url
        for intent in (document, *document.get("data", ()), document.get("error", {}).get("payment_intent") or {}):
            self._add_page(intent)
        return Answer(answer.status, json.dumps(document).encode(), answer.headers)

    async def _card(self, name: str) -> str:
        """Return the payment method with this short name; Stripe World makes it on first use. Unknown names stay."""
        cards = self._account.cards
        async with self._one_card_at_a_time:
            if name not in cards:
                form = {"type": "card", "card[token]": name}
                answer = await self._world.call("POST", "/v1/payment_methods", form)
                cards[name] = str(answer.document()["id"]) if answer.status == 200 else name
        return str(cards[name])

    def _add_page(self, intent: dict[str, Any]) -> None:
        """Turn the next action into that of a charge with a `return_url`: a page to open."""
        return_url = self._account.return_urls.get(intent.get("id", ""))
        if return_url is not None and intent.get("status") == "requires_action":
            page = {"url": f"{self._url}/authenticate/{intent['id']}", "return_url": return_url}
            intent["next_action"] = {"type": "redirect_to_url", "redirect_to_url": page}

    async def _authenticate(self, method: str, intent_id: str, body: bytes) -> Answer:
        found = await self._world.call("GET", f"{_INTENTS}/{intent_id}")
        text = ((b"content-type", b"text/html; charset=utf-8"),)
        if found.status != 200:
            return Answer(404, b"no such PaymentIntent", text)
        intent = found.document()
        if method == "GET":
            shown = {name: html.escape(str(intent[name])) for name in ("amount", "currency")}
            return Answer(200, _PAGE_HTML.format(intent=html.escape(intent_id), **shown).encode(), text)
        if intent["status"] == "requires_action":
            # The simulated bank's two decisions, in Stripe World's own terms: a card that needs no authentication, and a
            # customer who is not there.
            outcome = dict(parse_qsl(body.decode())).get("outcome")
            completed = {"payment_method": await self._card("pm_card_visa")}
            change = completed if outcome == "succeeded" else {"off_session": "true"}
            await self._world.call("POST", f"{_INTENTS}/{intent_id}/confirm", change)
            if self._sender is not None:
                self._sender.look()
        location = self._account.return_urls.get(intent_id, "/health")
        return Answer(303, b"", ((b"location", location.encode()),))

    async def _journal(self) -> bytes:
        lines = [
            json.dumps(
                {
                    "status": "captured",
                    "payment_id": intent["metadata"].get("payment_id"),
                    "amount": intent["amount_received"],
                    "provider_ref": intent["id"],
                }
            )
            async for intent in self._world.intents()
            if intent["status"] == "succeeded"
        ]
        return "".join(f"{line}\n" for line in lines).encode()


async def serve(arguments: argparse.Namespace) -> None:
    import uvicorn

    account = Account(arguments.data)
    world = World(account)
    sender = None
    if arguments.webhook_url is not None:
        sender = webhook_sender.WebhookSender(world.call, url=arguments.webhook_url, secret=arguments.webhook_secret)
    server = StripeServer(world, account=account, url=f"http://127.0.0.1:{arguments.port}", sender=sender)
    config = uvicorn.Config(server, host="127.0.0.1", port=arguments.port, lifespan="on", log_level="warning")
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(sender.run()) if sender is not None else None
        await uvicorn.Server(config).serve()
        if sending is not None:
            sending.cancel()


def secret_in(path: str) -> str:
    return Path(path).read_text().strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, help="the folder that keeps the account between two runs (default: none)")
    parser.add_argument("--webhook-url", help="where to send signed webhooks (default: nowhere)")
    parser.add_argument("--webhook-secret", type=secret_in, help="the file that holds the secret to sign them with")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
