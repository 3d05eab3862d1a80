"""Webhooks on a dashboard: a receiver in the test's process, two dispatchers, and the faults that happen to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from tests.flow.system import MASTER, System
from tests.grafana.prometheus import Prometheus, until

SETTINGS = {"OKANE_WEBHOOK_MASTER": MASTER, "OKANE_WEBHOOK_ALLOW": "127.0.0.0/8"}


@asynccontextmanager
async def receiving() -> AsyncIterator[str]:
    """Serve /well, which answers 204, and /ill, which answers 500, inside the block; yield the address."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=204 if request.path == "/well" else 500)

    app = web.Application()
    app.router.add_post("/{path}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def deliver(system: System, prometheus: Prometheus, receiver: str) -> None:
    """Start two dispatchers, and register an endpoint that takes everything and one that fails."""
    await system.start_dispatcher("d1")
    await system.start_dispatcher("d2")

    async def scraped() -> bool:
        """Both are scraped: a rate does not see what a counter has counted before"""
        return await prometheus.now('count(okane_webhook_repeats_total{why="retry"})') == [2]

    await until(scraped)
    async with aiohttp.ClientSession() as http:
        for path in ("well", "ill"):
            body = {"url": f"{receiver}/{path}", "types": ["payment.*"]}
            async with http.post(f"{system.url}/v1/webhook-endpoints", json=body) as response:
                assert response.status == 201, await response.text()

    async def shared() -> bool:
        """Each dispatcher has leased an endpoint, and one of them fails, also when its events are sent again"""
        leased = await prometheus.now("sum by (process) (okane_webhook_queues)")
        failed = await prometheus.now('sum(okane_webhook_requests_total{outcome="status_5xx"})')
        retried = await prometheus.now('sum(okane_webhook_repeats_total{why="retry"})')
        return leased == [1, 1] and failed > [0] and retried > [0]

    await until(shared)


async def kill_a_dispatcher(system: System) -> None:
    """Kill it with requests in hand; the other one takes its endpoint over when the lease has expired."""
    await system.kill("d1")


async def leave_endpoints_alone(system: System, prometheus: Prometheus) -> None:
    """Wait until the endpoint of the dead dispatcher was taken over, then stop the other one."""

    async def taken_over() -> bool:
        """The other dispatcher has both endpoints, and repeats"""
        leased = await prometheus.now('sum(okane_webhook_queues{process="d2"})')
        return leased == [2] and await prometheus.now("sum(okane_webhook_takeovers_total)") > [0]

    await until(taken_over)
    await system.stop("d2")

    async def unowned() -> bool:
        """Endpoints have no dispatcher, and their events wait"""
        waiting = await prometheus.now("sum(okane_webhook_backlog_events)")
        return await prometheus.now("okane_webhook_unowned_endpoints") == [2] and waiting > [0]

    await until(unowned)
