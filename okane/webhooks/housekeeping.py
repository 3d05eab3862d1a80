"""The housekeeping of events: table partitions are made ahead and dropped, and deleted endpoints lose their queues.

Every dispatcher does it; locks in Postgres keep the dispatchers out of each other's way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol
from uuid import UUID

import structlog

from okane.errors import StoreUnavailable
from okane.pausing import pause
from okane.store.webhook_endpoints import Endpoint
from okane.store.webhook_partitions import Dropped
from okane.webhooks.metrics import DispatcherMetrics

log = structlog.get_logger("okane.webhooks")

INTERVAL = timedelta(minutes=1)


class EventLog(Protocol):
    """The part of `WebhookEventStore` that is kept up."""

    async def prepare_partitions(self) -> int: ...
    async def drop_partitions(self, keep: timedelta, max_bytes: int | None) -> Dropped: ...
    async def warn_behind(self, endpoint_ids: Sequence[UUID]) -> Sequence[tuple[UUID, str]]: ...


class Endpoints(Protocol):
    """The part of `WebhookEndpointStore` that is kept up."""

    async def tidy(self) -> Sequence[Endpoint]: ...
    async def finish_delete(self, endpoint: Endpoint) -> bool: ...


class Housekeeping:
    """The housekeeping of one dispatcher."""

    def __init__(
        self,
        *,
        events: EventLog,
        endpoints: Endpoints,
        metrics: DispatcherMetrics,
        keep: timedelta,
        max_bytes: int | None,
        interval: timedelta = INTERVAL,
    ) -> None:
        self._events = events
        self._endpoints = endpoints
        self._metrics = metrics
        self._keep = keep
        self._max_bytes = max_bytes
        self._interval_s = interval.total_seconds()
        self._kept_for: frozenset[UUID] = frozenset()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep house every interval until `stop`."""
        while not stop.is_set():
            try:
                await self.run_once()
            except StoreUnavailable as error:  # the connection that was lost has logged it
                log.debug("housekeeping_interrupted", reason=str(error))
            except Exception:
                log.exception("housekeeping_failed")  # the next round may succeed
            await pause(self._interval_s, stop)

    async def run_once(self) -> Dropped:
        """Make and drop table partitions, warn accounts that will lose events, and finish deletions. Raises StoreUnavailable.

        A disabled endpoint that still needs a partition that is due, or nearly too much, gets a `webhook_endpoint.disabled`
        once more. One that is due by its age is kept for another week.
        """
        await self._events.prepare_partitions()
        dropped = await self._events.drop_partitions(self._keep, self._max_bytes)
        self._report(dropped)
        if dropped.kept_for:
            await self._events.warn_behind(dropped.kept_for)
        for endpoint in await self._endpoints.tidy():
            await self._endpoints.finish_delete(endpoint)
        return dropped

    def _report(self, dropped: Dropped) -> None:
        self._metrics.given_up.inc(dropped.given_up)
        if dropped.given_up:
            log.error("webhook_events_lost", partitions=list(dropped.partitions), deliveries=dropped.given_up)
        elif dropped.partitions:
            log.info("webhook_events_dropped", partitions=list(dropped.partitions), size_bytes=dropped.size_bytes)
        kept_for = frozenset(dropped.kept_for)
        if kept_for - self._kept_for:
            log.warning("webhook_events_kept", endpoints=[str(one) for one in sorted(kept_for)])
        self._kept_for = kept_for
