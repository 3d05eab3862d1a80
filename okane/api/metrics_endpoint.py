"""`/metrics` of one process, on a port of its own. What describes the whole system is read anew at each scrape."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

REFRESH_TIMEOUT_S = 3.0  # a scraper gives up after ten

Refresh = Callable[[], Awaitable[None]]


def build_metrics_app(registry: CollectorRegistry, refreshes: Sequence[Refresh]) -> web.Application:
    """`GET /metrics`, and `GET /healthz` for a liveness probe. A refresh never raises for a dependency that is away."""
    running: dict[Refresh, asyncio.Future[None]] = {}

    async def metrics(_request: web.Request) -> web.Response:
        for refresh in refreshes:
            if refresh not in running or running[refresh].done():
                running[refresh] = asyncio.ensure_future(refresh())
        # One that takes too long goes on, and serves a later scrape: to cancel it would be to wait for it, too.
        await asyncio.wait(running.values(), timeout=REFRESH_TIMEOUT_S)
        for one in running.values():
            if one.done():
                one.result()
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(body=b'{"status":"ok"}', content_type="application/json")

    async def finish(_app: web.Application) -> None:
        for one in running.values():
            one.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    app.on_cleanup.append(finish)
    return app
