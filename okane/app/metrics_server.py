"""The metrics server of a process, and its entry in the list from which Prometheus finds it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlsplit

from aiohttp import web

from okane import binding
from okane.api.http.connection_limits import ConnectionLimits
from okane.api.http.server import serving
from okane.api.metrics_endpoint import PROCESS_PATH, MetricsSources, build_metrics_app
from okane.app.resources import Resources
from okane.config import Settings
from okane.errors import SetupError
from okane.origin_guard import is_loopback

FIRST_METRICS_PORT = 9101
METRICS_CONNECTIONS = 100  # a scraper or two, and probes
METRICS_PORTS = 100  # processes on one machine that find a port by themselves


@contextlib.asynccontextmanager
async def serving_metrics(settings: Settings, resources: Resources, *, role: str, name: str) -> AsyncIterator[str]:
    """Serve the metrics inside the block and advertise their address; yield the URL."""
    sources = MetricsSources(
        process=resources.metrics.registry,
        system=resources.system.registry,
        refreshes=(resources.refresh_redis, resources.refresh_postgres),
        processes=resources.presence.processes,
        name=resources.stream.name,
    )
    async with contextlib.AsyncExitStack() as closing:
        url = await _listening_for_metrics(settings, build_metrics_app(sources), closing)
        stop = asyncio.Event()
        address = advertised(settings, url)
        present = asyncio.create_task(resources.presence.run(address, stop, role=role, name=name))
        try:
            yield f"{url}{PROCESS_PATH}"
        finally:
            stop.set()
            await present


async def _listening_for_metrics(settings: Settings, app: web.Application, closing: contextlib.AsyncExitStack) -> str:
    """Listen on the configured port, or on the first free one from 9101 up; return the URL."""
    limits = replace(ConnectionLimits.of(settings), connections=METRICS_CONNECTIONS)
    first = settings.metrics_port or FIRST_METRICS_PORT
    last = settings.metrics_port or FIRST_METRICS_PORT + METRICS_PORTS - 1
    for port in range(first, last + 1):
        try:
            return await closing.enter_async_context(
                serving(app, settings.metrics_host, port, limits=limits, drain=timedelta(0))
            )
        except SetupError as error:
            if port == settings.metrics_port:
                raise
            if not (isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE):
                raise SetupError(f"OKANE_METRICS_HOST: {error}") from error  # as it would be on every port
    raise SetupError(f"no free port for metrics from {FIRST_METRICS_PORT} on: set OKANE_METRICS_PORT")


def advertised(settings: Settings, url: str) -> str:
    """Return `host:port` under which other machines reach the server at `url`.

    A process that listens on every address is found under its machine's name, unless OKANE_METRICS_ADVERTISE names another:
    the name of a pod, for example, does not resolve in other pods.
    """
    bound = urlsplit(url)
    hosts = binding.hosts(settings.metrics_host)
    if settings.metrics_advertise is not None:
        host = settings.metrics_advertise
    elif binding.EVERY_ADDRESS.isdisjoint(hosts):
        host = next((one for one in hosts if not is_loopback(one)), bound.hostname or "")
    else:
        host = socket.gethostname()
    return binding.netloc(host, bound.port or 0)
