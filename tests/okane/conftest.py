"""What the tests of the payment half share: an API on real servers, whose answers are held to its document."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from okane.api.access import Access, Everybody
from okane.api.creating import Creating
from okane.api.dead_letters import DeadLetterRoutes
from okane.api.handlers import Handlers
from okane.api.http.fast_path import FastLane
from okane.api.http.server import Limits, serving
from okane.api.reading import Reading
from okane.api.routes import Routes, build_api
from okane.api.waiting import Waiting
from okane.config import Settings
from okane.intake.accept import Accept
from okane.intake.pressure import Pressure
from okane.intake.replay import Replay
from okane.lanes import payments_stream
from okane.metrics import OkaneMetrics
from okane.origin_guard import OriginGuard
from okane.store import DeadLetterStore, PaymentLists, PaymentStore, PaymentWatch
from streams import DeadLetters, Producer, Stream, connect
from tests.contract.answers import CheckedResponse

LIMITS = Limits(connections=1000, head_timeout_s=60.0, keep_alive_timeout_s=60.0, write_timeout_s=60.0)


@dataclass(frozen=True, slots=True)
class Api:
    """A served API, a client for it, and what is behind it."""

    client: aiohttp.ClientSession
    store: PaymentStore
    stream: Stream
    metrics: OkaneMetrics
    waiting: Waiting
    creating: Creating
    leaving: asyncio.Event
    url: str


@pytest.fixture
async def api(request: pytest.FixtureRequest, database_url: str, redis_url: str) -> AsyncIterator[Api]:
    """With the default settings, or those of the test's indirect parameter."""
    async for one in serve_api(database_url, redis_url, **getattr(request, "param", {})):
        yield one


async def serve_api(
    database_url: str, redis_url: str, access: Access | None = None, pressure: Pressure | None = None, **changed: Any
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
    accept = Accept(store=store, producer=producer, pressure=pressure)
    guard = OriginGuard(settings.allowed_hosts or frozenset()) if access is None else None
    access = access or Everybody()
    watch, leaving = PaymentWatch(database_url), asyncio.Event()
    handlers = Handlers(
        settings=settings,
        store=store,
        accept=accept,
        waiting=Waiting(watch=watch),
        metrics=metrics,
        leaving=leaving,
    )
    lists = PaymentLists(database_url)
    dead = DeadLetterStore(database_url)
    replay = Replay(accept=accept, notes=DeadLetters(redis, stream))
    routes = Routes(handlers, Reading(store=store, lists=lists), DeadLetterRoutes(dead=dead, replay=replay))
    app, fast_lane = (
        build_api(routes, metrics, access, guard=guard),
        FastLane(handlers.creating, metrics, access, guard),
    )
    async with (
        serving(
            app, "127.0.0.1", 0, limits=LIMITS, drain=timedelta(seconds=1), fast_lane=fast_lane, leaving=leaving
        ) as url,
        aiohttp.ClientSession(url, response_class=CheckedResponse) as client,
    ):
        yield Api(client, store, stream, metrics, handlers.waiting, handlers.creating, leaving, url)
    await producer.aclose()
    await store.aclose()
    await lists.aclose()
    await watch.aclose()
    await dead.aclose()
    await redis.aclose()
