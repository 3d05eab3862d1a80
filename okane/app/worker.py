"""The worker process: open its resources, run the worker until a signal, close them in reverse order."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from datetime import timedelta

import structlog

import okane.providers.exchange  # noqa: F401 - its failpoint is armed before an adapter is imported
from okane.app import process
from okane.app.metrics_server import serving_metrics
from okane.app.provider_gates import build_gates
from okane.app.resources import Resources, needed
from okane.app.start_checks import check_servers
from okane.config import Settings
from okane.providers.base import DisputeSource, Provider
from okane.providers.config import load_providers
from okane.providers.config_reload import ConfigReload
from okane.providers.registry import build_providers, charge_secrets
from okane.providers.secrets import CurrentSecrets
from okane.store import ProviderEventStore, WebhookEventStore
from okane.store.disputes import DisputeStore
from okane.store.operations import OperationStore
from okane.store.payment_methods import PaymentMethodTokens
from okane.store.webhook_endpoints import WebhookEndpointStore
from okane.worker.dispute_follow_up import DisputeFollowUp
from okane.worker.endpoint_cleanup import EndpointCleanup
from okane.worker.notice_follow_up import NoticeFollowUp
from okane.worker.operation_metrics import OperationMetrics
from okane.worker.outcome_rules import OutcomeRules
from okane.worker.partitions_ahead import PartitionsAhead
from okane.worker.sequencing import Sequencing
from okane.worker.unplanned_authorizations import UnplannedAuthorizations
from okane.worker.worker import Duty, OperationResources, Worker, WorkerOptions
from streams import RetryPolicy

log = structlog.get_logger("okane.app")

MARKS_IN_A_GRACE = 4  # looks for lost wake-ups: they cost more than all else that a worker without payments does
WORKER_REDIS_TIMEOUT = timedelta(seconds=5)  # longer than a blocking read


async def run_worker(settings: Settings, *, name: str) -> None:
    """Charge payments until SIGTERM or SIGINT, then finish those in flight."""
    stop = process.stop_on_signals()
    process.arm_failpoints(settings)
    config = load_providers(settings)
    async with contextlib.AsyncExitStack() as closing:
        resources = await Resources.build(
            settings, role="worker", name=name, redis_timeout=WORKER_REDIS_TIMEOUT, closing=closing
        )
        await check_servers(settings, resources, consumes=True)
        secrets = CurrentSecrets(charge_secrets(config))
        providers = build_providers(
            config,
            settings,
            # For what comes from the streams, and for direct runs.
            connections=2 * (settings.concurrency + settings.operations_concurrency),
            more_header=resources.tracing.provider_header,
            secrets=secrets,
        )
        for provider in providers.values():
            closing.push_async_callback(provider.aclose)
        gates, watch, limits = build_gates(settings, resources, tuple(providers), name=name, closing=closing)
        limits.set(config.rates)
        duties: list[Duty] = [watch, _sequencing(settings, resources, closing)]
        duties.append(_endpoint_cleanup(settings, resources, closing))
        duties.append(UnplannedAuthorizations(sweep_store=resources.sweep_store))
        duties.append(
            PartitionsAhead(url=needed(settings.database_url, "DATABASE_URL"), sweep_store=resources.sweep_store)
        )
        if config.path is not None:
            duties.append(_notice_follow_up(settings, resources, closing))
            duties += _dispute_follow_up(settings, providers, closing, name=name)
            duties.append(ConfigReload.of_charges(config, settings, secrets, set_rates=limits.set))
        methods = PaymentMethodTokens(needed(settings.database_url, "DATABASE_URL"))
        closing.push_async_callback(methods.aclose)
        worker = Worker(
            options_of(settings, name=name, default_providers=config.default),
            redis=resources.redis,
            stream=resources.stream,
            producer=resources.producer,
            store=resources.store,
            sweep_store=resources.sweep_store,
            providers=list(providers.values()),
            metrics=resources.metrics,
            stream_metrics=resources.stream_metrics,
            tracing=resources.tracing,
            gates=gates,
            methods=methods,
            duties=duties,
            operations=_operations(settings, resources, name=name, closing=closing),
        )
        metrics_url = await closing.enter_async_context(serving_metrics(settings, resources, role="worker", name=name))
        process.tune_gc()
        log.info("worker_started", concurrency=settings.concurrency, providers=list(providers), metrics=metrics_url)
        await worker.run(stop)
    log.info("worker_stopped")


def _operations(
    settings: Settings, resources: Resources, *, name: str, closing: contextlib.AsyncExitStack
) -> OperationResources:
    store = OperationStore(
        needed(settings.database_url, "DATABASE_URL"),
        actor=name,
        lease=settings.lease,
        grace=settings.sweep_grace,
        late_look_ups=settings.late_look_ups,
        on_batch=resources.metrics.observe_batch,
        on_round_trip=resources.metrics.observe_round_trip,
    )
    closing.push_async_callback(store.aclose)
    return OperationResources(
        stream=resources.operations_stream,
        producer=resources.operations_producer,
        store=store,
        concurrency=settings.operations_concurrency,
        metrics=OperationMetrics(resources.metrics.registry),
        stream_metrics=resources.operations_metrics,
    )


def _sequencing(settings: Settings, resources: Resources, closing: contextlib.AsyncExitStack) -> Sequencing:
    events = WebhookEventStore(needed(settings.database_url, "DATABASE_URL"))
    closing.push_async_callback(events.aclose)
    return Sequencing(
        sweep_store=resources.sweep_store, events=events, metrics=resources.metrics, interval=settings.sweep_interval
    )


def _endpoint_cleanup(settings: Settings, resources: Resources, closing: contextlib.AsyncExitStack) -> EndpointCleanup:
    endpoints = WebhookEndpointStore(needed(settings.database_url, "DATABASE_URL"))
    closing.push_async_callback(endpoints.aclose)
    return EndpointCleanup(sweep_store=resources.sweep_store, endpoints=endpoints)


def _dispute_follow_up(
    settings: Settings, providers: Mapping[str, Provider], closing: contextlib.AsyncExitStack, *, name: str
) -> Sequence[Duty]:
    """Return the duty of a worker one of whose providers has disputes."""
    sources = {one: provider for one, provider in providers.items() if isinstance(provider, DisputeSource)}
    if not sources:
        return ()
    disputes = DisputeStore(needed(settings.database_url, "DATABASE_URL"), actor=name)
    closing.push_async_callback(disputes.aclose)
    return [DisputeFollowUp(disputes=disputes, sources=sources, interval=settings.sweep_interval)]


def _notice_follow_up(settings: Settings, resources: Resources, closing: contextlib.AsyncExitStack) -> NoticeFollowUp:
    events = ProviderEventStore(needed(settings.database_url, "DATABASE_URL"), grace=settings.sweep_grace)
    closing.push_async_callback(events.aclose)
    return NoticeFollowUp(
        events=events,
        producer=resources.tracing.publisher(resources.producer),
        operations=resources.tracing.for_operations.publisher(resources.operations_producer),
        interval=settings.sweep_interval,
    )


def options_of(settings: Settings, *, name: str, default_providers: Sequence[str]) -> WorkerOptions:
    """Return the worker's options from the settings."""
    policy = RetryPolicy(base=settings.retry_base, cap=settings.retry_cap, max_attempts=settings.max_retries + 1)
    rules = OutcomeRules(
        policy=policy,
        max_deliveries=settings.max_deliveries,
        look_up_delays=settings.look_up_delays,
    )
    return WorkerOptions(
        name=name,
        group=settings.group,
        concurrency=settings.concurrency,
        lease=settings.lease,
        drain=settings.drain,
        rules=rules,
        sweep_interval=settings.sweep_interval,
        mark_interval=settings.sweep_grace / MARKS_IN_A_GRACE,
        redis_patience=settings.redis_patience,
        max_stream_length=settings.max_stream_length,
        default_providers=default_providers,
    )
