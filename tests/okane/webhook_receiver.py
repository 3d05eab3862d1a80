"""A receiver of webhooks for tests: it verifies each request with the standard's own library and keeps a journal."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook


@dataclass(frozen=True)
class Received:
    """One request: its id, the payment and version in its body, and the bytes."""

    id: str
    path: str
    payment: str
    version: int
    body: bytes
    type: str
    at_s: float = field(default_factory=time.monotonic, compare=False)


Answers = Callable[[Received], Awaitable[web.StreamResponse] | web.StreamResponse]


@dataclass
class Receiver:
    """The journal, and the way in which requests are answered: by a status, or by a function. `secrets` by path."""

    url: str
    answers: int | Answers = 200
    secrets: dict[str, str] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    in_flight: dict[tuple[str, str], int] = field(default_factory=dict)
    most_in_flight: dict[str, int] = field(default_factory=dict)  # by path
    overlaps: list[Received] = field(default_factory=list)  # two requests of one payment at once
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        if request.path in self.secrets:
            Webhook(self.secrets[request.path]).verify(content, dict(request.headers))
        document = json.loads(content)
        subject: dict[str, Any] = document["data"].get("payment") or document["data"]["endpoint"]
        one = Received(
            request.headers["webhook-id"],
            request.path,
            subject["id"],
            subject["version"],
            content,
            document["type"],
        )
        key = (one.path, one.payment)
        self.received.append(one)
        self.in_flight[key] = self.in_flight.get(key, 0) + 1
        if self.in_flight[key] > 1:
            self.overlaps.append(one)
        at_once = sum(count for (path, _), count in self.in_flight.items() if path == one.path)
        self.most_in_flight[one.path] = max(at_once, self.most_in_flight.get(one.path, 0))
        self.came.set()
        try:
            return await self._answer(one)
        finally:
            self.in_flight[key] -= 1

    async def _answer(self, one: Received) -> web.StreamResponse:
        if isinstance(self.answers, int):
            return web.Response(status=self.answers)
        answer = self.answers(one)
        return answer if isinstance(answer, web.StreamResponse) else await answer

    async def until(self, count: int, *, within_s: float = 60.0) -> list[Received]:
        """Wait until so many requests have come; return all of them."""
        async with asyncio.timeout(within_s):
            while len(self.received) < count:
                self.came.clear()
                await self.came.wait()
        return self.received

    async def until_ids(self, count: int, *, within_s: float = 60.0) -> list[str]:
        """Wait until requests with so many different ids have come; return the ids in the order of their first requests."""
        async with asyncio.timeout(within_s):
            while len(ids := list(dict.fromkeys(one.id for one in self.received))) < count:
                self.came.clear()
                await self.came.wait()
        return ids

    def versions(self, path: str = "/hook") -> dict[str, list[int]]:
        """Return the versions by payment in the order in which they came first."""
        found: dict[str, list[int]] = {}
        for one in self.received:
            versions = found.setdefault(one.payment, [])
            if one.path == path and one.version not in versions:
                versions.append(one.version)
        return found


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Run a receiver on a loopback port."""
    receiver = Receiver("")
    app = web.Application()
    app.router.add_post("/{tail:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()  # a port that is free now may be taken a moment later
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield receiver
    await runner.cleanup()
