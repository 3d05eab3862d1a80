"""The owners of webhook endpoints in torture: what they create, and what they cannot know."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from okane.store.webhook_endpoints import WebhookEndpointStore
from tests.okane.webhook_rows import created, fetch, log_event
from torture.history.webhooks import read_late
from torture.subscribers import Subscribers
from torture.system.cluster import Cluster

RECEIVER = "http://127.0.0.1:1"


class ForgetfulApi:
    """Creates an endpoint for every POST; the answers to the first ones are lost."""

    def __init__(self, *, lost: int) -> None:
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.deleted: list[str] = []
        self._lost = lost

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/webhook-endpoints", self.create)
        app.router.add_get("/v1/webhook-endpoints", self.list)
        app.router.add_delete("/v1/webhook-endpoints/{id}", self.delete)
        return app

    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        endpoint = {"id": f"e{len(self.endpoints) + 1}", "url": body["url"], "status": "enabled"}
        self.endpoints[endpoint["id"]] = endpoint
        if len(self.endpoints) <= self._lost:
            return web.json_response({"code": "store_unavailable"}, status=503)
        return web.json_response({"endpoint": endpoint, "secret": "whsec_1"}, status=201)

    async def list(self, _request: web.Request) -> web.Response:
        alive = [one for id_, one in self.endpoints.items() if id_ not in self.deleted]
        return web.json_response({"endpoints": alive})

    async def delete(self, request: web.Request) -> web.Response:
        self.deleted.append(request.match_info["id"])
        return web.Response(status=204)


async def test_each_try_of_a_creation_has_a_url_of_its_own() -> None:
    """Two endpoints of one URL would be two requests at once to one path, which I14 takes for a fault of the product."""
    api = ForgetfulApi(lost=2)
    async with TestServer(api.app()) as server, aiohttp.ClientSession() as http:
        cluster = SimpleNamespace(
            api_urls=[str(server.make_url("")).rstrip("/")], factory=SimpleNamespace(receiver_url=RECEIVER)
        )
        subscribers = Subscribers(cast(Cluster, cluster), seed=1)
        await subscribers.create(http, "churned")
    urls = [one["url"] for one in api.endpoints.values()]
    assert len(urls) == len(set(urls)) == 3
    [known] = subscribers.endpoints
    assert (known.id, f"{RECEIVER}{known.path}") == ("e3", urls[2])
    assert api.deleted == ["e1", "e2"]


async def test_only_failed_deliveries_that_wait_for_long_are_late(database_url: str) -> None:
    """One that is due soon may be delivered before it is asked for, and would be sent again for no reason."""
    store = WebhookEndpointStore(database_url)
    endpoint = await created(store)
    await store.aclose()
    payment_id = uuid4()
    for version, (attempts, state, wait) in enumerate(
        ((3, "waiting", "1 min"), (3, "waiting", "1 s"), (0, "waiting", "1 min"), (3, "delivered", None)), 2
    ):
        await fetch(
            database_url,
            """INSERT INTO webhook_deliveries (endpoint_id, position, state, attempts, at, next_at)
            VALUES (%s, %s, %s, %s, now(), now() + %s::interval)""",
            endpoint.id,
            await log_event(database_url, payment_id=payment_id, version=version),
            state,
            attempts,
            wait,
        )
    assert await read_late(database_url) == [(f"evt_{payment_id.hex}_2", str(endpoint.id))]
