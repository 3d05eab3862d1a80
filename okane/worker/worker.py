"""The worker: the work of the payments stream, that of captures, voids and refunds, and the order in which they drain.

Its caller opens and closes the clients, the stores and the provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import structlog

from okane import tracing
from okane.metrics import OkaneMetrics
from okane.providers.base import Provider
from okane.store import PaymentStore, SweepStore
from okane.worker.charge import PaymentHandler
from okane.worker.lease_renewal import LeaseRenewal
from okane.worker.provider_gate import ProviderGates
from okane.worker.provider_set import ProviderSet
from okane.worker.saved_methods import TokenSource
from okane.worker.stream_work import Duty, StreamWork, WorkerOptions
from streams import Metrics, Producer, Stream
from streams.connection import RedisClient

__all__ = ["Duty", "Worker", "WorkerOptions"]

log = structlog.get_logger("okane.app")


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
        methods: TokenSource | None = None,
        duties: Sequence[Duty] = (),
    ) -> None:
        """Without `gates` no call is held back; without `methods` no payment method is a saved one. `duties` run beside its
        own."""
        provider_set = ProviderSet(
            [tracing.provider(one) for one in providers],
            defaults=options.default_providers,
            gates=None if gates is None else gates.by_name,
        )
        store.usable_providers = provider_set.usable
        leases = LeaseRenewal(store=store, lease=options.lease)
        charge = PaymentHandler(
            store=store,
            claim_store=tracing.claim_store(store),
            providers=provider_set,
            leases=leases,
            rules=options.rules,
            metrics=metrics,
            methods=methods,
        )
        self._work = [
            StreamWork(
                options,
                redis=redis,
                stream=stream,
                producer=producer,
                handler=charge,
                leases=leases,
                sweep_store=sweep_store,
                concurrency=options.concurrency,
                capacity=None if gates is None else partial(gates.capacity, options.concurrency),
                metrics=metrics,
                stream_metrics=stream_metrics,
                tracing=tracing,
            )
        ]
        self._duties = duties

    async def run(self, stop: asyncio.Event) -> None:
        """Charge payments until `stop`, then finish those in flight."""
        drained = asyncio.Event()
        async with asyncio.TaskGroup() as running:
            for work in self._work:
                work.start(running, stop, drained)
            for duty in self._duties:
                running.create_task(duty.run(stop))
            await stop.wait()
            await asyncio.gather(*(work.drain() for work in self._work))
            log.info("worker_drained")
            drained.set()
