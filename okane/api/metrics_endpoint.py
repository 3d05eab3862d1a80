"""What one process tells Prometheus, on a port of its own: itself, the whole system, and where the others are.

/metrics           this process, from memory: costs nobody else anything
/metrics/system    what describes the whole system, read anew; one process is asked for it, whichever
/http_sd           every process and that one, for Prometheus' http_sd_configs
/healthz           for a liveness probe
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from okane.redis.presence import PresentProcess
from streams import StreamError

REFRESH_TIMEOUT_S = 3.0  # a scraper gives up after ten

PROCESS_PATH = "/metrics"
SYSTEM_PATH = "/metrics/system"

Refresh = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSources:
    """What there is to tell. A refresh never raises for a dependency that is away; `processes` raises StreamError."""

    process: CollectorRegistry
    system: CollectorRegistry
    refreshes: Sequence[Refresh]
    processes: Callable[[], Awaitable[Sequence[PresentProcess]]]
    name: str  # of the whole system


def build_metrics_app(sources: MetricsSources) -> web.Application:
    """The application that tells it."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more a counter, and nothing new in it
    fresh = _Fresh(sources.refreshes)

    async def process(request: web.Request) -> web.Response:
        return _exposed(sources.process, request)

    async def system(request: web.Request) -> web.Response:
        await fresh.wait()
        return _exposed(sources.system, request)

    async def http_sd(_request: web.Request) -> web.Response:
        try:
            processes = await sources.processes()
        except StreamError as error:  # Prometheus keeps the targets it has
            return web.json_response({"error": str(error)}, status=HTTPStatus.SERVICE_UNAVAILABLE)
        return web.json_response(targets(processes, system=sources.name))

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(body=b'{"status":"ok"}', content_type="application/json")

    async def finish(_app: web.Application) -> None:
        await fresh.aclose()

    app = web.Application()
    app.router.add_get(PROCESS_PATH, process)
    app.router.add_get(SYSTEM_PATH, system)
    app.router.add_get("/http_sd", http_sd)
    app.router.add_get("/healthz", healthz)
    app.on_cleanup.append(finish)
    return app


def targets(processes: Sequence[PresentProcess], *, system: str) -> list[dict[str, Any]]:
    """Target groups for Prometheus. One that died stays among them for a while: its `up` is 0, which is how it is missed.

    The whole system is asked of the first that lives, under an address that does not change when another takes its place.
    """
    groups = [_group(one, PROCESS_PATH, role=one.role) for one in processes]
    first = next((one for one in processes if one.alive), None)
    return groups if first is None else [*groups, _group(first, SYSTEM_PATH, role="system", instance=system)]


def _group(one: PresentProcess, path: str, **labels: str) -> dict[str, Any]:
    return {"targets": [one.address], "labels": {"__metrics_path__": path, "process": one.name, **labels}}


def _exposed(registry: CollectorRegistry, request: web.Request) -> web.Response:
    """In the format that the client takes: OpenMetrics, which has exemplars, or the plain text."""
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return web.Response(body=encode(registry), headers={"Content-Type": content_type})


class _Fresh:
    """Reads anew what is asked for, once for all who ask at the same time."""

    def __init__(self, refreshes: Sequence[Refresh]) -> None:
        self._refreshes = refreshes
        self._running: dict[Refresh, asyncio.Future[None]] = {}

    async def wait(self) -> None:
        """Return when everything has been read, or after a while: one that takes too long goes on, and serves a later
        scrape. To cancel it would be to wait for it, too."""
        for refresh in self._refreshes:
            if refresh not in self._running or self._running[refresh].done():
                self._running[refresh] = asyncio.ensure_future(refresh())
        await asyncio.wait(self._running.values(), timeout=REFRESH_TIMEOUT_S)
        for one in self._running.values():
            if one.done():
                one.result()

    async def aclose(self) -> None:
        for one in self._running.values():
            one.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
