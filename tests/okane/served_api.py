"""The API, served in this process over the session's servers, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import aiohttp
from prometheus_client import CollectorRegistry

from okane.api.access import Access, AnonymousAccess
from okane.api.dead_letters import DeadLetterHandlers
from okane.api.health import HealthHandlers
from okane.api.http.connection_limits import ConnectionLimits
from okane.api.http.fast_path import FastPath
from okane.api.http.server import serving
from okane.api.long_polling import LongPolling
from okane.api.payment_creation import PaymentCreation
from okane.api.payment_handlers import PaymentHandlers
from okane.api.payment_queries import PaymentQueries
from okane.api.routes import Handlers, build_api
from okane.config import Settings
from okane.intake.accept import PaymentIntake
from okane.intake.dead_letter_replay import DeadLetterReplay
from okane.intake.load_shedding import LoadShedding
from okane.lanes import payments_stream
from okane.metrics import OkaneMetrics
from okane.origin_guard import OriginGuard
from okane.store import DeadLetterStore, PaymentLists, PaymentStore, PaymentWatch
from streams import DeadLetters, Producer, Stream, connect
from tests.contract.answers import CheckedResponse

LIMITS = ConnectionLimits(connections=1000, head_timeout_s=60.0, keep_alive_timeout_s=60.0, write_timeout_s=60.0)


@dataclass(frozen=True, slots=True)
class Api:
    """A served API, a client for it, and what is behind it."""

    client: aiohttp.ClientSession
    store: PaymentStore
    stream: Stream
    metrics: OkaneMetrics
    long_polling: LongPolling
    creation: PaymentCreation
    leaving: asyncio.Event
    url: str


async def serve_api(
    database_url: str,
    redis_url: str,
    access: Access | None = None,
    load_shedding: LoadShedding | None = None,
    **changed: Any,
) -> AsyncIterator[Api]:
    """The API over these two servers, on a stream of its own."""
    settings = Settings(_env_file=None, **changed)
    metrics = OkaneMetrics(CollectorRegistry())
    stream = payments_stream(f"test-{uuid4()}")
    redis = connect(redis_url, timeout=timedelta(seconds=2))
    store = PaymentStore(
        database_url, actor="api", lease=settings.lease, grace=settings.sweep_grace, timeout=timedelta(seconds=3)
    )
    producer = Producer(redis, stream)
    intake = PaymentIntake(store=store, producer=producer, load_shedding=load_shedding)
    guard = OriginGuard(settings.allowed_hosts or frozenset()) if access is None else None
    access = access or AnonymousAccess()
    watch, leaving = PaymentWatch(database_url), asyncio.Event()
    handlers = PaymentHandlers(
        settings=settings,
        store=store,
        intake=intake,
        long_polling=LongPolling(watch=watch),
        metrics=metrics,
    )
    lists = PaymentLists(database_url)
    dead = DeadLetterStore(database_url)
    replay = DeadLetterReplay(intake=intake, notes=DeadLetters(redis, stream))
    routes = Handlers(
        handlers,
        PaymentQueries(store=store, lists=lists),
        DeadLetterHandlers(dead=dead, replay=replay),
        HealthHandlers(store=store, leaving=leaving),
    )
    app, fast_path = (
        build_api(routes, metrics, access, guard=guard),
        FastPath(handlers.creation, metrics, access, guard=guard),
    )
    async with (
        serving(
            app, "127.0.0.1", 0, limits=LIMITS, drain=timedelta(seconds=1), fast_path=fast_path, leaving=leaving
        ) as url,
        aiohttp.ClientSession(url, response_class=CheckedResponse) as client,
    ):
        yield Api(client, store, stream, metrics, handlers.long_polling, handlers.creation, leaving, url)
    await producer.aclose()
    await store.aclose()
    await lists.aclose()
    await watch.aclose()
    await dead.aclose()
    await redis.aclose()
