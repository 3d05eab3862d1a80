"""The dispatcher process: open its resources, deliver events until a signal, close them in reverse order."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from uuid import uuid4

import structlog

from okane import open_files
from okane.app import process
from okane.app.metrics_server import serving_metrics
from okane.app.resources import Resources, needed
from okane.app.start_checks import check_postgres
from okane.config import Settings
from okane.errors import SetupError
from okane.http.guard import Guard
from okane.store.webhook_endpoints import WebhookEndpointStore
from okane.store.webhook_events import WebhookEventStore
from okane.store.webhook_queues import WebhookQueueStore
from okane.webhooks.dispatcher import Dispatcher, DispatcherOptions
from okane.webhooks.housekeeping import Housekeeping
from okane.webhooks.keys import SETTING, Masters, load_masters
from okane.webhooks.metrics import DispatcherMetrics

log = structlog.get_logger("okane.app")

# One for each of ten thousand queues, those that they share, and those that are kept. Without a file for its connection a
# request would fail, at the cost of an endpoint that is well.
CONNECTIONS = 12_000
REDIS_TIMEOUT = timedelta(seconds=2)  # for the list of processes and scrapes; deliveries need Postgres only


async def run_dispatcher(settings: Settings, *, name: str) -> None:
    """Deliver events to endpoints until SIGTERM or SIGINT, then finish the requests in flight."""
    stop = process.stop_on_signals()
    process.arm_failpoints(settings)
    masters = _masters(settings)
    open_files.room_for(CONNECTIONS)
    database_url = needed(settings.database_url, "DATABASE_URL")
    async with contextlib.AsyncExitStack() as closing:
        resources = await Resources.build(
            settings, role="dispatcher", name=name, redis_timeout=REDIS_TIMEOUT, closing=closing
        )
        await check_postgres(settings)
        metrics = DispatcherMetrics(resources.metrics.registry)
        events = WebhookEventStore(database_url)
        endpoints = WebhookEndpointStore(database_url)
        # A name of its own for each start: the leases of a process that died are not those of the next one.
        store = WebhookQueueStore(database_url, owner=f"{name} {uuid4().hex[:8]}")
        for one in (events, endpoints, store):
            closing.push_async_callback(one.aclose)
        housekeeping = Housekeeping(
            events=events,
            endpoints=endpoints,
            metrics=metrics,
            keep=settings.webhook_keep,
            max_bytes=settings.webhook_max_bytes,
        )
        dispatcher = Dispatcher(
            DispatcherOptions(drain=settings.drain),
            events=events,
            store=store,
            guard=guard_of(settings),
            masters=masters,
            metrics=resources.metrics,
            own_metrics=metrics,
            duties=(housekeeping,),
        )
        metrics_url = await closing.enter_async_context(
            serving_metrics(settings, resources, role="dispatcher", name=name)
        )
        process.tune_gc()
        log.info("dispatcher_started", metrics=metrics_url)
        await dispatcher.run(stop)
    log.info("dispatcher_stopped")


def guard_of(settings: Settings) -> Guard:
    """Return the guard of connections to endpoints."""
    return Guard(allow=settings.webhook_allow or (), deny_ports=settings.webhook_deny_ports or ())


def _masters(settings: Settings) -> Masters:
    masters = load_masters(settings.webhook_master)
    if masters is None:
        raise SetupError(f"{SETTING} is not set: requests to endpoints cannot be signed without it")
    return masters
