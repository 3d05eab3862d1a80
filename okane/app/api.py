"""The API process: opens what it is made of, serves until a signal, and closes in reverse order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from datetime import timedelta

import structlog

from okane.api.access import Access, AnonymousAccess, KeyAccess
from okane.api.dead_letters import DeadLetterHandlers
from okane.api.health import HealthHandlers
from okane.api.http.connection_limits import ConnectionLimits, ConnectionMetrics
from okane.api.http.fast_path import FastPath
from okane.api.http.server import serving
from okane.api.long_polling import LongPolling
from okane.api.payment_handlers import PaymentHandlers
from okane.api.payment_queries import PaymentQueries
from okane.api.rate_limit import RateLimits
from okane.api.routes import Handlers, build_api
from okane.app import process
from okane.app.metrics_server import serving_metrics
from okane.app.resources import Resources, needed
from okane.app.start_checks import check_servers
from okane.config import Settings
from okane.intake.accept import PaymentIntake
from okane.intake.dead_letter_replay import DeadLetterReplay
from okane.intake.load_shedding import LoadShedding
from okane.origin_guard import OriginGuard
from okane.redis.buckets import TokenBuckets
from okane.store import ApiKeyStore, DeadLetterStore, PaymentLists, PaymentWatch
from streams import (
    DeadLetters,
)

log = structlog.get_logger("okane.app")

# A client waits for the API's XADD; what Redis does not take in this time, the sweep sends.
API_REDIS_TIMEOUT = timedelta(seconds=1)


async def run_api(settings: Settings) -> None:
    """Serve the API until SIGTERM or SIGINT, then let the requests in hand finish."""
    stop, leaving = process.stop_on_signals(), asyncio.Event()
    guard = OriginGuard(settings.allowed_hosts or frozenset()) if settings.auth == "none" else None
    process.arm_failpoints(settings)
    async with contextlib.AsyncExitStack() as closing:
        resources = await Resources.build(
            settings, role="api", name="api", redis_timeout=API_REDIS_TIMEOUT, closing=closing
        )
        await check_servers(settings, resources, consumes=False)
        load_shedding = await closing.enter_async_context(_running_load_shedding(settings, resources))
        intake = PaymentIntake(
            store=resources.store,
            row_writer=resources.tracing.row_writer(resources.store),
            producer=resources.publisher,
            load_shedding=load_shedding,
        )
        handlers = _handlers(settings, resources, intake, closing, leaving)
        metrics_url = await closing.enter_async_context(serving_metrics(settings, resources, role="api", name="api"))
        access = await closing.enter_async_context(_access(settings, resources))
        app = build_api(handlers, resources.metrics, access, guard=guard, tracer=resources.tracing.requests)
        fast_path = FastPath(
            handlers.payments.creation, resources.metrics, access, guard=guard, tracer=resources.tracing.requests
        )
        served = serving(
            app,
            settings.host,
            settings.port,
            limits=ConnectionLimits.of(settings),
            drain=settings.drain,
            metrics=ConnectionMetrics(resources.metrics.registry),
            fast_path=fast_path if settings.fast_lane else None,
            share_port=settings.share_port,
            leaving=leaving,
        )
        url = await closing.enter_async_context(served)
        process.tune_gc()
        log.info("api_started", url=url, metrics=metrics_url, auth=settings.auth)
        await stop.wait()
        if settings.lame_duck and stop.number is signal.SIGTERM:  # at a terminal (SIGINT) a person waits
            leaving.set()
            log.info("api_leaving", lame_duck_s=settings.lame_duck.total_seconds())
            await asyncio.sleep(settings.lame_duck.total_seconds())
        log.info("api_stopping")
    log.info("api_stopped")


def _handlers(
    settings: Settings,
    resources: Resources,
    intake: PaymentIntake,
    closing: contextlib.AsyncExitStack,
    leaving: asyncio.Event,
) -> Handlers:
    """Build the handlers, each with connections of its own: a long list must not delay payments."""
    url = needed(settings.database_url, "DATABASE_URL")
    watch, lists, dead = PaymentWatch(url), PaymentLists(url), DeadLetterStore(url)
    for one in (watch, lists, dead):
        closing.push_async_callback(one.aclose)
    return Handlers(
        PaymentHandlers(
            settings=settings,
            store=resources.store,
            intake=intake,
            long_polling=LongPolling(watch=watch),
            metrics=resources.metrics,
        ),
        PaymentQueries(store=resources.store, lists=lists),
        DeadLetterHandlers(
            dead=dead, replay=DeadLetterReplay(intake=intake, notes=DeadLetters(resources.redis, resources.stream))
        ),
        HealthHandlers(store=resources.store, leaving=leaving),
    )


@contextlib.asynccontextmanager
async def _access(settings: Settings, resources: Resources) -> AsyncIterator[Access]:
    """Who is let in, and how often, inside the block."""
    async with contextlib.AsyncExitStack() as closing:
        buckets = TokenBuckets(resources.redis, resources.stream)
        closing.push_async_callback(buckets.aclose)
        limits = RateLimits(buckets, resources.presence.processes)
        await closing.enter_async_context(process.running(limits.run))
        if settings.auth == "none":
            yield AnonymousAccess(limits, rate=settings.rate_limit)
            return
        store = ApiKeyStore(needed(settings.database_url, "DATABASE_URL"))
        closing.push_async_callback(store.aclose)
        access = KeyAccess(store, limits, mode=settings.mode, rate=settings.rate_limit)
        await closing.enter_async_context(process.running(access.run))
        yield access


@contextlib.asynccontextmanager
async def _running_load_shedding(settings: Settings, resources: Resources) -> AsyncIterator[LoadShedding | None]:
    """What says when nothing new is to be taken, inside the block; None if that is never so."""
    if settings.max_due_age is None:
        yield None
        return
    load_shedding = LoadShedding(resources.overview, max_due_age=settings.max_due_age)
    async with process.running(load_shedding.run):
        yield load_shedding
