"""What the tests of the payment half share: an API on real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from okane.api.access import Access, Everybody
from okane.api.fast_lane import FastLane
from okane.api.handlers import Handlers
from okane.api.routes import build_api
from okane.api.serving import Limits, serving
from okane.config import Settings
from okane.metrics import OkaneMetrics
from okane.pipeline.accept import Accept
from okane.pipeline.lanes import payments_stream
from okane.pipeline.pressure import Pressure
from okane.store import PaymentStore
from streams import Producer, Stream, connect

LIMITS = Limits(connections=1000, head_timeout_s=60.0, keep_alive_timeout_s=60.0, write_timeout_s=60.0)


@dataclass(frozen=True, slots=True)
class Api:
    """A served API, a client for it, and what is behind it."""

    client: aiohttp.ClientSession
    store: PaymentStore
    stream: Stream
    metrics: OkaneMetrics


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Api]:
    async for one in serve_api(database_url, redis_url):
        yield one


async def serve_api(
    database_url: str, redis_url: str, access: Access | None = None, pressure: Pressure | None = None
) -> AsyncIterator[Api]:
    """The API over these two servers, on a stream of its own."""
    settings = Settings(_env_file=None)
    metrics = OkaneMetrics(CollectorRegistry())
    stream = payments_stream(f"test-{uuid4()}")
    redis = connect(redis_url, timeout=timedelta(seconds=2))
    store = PaymentStore(
        database_url, actor="api", lease=settings.lease, grace=settings.sweep_grace, timeout=timedelta(seconds=3)
    )
    producer = Producer(redis, stream)
    accept = Accept(store=store, producer=producer, pressure=pressure)
    handlers = Handlers(settings=settings, store=store, accept=accept, metrics=metrics)
    access = access or Everybody()
    app, fast_lane = build_api(handlers, metrics, access), FastLane(handlers.creating, metrics, access)
    async with (
        serving(app, "127.0.0.1", 0, limits=LIMITS, drain=timedelta(seconds=1), fast_lane=fast_lane) as url,
        aiohttp.ClientSession(url) as client,
    ):
        yield Api(client, store, stream, metrics)
    await producer.aclose()
    await store.aclose()
    await redis.aclose()
