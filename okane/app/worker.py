"""The worker process: opens what it is made of, charges until a signal, and closes in reverse order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from datetime import timedelta

import structlog

from okane.app import process
from okane.app.metrics_server import serving_metrics
from okane.app.resources import Parts, needed
from okane.app.start_checks import check_servers
from okane.config import Settings
from okane.providers.okane_http import HttpProvider
from okane.worker.charge import Charge
from okane.worker.direct import Direct
from okane.worker.lease import Leases
from okane.worker.sweep import Sweep
from okane.worker.verdict import Rules
from streams import (
    Consumer,
    Delayed,
    Janitor,
    RetryPolicy,
)

log = structlog.get_logger("okane.app")

WORKER_REDIS_TIMEOUT = timedelta(seconds=5)  # longer than a blocking read


async def run_worker(settings: Settings, *, name: str) -> None:
    """Charge payments until SIGTERM or SIGINT, then finish those in flight."""
    stop = process.stop_on_signals()
    process.arm_failpoints(settings)
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
        process.tune_gc()
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


def worker_name() -> str:
    """A name for a worker that was given none. Not stable: the janitor removes it once it is idle and empty."""
    return f"{socket.gethostname()}-{os.getpid()}"
