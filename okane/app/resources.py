"""The resources of an API or a worker: stores, streams, metrics, tracing. Opened in one place, closed in reverse order."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

from prometheus_client import CollectorRegistry

from okane import logs, tracing
from okane.app.operation_gauges import OperationGauges
from okane.app.system_metrics import SystemMetrics
from okane.config import Settings
from okane.errors import SetupError, StoreUnavailable
from okane.lanes import operations_stream, payments_stream
from okane.metrics import OkaneMetrics
from okane.providers.config import load_providers
from okane.reconcile.comparison import KINDS
from okane.redis.presence import Presence
from okane.store import Overview, PaymentStore, SweepStore
from okane.store.providers import ProviderState
from okane.store.webhook_overview import WebhookOverview
from streams import Inspector, Producer, StreamError, connect
from streams.prometheus import PrometheusMetrics

POSTGRES_TIMEOUT_S = 2.0  # before a scrape is answered without Postgres


class Resources:
    """The resources of one process. Metrics of the whole system are read anew for every scrape."""

    def __init__(self, settings: Settings, *, role: str, name: str, redis_timeout: timedelta) -> None:
        database_url = needed(settings.database_url, "DATABASE_URL")
        self.stream = payments_stream(settings.stream)
        self.operations_stream = operations_stream(settings.operations_stream_name)
        self.tracing = tracing.start(settings, role=role, name=name)
        trace_id = self.tracing.trace_id
        if trace_id is not None:
            logs.name_traces(trace_id)
        self.metrics = OkaneMetrics(CollectorRegistry(), trace_id=trace_id)
        self.system = SystemMetrics(CollectorRegistry())
        self._operation_gauges = OperationGauges(self.system.registry)
        self._gauges = PrometheusMetrics(
            prefix="okane", registry=self.metrics.registry, shared=self.system.registry, trace_id=trace_id
        )
        self.stream_metrics = self._gauges.for_stream(self.stream.name, self.stream.lane_names)
        self.operations_metrics = self._gauges.for_stream(
            self.operations_stream.name, self.operations_stream.lane_names
        )
        self.redis = connect(needed(settings.redis, "REDIS_URL"), timeout=redis_timeout)
        self.producer = Producer(
            self.redis, self.stream, max_length=settings.max_stream_length, metrics=self.stream_metrics
        )
        self.operations_producer = Producer(
            self.redis,
            self.operations_stream,
            max_length=settings.max_stream_length,
            metrics=self.operations_metrics,
        )
        self._inspectors = [
            Inspector(self.redis, stream, group=settings.group) for stream in (self.stream, self.operations_stream)
        ]
        self.presence = Presence(self.redis, self.stream)
        self.store = PaymentStore(
            database_url,
            actor=name,
            lease=settings.lease,
            grace=settings.sweep_grace,
            late_look_ups=settings.late_look_ups,
            cell=settings.cell,
            on_batch=self.metrics.observe_batch,
            on_round_trip=self.metrics.observe_round_trip,
        )
        self.sweep_store = SweepStore(database_url, grace=settings.sweep_grace)
        self.overview = Overview(database_url)
        self._providers = sorted(load_providers(settings).names)
        self._webhook_keep, self._webhook_max_bytes = settings.webhook_keep, settings.webhook_max_bytes

    @classmethod
    async def build(
        cls,
        settings: Settings,
        *,
        role: str,
        name: str,
        redis_timeout: timedelta,
        closing: contextlib.AsyncExitStack,
    ) -> Resources:
        """Open the resources; `closing` closes them in reverse order."""
        resources = cls(settings, role=role, name=name, redis_timeout=redis_timeout)
        closing.push_async_callback(resources.tracing.aclose)
        closing.push_async_callback(resources.redis.aclose)
        closing.push_async_callback(resources.overview.aclose)
        closing.push_async_callback(resources.sweep_store.aclose)
        closing.push_async_callback(resources.store.aclose)
        closing.push_async_callback(resources.producer.aclose)
        closing.push_async_callback(resources.operations_producer.aclose)
        return resources

    async def refresh_redis(self) -> None:
        """Read the gauges of the streams from Redis."""
        try:
            stats = [await inspector.stats() for inspector in self._inspectors]
        except StreamError:
            for stream in (self.stream, self.operations_stream):
                self._gauges.forget(stream.name)
            self.system.up.labels("redis").set(0)
        else:
            for one in stats:
                self._gauges.show(one)
            self.system.up.labels("redis").set(1)

    async def refresh_postgres(self) -> None:
        """Read the waiting payments from Postgres. Until it answers, it counts as away."""
        timer = asyncio.get_running_loop().call_later(POSTGRES_TIMEOUT_S, self._postgres_away)
        try:
            await self._read_postgres()
        finally:
            timer.cancel()

    def _postgres_away(self) -> None:
        self.system.forget_waiting()
        self._operation_gauges.forget()
        self.system.up.labels("postgres").set(0)

    async def _read_postgres(self) -> None:
        try:
            oldest_due, dead = await self.overview.oldest_due(), await self.overview.count_dead()
            waiting, rows = await self.overview.count_waiting(), await self.overview.providers()
            differences, webhooks = await self.overview.differences(), await self.overview.webhooks()
            ages = await self.overview.reconcile_ages()
            disputes, operations = (
                await self.overview.count_disputes(),
                await self.overview.count_waiting_operations(),
            )
            oldest_operation = await self.overview.oldest_due_operation()
            dead_operations = await self.overview.count_dead_operations()
            ahead = await self.overview.partitions_ahead()
        except StoreUnavailable:
            self._postgres_away()
        else:
            self.system.set_waiting(oldest_due=oldest_due, dead=dead, waiting=waiting)
            providers = {name: ProviderState(name) for name in self._providers} | {one.name: one for one in rows}
            self.system.set_providers((one.name, one.mode, one.open_s > 0) for one in providers.values())
            # With a zero where there is none, for those that are known.
            none = [(name, kind, 0) for name in providers for kind in KINDS]
            self.system.set_differences([*none, *differences])
            self.system.set_reconcile_ages(ages)
            self.system.set_partitions_ahead(ahead)
            self.system.set_disputes(dict.fromkeys(providers, 0) | dict(disputes))
            self._operation_gauges.show(oldest_due=oldest_operation, dead=dead_operations, waiting=operations)
            self._show_webhooks(webhooks)
            self.system.up.labels("postgres").set(1)

    def _show_webhooks(self, overview: WebhookOverview) -> None:
        system = self.system
        system.webhook_outbox_changes.set(overview.outbox_changes)
        system.webhook_outbox_oldest.set(overview.outbox_oldest.total_seconds())
        system.webhook_unowned.set(overview.unowned)
        system.webhook_failing.set(overview.failing.total_seconds())
        system.webhook_log_bytes.set(overview.log.size_bytes)
        system.webhook_retention_used.set(overview.log.used_retention(self._webhook_keep, self._webhook_max_bytes))
        for name, state in overview.states.items():
            system.set_endpoint_state(name, endpoints=state.endpoints, backlog=state.backlog, oldest=state.oldest)


def needed(value: str | None, name: str) -> str:
    """Return a setting that has no default. Raises SetupError if it is unset."""
    if value is None:
        raise SetupError(f"{name} is not set. `okane up` runs everything on this machine and sets it by itself")
    return value
