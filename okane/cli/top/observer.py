"""The observer of `okane top`, on connections of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import aiohttp

from okane.cli.context import Context
from okane.lanes import operations_stream, payments_stream
from okane.monitoring.observation import Observer
from okane.redis.presence import Presence
from okane.store import Overview
from streams import Inspector, connect


@contextlib.asynccontextmanager
async def open_observer(context: Context) -> AsyncIterator[Observer]:
    """Open an observer for the length of the block."""
    stream = payments_stream(context.settings.stream)
    operations = operations_stream(context.settings.operations_stream_name)
    overview = Overview(context.database_url, timeout=timedelta(seconds=2))
    async with connect(context.redis_url, timeout=timedelta(seconds=2)) as redis, aiohttp.ClientSession() as http:
        observer = Observer(
            inspector=Inspector(redis, stream, group=context.settings.group),
            presence=Presence(redis, stream),
            overview=overview,
            http=http,
            operations=Inspector(redis, operations, group=context.settings.group),
        )
        try:
            yield observer
        finally:
            await observer.aclose()
            await overview.aclose()
