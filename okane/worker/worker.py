"""The worker: the work of the payments stream, that of captures, voids and refunds, and the order in which they drain.

Its caller opens and closes the clients, the stores and the provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import structlog

from okane import tracing
from okane.metrics import OkaneMetrics
from okane.providers.base import Provider
from okane.store import PaymentStore, SweepStore
from okane.store.operations import OperationStore
from okane.worker.charge import PaymentHandler
from okane.worker.lease_renewal import LeaseRenewal
from okane.worker.operate import OperationHandler
from okane.worker.operation_metrics import OperationMetrics
from okane.worker.operation_rules import OperationRules
from okane.worker.provider_calls import ProviderCalls
from okane.worker.provider_gate import ProviderGates
from okane.worker.provider_set import ProviderSet
from okane.worker.saved_methods import TokenSource
from okane.worker.stream_work import Duty, StreamWork, WorkerOptions
from okane.worker.swept_operations import EndingAuthorizations, SweptOperations
from streams import Metrics, Producer, Stream
from streams.connection import RedisClient

__all__ = ["Duty", "Worker", "WorkerOptions"]

log = structlog.get_logger("okane.app")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationResources:
    """All that a worker needs for captures, voids and refunds, beside what it has for payments."""

    stream: Stream
    producer: Producer
    store: OperationStore
    concurrency: int
    metrics: OperationMetrics
    stream_metrics: Metrics


class Worker:
    """One worker of the payments stream, and of the operations stream if it has `operations`."""

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
        operations: OperationResources | None = None,
    ) -> None:
        """Without `gates` no call is held back; without `methods` no payment method is a saved one. `duties` run beside its
        own."""
        provider_set = ProviderSet(
            [tracing.provider(one) for one in providers],
            defaults=options.default_providers,
            gates=None if gates is None else gates.by_name,
        )
        calls = ProviderCalls(metrics)
        work_on = partial(StreamWork, redis=redis, gates=gates, metrics=metrics)
        ending = None
        if operations is not None:
            ending = EndingAuthorizations(operations.store, tracing.for_operations.publisher(operations.producer)).void
        store.usable_providers = provider_set.usable
        leases = LeaseRenewal(store=store, lease=options.lease)
        charge = PaymentHandler(
            store=store,
            claim_store=tracing.claim_store(store),
            providers=provider_set,
            calls=calls,
            leases=leases,
            rules=options.rules,
            metrics=metrics,
            methods=methods,
            end_authorization=ending,
        )
        payments = work_on(
            options,
            stream=stream,
            producer=producer,
            handler=charge,
            leases=leases,
            sweep_store=sweep_store,
            concurrency=options.concurrency,
            stream_metrics=stream_metrics,
            tracing=tracing,
        )
        self._work = [payments]
        if operations is not None:
            self._work.append(
                _work_on_operations(
                    operations, options, provider_set, calls, partial(work_on, tracing=tracing.for_operations)
                )
            )
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


def _work_on_operations(
    operations: OperationResources,
    options: WorkerOptions,
    providers: ProviderSet,
    calls: ProviderCalls,
    work_on: Callable[..., StreamWork],
) -> StreamWork:
    operations.store.usable_providers = providers.usable
    leases = LeaseRenewal(store=operations.store, lease=options.lease)
    operate = OperationHandler(
        store=operations.store,
        providers=providers,
        calls=calls,
        leases=leases,
        rules=OperationRules(options.rules),
        metrics=operations.metrics,
    )
    return work_on(
        # Retries of operations are rare, and looking for them costs every worker without any.
        replace(options, poll=options.poll * 4),
        stream=operations.stream,
        producer=operations.producer,
        handler=operate,
        leases=leases,
        sweep_store=SweptOperations(operations.store),
        concurrency=operations.concurrency,
        stream_metrics=operations.stream_metrics,
    )
