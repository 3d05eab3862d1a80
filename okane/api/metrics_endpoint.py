"""The metrics server of a process, on a port of its own.

/metrics           the metrics of this process, from memory; with `?name[]=` (repeated) those samples alone
/metrics/system    the metrics of the whole system, refreshed for the scrape; Prometheus scrapes one process for them
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

MAX_NAMES = 100  # of samples, in one request

PROCESS_PATH = "/metrics"
SYSTEM_PATH = "/metrics/system"

Refresh = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSources:
    """The registries and refresh callbacks behind the metrics server.

    A refresh never raises for a dependency that is away; `processes` raises StreamError.
    """

    process: CollectorRegistry
    system: CollectorRegistry
    refreshes: Sequence[Refresh]
    processes: Callable[[], Awaitable[Sequence[PresentProcess]]]
    name: str  # of the whole system


def build_metrics_app(sources: MetricsSources) -> web.Application:
    """Build the application that serves them."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client ships it untyped; a `_created` series for each counter holds no news
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
    """Return target groups for Prometheus. A dead process stays among them for a while: its `up` of 0 fires the alert.

    The whole system is scraped from the first process that lives, under an `instance` that does not change with it.
    """
    groups = [_group(one, PROCESS_PATH, role=one.role) for one in processes]
    first = next((one for one in processes if one.alive), None)
    return groups if first is None else [*groups, _group(first, SYSTEM_PATH, role="system", instance=system)]


def _group(one: PresentProcess, path: str, **labels: str) -> dict[str, Any]:
    return {"targets": [one.address], "labels": {"__metrics_path__": path, "process": one.name, **labels}}


def _exposed(registry: CollectorRegistry, request: web.Request) -> web.Response:
    """Return the metrics in the format that the client accepts: OpenMetrics, which has exemplars, or plain text.

    A few names are a twentieth of the work of all: the console reads them every second.
    """
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    names = request.query.getall("name[]", [])[:MAX_NAMES]
    chosen = registry.restricted_registry(names) if names else registry
    return web.Response(body=encode(chosen), headers={"Content-Type": content_type})


class _Fresh:
    """Runs the refresh callbacks, once for all scrapes at the same time."""

    def __init__(self, refreshes: Sequence[Refresh]) -> None:
        self._refreshes = refreshes
        self._running: dict[Refresh, asyncio.Future[None]] = {}

    async def wait(self) -> None:
        """Return when every refresh is done, or after a time-out: a slow one goes on and serves a later scrape. To cancel it
        would mean to wait for it."""
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
