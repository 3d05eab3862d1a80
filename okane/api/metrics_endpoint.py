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
    scraping = asyncio.Lock()

    async def metrics(_request: web.Request) -> web.Response:
        async with scraping:  # two scrapers share nothing but the gauges
            await asyncio.gather(*(_bounded(refresh) for refresh in refreshes))
            body = generate_latest(registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(body=b'{"status":"ok"}', content_type="application/json")

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    return app


async def _bounded(refresh: Refresh) -> None:
    try:
        await asyncio.wait_for(refresh(), REFRESH_TIMEOUT_S)
    except TimeoutError:
        return
