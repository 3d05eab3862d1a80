"""The console process: open its resources, serve pages until a signal, close them in reverse order."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import structlog

from okane import binding
from okane.api.http.connection_limits import ConnectionLimits
from okane.api.http.server import serving
from okane.app import process
from okane.app.metrics_server import serving_metrics
from okane.app.resources import Resources, needed
from okane.app.start_checks import check_servers
from okane.config import Settings
from okane.console.app import build_console, refused
from okane.console.services import open_services
from okane.errors import SetupError
from okane.origin_guard import is_loopback

REDIS_TIMEOUT = timedelta(seconds=2)  # for the list of processes and scrapes

log = structlog.get_logger("okane.app")


async def run_console(settings: Settings) -> None:
    """Serve the console until SIGTERM or SIGINT, then let the requests in hand finish."""
    stop = process.stop_on_signals()
    process.arm_failpoints(settings)
    check_binding(settings)
    async with contextlib.AsyncExitStack() as closing:
        resources = await Resources.build(
            settings, role="console", name="console", redis_timeout=REDIS_TIMEOUT, closing=closing
        )
        await check_servers(settings, resources, consumes=False, inspects=True)
        services = await closing.enter_async_context(
            open_services(
                settings,
                database_url=needed(settings.database_url, "DATABASE_URL"),
                redis_url=needed(settings.redis, "REDIS_URL"),
                stream=resources.stream,
            )
        )
        app = build_console(services)
        metrics_url = await closing.enter_async_context(
            serving_metrics(settings, resources, role="console", name="console")
        )
        url = await closing.enter_async_context(
            serving(
                app,
                settings.console_host,
                settings.console_port,
                limits=ConnectionLimits.of(settings),
                drain=settings.drain,
                refusal_text=refused(app),
            )
        )
        process.tune_gc()
        log.info(
            "console_started",
            url=f"{url}{settings.console_base}/",
            metrics=metrics_url,
            auth=settings.auth,
            read_only=settings.console_read_only,
        )
        await stop.wait()
        log.info("console_stopping")
    log.info("console_stopped")


def check_binding(settings: Settings) -> None:
    """Raise SetupError for a console without authentication that other machines could reach."""
    if settings.auth == "none" and not all(map(is_loopback, binding.hosts(settings.console_host))):
        raise SetupError(
            "OKANE_AUTH=none needs OKANE_CONSOLE_HOST on loopback: use keys, or bind 127.0.0.1 "
            "(the console has no log-in then)"
        )
