"""The composition root: the only place that builds and closes things. One function a process: `run_api`, `run_worker`.

Neither needs its dependencies to be there when it starts, nor all the time: what is away is waited for, and said once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from typing import Any

import structlog

from okane.api.access import Access, Everybody, KeyHolders
from okane.api.dead_letters import DeadLetterRoutes
from okane.api.fast_lane import FastLane
from okane.api.handlers import Handlers
from okane.api.rate_limit import RateLimits
from okane.api.reading import Reading
from okane.api.routes import Routes, build_api
from okane.api.serving import ConnectionMetrics, Limits, serving
from okane.api.tracing import TracedLane
from okane.api.waiting import Waiting
from okane.config import Settings
from okane.errors import SetupError
from okane.metrics_server import serving_metrics
from okane.origin_guard import OriginGuard
from okane.parts import Parts, needed
from okane.pipeline.accept import Accept
from okane.pipeline.charge import Charge
from okane.pipeline.direct import Direct
from okane.pipeline.lease import Leases
from okane.pipeline.pressure import Pressure
from okane.pipeline.replay import Replay
from okane.pipeline.sweep import Sweep
from okane.pipeline.verdict import Rules
from okane.providers.http import HttpProvider
from okane.providers.simulator import app as simulator
from okane.providers.simulator.journal import JournalError
from okane.providers.simulator.options import SimulatorOptions
from okane.start_checks import check_servers
from okane.store import ApiKeyStore, DeadLetterStore, PaymentLists, PaymentWatch
from streams import (
    Buckets,
    Consumer,
    DeadLetters,
    Delayed,
    Janitor,
    RetryPolicy,
    failpoints,
)

GARBAGE_OBJECTS = 20_000

log = structlog.get_logger("okane.app")

# A client waits for the API's XADD; what Redis does not take in this time, the sweep sends.
API_REDIS_TIMEOUT = timedelta(seconds=1)
WORKER_REDIS_TIMEOUT = timedelta(seconds=5)  # longer than a blocking read


async def run_api(settings: Settings) -> None:
    """Serve the API until SIGTERM or SIGINT, then let the requests in hand finish."""
    stop, leaving = _stop_on_signals(), asyncio.Event()
    guard = OriginGuard(settings.allowed_hosts or frozenset()) if settings.auth == "none" else None
    _arm_failpoints(settings)
    async with contextlib.AsyncExitStack() as closing:
        parts = await Parts.build(settings, role="api", name="api", redis_timeout=API_REDIS_TIMEOUT, closing=closing)
        await check_servers(settings, parts, consumes=False)
        pressure = await closing.enter_async_context(_pressure(settings, parts))
        accept = Accept(store=parts.store, producer=parts.publisher, pressure=pressure)
        routes = _routes(settings, parts, accept, closing, leaving)
        metrics_url = await closing.enter_async_context(serving_metrics(settings, parts, role="api", name="api"))
        access = await closing.enter_async_context(_access(settings, parts))
        app = build_api(routes, parts.metrics, access, guard=guard, tracer=parts.tracing.requests)
        served = serving(
            app,
            settings.host,
            settings.port,
            limits=Limits.of(settings),
            drain=settings.drain,
            metrics=ConnectionMetrics(parts.metrics.registry),
            fast_lane=_fast_lane(routes.handlers, parts, access, guard) if settings.fast_lane else None,
            share_port=settings.share_port,
            leaving=leaving,
        )
        url = await closing.enter_async_context(served)
        _let_garbage_lie()
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
) -> Routes:
    """Who answers requests, each with the connections of its own: a long list keeps no payment waiting."""
    url = needed(settings.database_url, "DATABASE_URL")
    watch, lists, dead = PaymentWatch(url), PaymentLists(url), DeadLetterStore(url)
    for one in (watch, lists, dead):
        closing.push_async_callback(one.aclose)
    return Routes(
        Handlers(
            settings=settings,
            store=parts.store,
            accept=accept,
            waiting=Waiting(watch=watch),
            metrics=parts.metrics,
            leaving=leaving,
        ),
        Reading(store=parts.store, lists=lists),
        DeadLetterRoutes(dead=dead, replay=Replay(accept=accept, notes=DeadLetters(parts.redis, parts.stream))),
    )


async def run_worker(settings: Settings, *, name: str) -> None:
    """Charge payments until SIGTERM or SIGINT, then finish those in flight."""
    stop = _stop_on_signals()
    _arm_failpoints(settings)
    drained = asyncio.Event()
    async with contextlib.AsyncExitStack() as closing:
        parts = await Parts.build(
            settings, role="worker", name=name, redis_timeout=WORKER_REDIS_TIMEOUT, closing=closing
        )
        await check_servers(settings, parts, consumes=True)
        provider = HttpProvider(
            needed(settings.provider_base_url, "PROVIDER_BASE_URL"),
            timeout=settings.provider_timeout,
            connections=2 * settings.concurrency,  # for what comes from the stream, and for what runs without it
            more_header=parts.tracing.provider_header,
        )
        closing.push_async_callback(provider.aclose)
        leases = Leases(store=parts.store, lease=settings.lease)
        policy = RetryPolicy(base=settings.retry_base, cap=settings.retry_cap, max_attempts=settings.max_retries + 1)
        rules = Rules(
            policy=policy,
            max_deliveries=settings.max_deliveries,
            consistency_lag=settings.consistency_lag,
            unknown_deadline=settings.unknown_deadline,
            look_up_delays=settings.look_up_delays,
        )
        charge = Charge(
            store=parts.store,
            provider=parts.tracing.provider(provider),
            leases=leases,
            rules=rules,
            metrics=parts.metrics,
        )
        consumer = Consumer(
            parts.redis,
            parts.stream,
            group=settings.group,
            name=name,
            handler=charge,
            on_poison=charge.poison,
            concurrency=settings.concurrency,
            lease=settings.lease,
            policy=policy,
            max_deliveries=settings.max_deliveries,
            drain=settings.drain,
            metrics=parts.stream_metrics,
            tracer=parts.tracing.messages,
        )
        direct = Direct(parts.tracing.handler(charge), concurrency=settings.concurrency, metrics=parts.metrics)
        delayed = Delayed(parts.redis, parts.stream, metrics=parts.stream_metrics)
        sweep = Sweep(
            store=parts.sweep_store,
            producer=parts.publisher,
            direct=direct,
            lanes=parts.lanes,
            interval=settings.sweep_interval,
            metrics=parts.metrics,
            unable_for=lambda: max(consumer.unable_for, delayed.unable_for),
            patience=settings.redis_patience,
        )
        janitor = Janitor(parts.redis, parts.stream, group=settings.group)
        metrics_url = await closing.enter_async_context(serving_metrics(settings, parts, role="worker", name=name))
        _let_garbage_lie()
        log.info("worker_started", concurrency=settings.concurrency, provider=provider.name, metrics=metrics_url)
        async with asyncio.TaskGroup() as running:
            running.create_task(leases.run(drained))
            for duty in (delayed, sweep, janitor):
                running.create_task(duty.run(stop))
            consuming = running.create_task(consumer.run(stop))
            await stop.wait()
            await direct.drain(settings.drain)
            await consuming
            log.info("worker_drained")
            drained.set()
    log.info("worker_stopped")


def _fast_lane(handlers: Handlers, parts: Parts, access: Access, guard: OriginGuard | None) -> FastLane:
    tracer = parts.tracing.requests
    if tracer is None:
        return FastLane(handlers.creating, parts.metrics, access, guard)
    return TracedLane(handlers.creating, parts.metrics, access, tracer, guard)


async def run_provider(options: SimulatorOptions) -> None:
    """Serve the mock provider until SIGTERM or SIGINT."""
    stop = _stop_on_signals()
    try:
        await simulator.run(options, stop=stop, ready=lambda url: log.info("provider_started", url=url))
    except (OSError, UnicodeError, JournalError) as error:
        raise SetupError(f"the mock provider cannot run: {error}") from error
    log.info("provider_stopped")


def _arm_failpoints(settings: Settings) -> None:
    if settings.failpoint is None:
        return
    try:
        failpoints.arm(settings.failpoint)
    except ValueError as error:
        raise SetupError(f"OKANE_FAILPOINT: {error}") from error
    log.warning("failpoint_armed", failpoint=settings.failpoint)


def worker_name() -> str:
    """A name for a worker that was given none. Not stable: the janitor removes it once it is idle and empty."""
    return f"{socket.gethostname()}-{os.getpid()}"


@contextlib.asynccontextmanager
async def _access(settings: Settings, parts: Parts) -> AsyncIterator[Access]:
    """Who is let in, and how often, inside the block."""
    async with contextlib.AsyncExitStack() as closing:
        buckets = Buckets(parts.redis, parts.stream)
        closing.push_async_callback(buckets.aclose)
        limits = RateLimits(buckets, parts.presence.processes)
        await closing.enter_async_context(_running(limits.run))
        if settings.auth == "none":
            yield Everybody(limits, rate=settings.rate_limit)
            return
        store = ApiKeyStore(needed(settings.database_url, "DATABASE_URL"))
        closing.push_async_callback(store.aclose)
        access = KeyHolders(store, limits, mode=settings.mode, rate=settings.rate_limit)
        await closing.enter_async_context(_running(access.run))
        yield access


@contextlib.asynccontextmanager
async def _pressure(settings: Settings, parts: Parts) -> AsyncIterator[Pressure | None]:
    """What says when nothing new is to be taken, inside the block; None if that is never so."""
    if settings.max_due_age is None:
        yield None
        return
    pressure = Pressure(parts.overview, max_due_age=settings.max_due_age)
    async with _running(pressure.run):
        yield pressure


@contextlib.asynccontextmanager
async def _running(duty: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """A duty in the background of the block, which is told to stop, and has ended, when the block ends."""
    stop = asyncio.Event()
    task = asyncio.create_task(duty(stop))
    try:
        yield
    finally:
        stop.set()
        await task


class _Stop(asyncio.Event):
    """Set by the first SIGTERM or SIGINT. A second one ends the process at once, as it would have by default."""

    number: signal.Signals | None = None  # the signal that came


def _stop_on_signals() -> _Stop:
    stop = _Stop()
    loop = asyncio.get_running_loop()

    def ask(number: signal.Signals) -> None:
        stop.number = number
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)
    return stop


def _let_garbage_lie() -> None:
    """What is here now stays: to look through it would free nothing. And what a payment leaves behind goes by itself, without
    the collector: to look after every 700 objects, as Python does, is to look through the payments in hand."""
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)
