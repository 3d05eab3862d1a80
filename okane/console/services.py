"""The stores and readers that the screens use. Opened once for the process, closed in reverse order.

They are the console's own: no connection of a payment waits for a page.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from okane.config import Settings
from okane.redis.buckets import TokenBuckets
from okane.redis.presence import Presence
from okane.store import ApiKeyStore, DeadLetterStore, Overview, PaymentLists, PaymentStore
from okane.store.console_audit import ConsoleAuditStore
from okane.store.providers import ProviderStore
from streams import Inspector, Producer, Stream, connect

STATEMENT_TIMEOUT = timedelta(seconds=2)  # of every statement of a page
REDIS_TIMEOUT = timedelta(seconds=2)


def utc_now() -> datetime:
    """Return the time of this machine."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleServices:
    """All that the screens read and change."""

    settings: Settings
    now: Callable[[], datetime]
    stream: Stream
    keys: ApiKeyStore
    audit: ConsoleAuditStore
    buckets: TokenBuckets
    payments: PaymentStore
    lists: PaymentLists
    dead_letters: DeadLetterStore
    overview: Overview
    inspector: Inspector
    presence: Presence
    providers: ProviderStore
    producer: Producer


@contextlib.asynccontextmanager
async def open_services(
    settings: Settings, *, database_url: str, redis_url: str, stream: Stream, now: Callable[[], datetime] = utc_now
) -> AsyncIterator[ConsoleServices]:
    """Open the services inside the block. Each store connects when it is first used."""
    async with contextlib.AsyncExitStack() as closing:
        redis = connect(redis_url, timeout=REDIS_TIMEOUT)
        closing.push_async_callback(redis.aclose)
        services = ConsoleServices(
            settings=settings,
            now=now,
            stream=stream,
            keys=ApiKeyStore(database_url, timeout=STATEMENT_TIMEOUT),
            audit=ConsoleAuditStore(database_url, timeout=STATEMENT_TIMEOUT),
            buckets=TokenBuckets(redis, stream),
            payments=PaymentStore(
                database_url,
                actor="console",
                lease=settings.lease,
                grace=settings.sweep_grace,
                late_look_ups=settings.late_look_ups,
                timeout=STATEMENT_TIMEOUT,
            ),
            lists=PaymentLists(database_url, timeout=STATEMENT_TIMEOUT),
            dead_letters=DeadLetterStore(database_url, timeout=STATEMENT_TIMEOUT),
            overview=Overview(database_url, timeout=STATEMENT_TIMEOUT),
            inspector=Inspector(redis, stream, group=settings.group),
            presence=Presence(redis, stream),
            providers=ProviderStore(database_url, timeout=STATEMENT_TIMEOUT),
            producer=Producer(redis, stream, max_length=settings.max_stream_length),
        )
        for one in (
            services.buckets,
            services.keys,
            services.audit,
            services.lists,
            services.dead_letters,
            services.overview,
            services.providers,
            services.payments,
            services.producer,
        ):
            closing.push_async_callback(one.aclose)
        yield services
