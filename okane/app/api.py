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
from okane.api.http.fast_path import FastPath
from okane.api.http.server import ConnectionLimits, ConnectionMetrics, serving
from okane.api.long_polling import LongPolling
from okane.api.payment_handlers import PaymentHandlers
from okane.api.payment_queries import PaymentQueries
from okane.api.rate_limit import RateLimits
from okane.api.request_tracing import TracedFastPath
from okane.api.routes import Handlers, build_api
from okane.app import process
from okane.app.metrics_server import serving_metrics
from okane.app.resources import Parts, needed
from okane.app.start_checks import check_servers
from okane.config import Settings
from okane.intake.accept import Accept
from okane.intake.pressure import Pressure
from okane.intake.replay import Replay
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
        parts = await Parts.build(settings, role="api", name="api", redis_timeout=API_REDIS_TIMEOUT, closing=closing)
        await check_servers(settings, parts, consumes=False)
        pressure = await closing.enter_async_context(_pressure(settings, parts))
        accept = Accept(
            store=parts.store,
            row_writer=parts.tracing.row_writer(parts.store),
            producer=parts.publisher,
            pressure=pressure,
        )
        routes = _routes(settings, parts, accept, closing, leaving)
        metrics_url = await closing.enter_async_context(serving_metrics(settings, parts, role="api", name="api"))
        access = await closing.enter_async_context(_access(settings, parts))
        app = build_api(routes, parts.metrics, access, guard=guard, tracer=parts.tracing.requests)
        served = serving(
            app,
            settings.host,
            settings.port,
            limits=ConnectionLimits.of(settings),
            drain=settings.drain,
            metrics=ConnectionMetrics(parts.metrics.registry),
            fast_path=_fast_path(routes.handlers, parts, access, guard) if settings.fast_lane else None,
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


def _routes(
    settings: Settings, parts: Parts, accept: Accept, closing: contextlib.AsyncExitStack, leaving: asyncio.Event
) -> Handlers:
    """Who answers requests, each with the connections of its own: a long list keeps no payment waiting."""
    url = needed(settings.database_url, "DATABASE_URL")
    watch, lists, dead = PaymentWatch(url), PaymentLists(url), DeadLetterStore(url)
    for one in (watch, lists, dead):
        closing.push_async_callback(one.aclose)
    return Handlers(
        PaymentHandlers(
            settings=settings,
            store=parts.store,
            accept=accept,
            waiting=LongPolling(watch=watch),
            metrics=parts.metrics,
            leaving=leaving,
        ),
        PaymentQueries(store=parts.store, lists=lists),
        DeadLetterHandlers(dead=dead, replay=Replay(accept=accept, notes=DeadLetters(parts.redis, parts.stream))),
    )


def _fast_path(handlers: PaymentHandlers, parts: Parts, access: Access, guard: OriginGuard | None) -> FastPath:
    tracer = parts.tracing.requests
    if tracer is None:
        return FastPath(handlers.creation, parts.metrics, access, guard)
    return TracedFastPath(handlers.creation, parts.metrics, access, tracer, guard)


@contextlib.asynccontextmanager
async def _access(settings: Settings, parts: Parts) -> AsyncIterator[Access]:
    """Who is let in, and how often, inside the block."""
    async with contextlib.AsyncExitStack() as closing:
        buckets = TokenBuckets(parts.redis, parts.stream)
        closing.push_async_callback(buckets.aclose)
        limits = RateLimits(buckets, parts.presence.processes)
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
async def _pressure(settings: Settings, parts: Parts) -> AsyncIterator[Pressure | None]:
    """What says when nothing new is to be taken, inside the block; None if that is never so."""
    if settings.max_due_age is None:
        yield None
        return
    pressure = Pressure(parts.overview, max_due_age=settings.max_due_age)
    async with process.running(pressure.run):
        yield pressure
