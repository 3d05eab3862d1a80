"""The worker: consumer, delayed retries, sweep, janitor, lease renewal and direct runs, and the order in which they drain.

Its caller opens and closes the clients, the stores and the provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Protocol

import structlog

from okane import tracing
from okane.metrics import OkaneMetrics
from okane.providers.base import Provider
from okane.store import PaymentStore, SweepStore
from okane.worker.charge import PaymentHandler
from okane.worker.direct_run import DirectRuns
from okane.worker.lease_renewal import LeaseRenewal
from okane.worker.outcome_rules import OutcomeRules
from okane.worker.provider_gate import ProviderGates
from okane.worker.provider_set import ProviderSet
from okane.worker.sweep import LaneState, Sweep
from streams import Consumer, ConsumerOptions, Delayed, Inspector, Janitor, Metrics, Producer, Stream
from streams.connection import RedisClient

log = structlog.get_logger("okane.app")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The settings of one worker. Those with a default are not settings of okane; the simulation shortens them.

    `default_providers` charge the payments that name none, in this order (None: all).
    """

    name: str
    group: str
    concurrency: int
    lease: timedelta
    drain: timedelta
    rules: OutcomeRules
    sweep_interval: timedelta
    redis_patience: timedelta
    max_stream_length: int
    default_providers: Sequence[str] | None = None
    poll: timedelta = timedelta(milliseconds=250)
    janitor_idle: timedelta = timedelta(minutes=10)
    janitor_interval: timedelta = timedelta(minutes=1)


class Duty(Protocol):
    """A task of a worker beside its consumer."""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`."""
        ...


class Worker:
    """One worker of the payments stream."""

    def __init__(
        self,
        options: WorkerOptions,
        *,
        redis: RedisClient,
        stream: Stream,
        producer: Producer,
        store: PaymentStore,
        sweep_store: SweepStore,
        providers: Sequence[Provider],
        metrics: OkaneMetrics,
        stream_metrics: Metrics,
        tracing: tracing.Tracing = tracing.OFF,
        gates: ProviderGates | None = None,
        duties: Sequence[Duty] = (),
    ) -> None:
        """Without `gates` no call is held back. `duties` run beside its own."""
        self._options = options
        self._producer = producer
        self._inspector = Inspector(redis, stream, group=options.group)
        self._leases = LeaseRenewal(store=store, lease=options.lease)
        provider_set = ProviderSet(
            [tracing.provider(one) for one in providers],
            defaults=options.default_providers,
            gates=None if gates is None else gates.by_name,
        )
        capacity = None if gates is None else partial(gates.capacity, options.concurrency)
        store.usable_providers = provider_set.usable
        charge = PaymentHandler(
            store=store,
            claim_store=tracing.claim_store(store),
            providers=provider_set,
            leases=self._leases,
            rules=options.rules,
            metrics=metrics,
        )
        self._consumer = Consumer(
            redis,
            stream,
            group=options.group,
            name=options.name,
            handler=charge,
            on_poison=charge.poison,
            options=_consumer_options(options),
            metrics=stream_metrics,
            tracer=tracing.messages,
            capacity=capacity,
        )
        self._direct = DirectRuns(
            tracing.handler(charge), concurrency=options.concurrency, metrics=metrics, capacity=capacity
        )
        self._delayed = Delayed(redis, stream, poll=options.poll, metrics=stream_metrics)
        sweep = Sweep(
            store=sweep_store,
            producer=tracing.publisher(producer),
            direct=self._direct,
            lanes=self._lane_states,
            interval=options.sweep_interval,
            metrics=metrics,
            unable_for=self._unable_for,
            patience=options.redis_patience,
        )
        janitor = Janitor(redis, stream, group=options.group, idle=options.janitor_idle, every=options.janitor_interval)
        self._duties: Sequence[Duty] = (self._delayed, sweep, janitor, *duties)

    async def run(self, stop: asyncio.Event) -> None:
        """Charge payments until `stop`, then finish those in flight. Their leases are renewed until the last has ended."""
        drained = asyncio.Event()
        async with asyncio.TaskGroup() as running:
            running.create_task(self._leases.run(drained))
            for duty in self._duties:
                running.create_task(duty.run(stop))
            consuming = running.create_task(self._consumer.run(stop))
            await stop.wait()
            await self._direct.drain(self._options.drain)
            await consuming
            log.info("worker_drained")
            drained.set()

    async def _lane_states(self) -> Mapping[str, LaneState]:
        """Return the state of every lane. Raises StreamError, also while Redis takes no wake-up."""
        stats = await self._inspector.stats()
        await self._producer.check()
        return {
            lane.lane: LaneState(
                oldest_entry=_age(lane.oldest_ms, stats.now_ms),
                room=self._options.max_stream_length - lane.length,
            )
            for lane in stats.lanes
        }

    def _unable_for(self) -> timedelta:
        return max(self._consumer.unable_for, self._delayed.unable_for)


def _consumer_options(options: WorkerOptions) -> ConsumerOptions:
    return ConsumerOptions(
        concurrency=options.concurrency,
        lease=options.lease,
        policy=options.rules.policy,
        max_deliveries=options.rules.max_deliveries,
        drain=options.drain,
    )


def _age(since_ms: int | None, now_ms: int) -> timedelta | None:
    return None if since_ms is None else timedelta(milliseconds=max(0, now_ms - since_ms))
