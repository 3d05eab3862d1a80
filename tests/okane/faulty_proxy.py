"""A proxy before the API on which answers go wrong or are lost, and a client behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from okane.client import (
    Client,
)
from streams import RetryPolicy
from tests.okane.served_api import Api

SOON = RetryPolicy(base=timedelta(milliseconds=1), cap=timedelta(milliseconds=5), max_attempts=None)


@pytest.fixture
async def client(api: Api) -> AsyncIterator[Client]:
    async with Client(api.url) as one:
        yield one


@dataclass(slots=True)
class Way:
    """A way to the API on which things go wrong, in this order; then they go well. None: the answer is lost."""

    url: str
    wrong: list[tuple[int, dict[str, Any], dict[str, str]] | None] = field(default_factory=list)
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)

    async def go(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.asked.append((request.method, request.path_qs, body))
        wrong = self.wrong.pop(0) if self.wrong else (0, {}, {})
        if wrong is not None and wrong[0]:
            status, document, headers = wrong
            return web.json_response(document, status=status, headers=headers)
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, self.url + request.path_qs, data=body, headers=request.headers) as answer,
        ):
            said = await answer.read()
        if wrong is None:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(body=said, status=answer.status, content_type="application/json")


@pytest.fixture
async def way(api: Api) -> AsyncIterator[tuple[Way, Client]]:
    one = Way(api.url)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", one.go)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with Client(f"http://{host}:{port}", retries=SOON) as client:
        yield one, client
    await runner.cleanup()
