"""The API process: open its resources, serve the API until a signal, close them in reverse order."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator
from datetime import timedelta

import structlog

from okane.api.access import Access, AnonymousAccess, KeyAccess
from okane.api.api import Api
from okane.api.operation_handlers import OperationServices
from okane.api.rate_limit import RateLimits
from okane.api.webhook_services import WebhookServices
from okane.app import process
from okane.app.metrics_server import serving_metrics
from okane.app.resources import Resources, needed
from okane.app.start_checks import check_servers
from okane.config import Settings
from okane.http.guard import Guard
from okane.intake.load_shedding import LoadShedding
from okane.providers.config import load_providers
from okane.providers.config_reload import ConfigReload
from okane.providers.registry import build_notice_parsers, load_notice_secrets
from okane.providers.routing import Router
from okane.providers.secrets import CurrentSecrets
from okane.redis.buckets import TokenBuckets
from okane.store import ApiKeyStore, DeadLetterStore, PaymentLists, PaymentWatch, ProviderEventStore
from okane.store.disputes import DisputeLists
from okane.store.operations import OperationLists, OperationStore
from okane.store.payment_methods import PaymentMethodStore
from okane.webhooks.keys import load_masters
from streams import DeadLetters

log = structlog.get_logger("okane.app")

# A client waits for the API's XADD; what Redis does not take in this time, the sweep sends.
API_REDIS_TIMEOUT = timedelta(seconds=1)


async def run_api(settings: Settings) -> None:
    """Serve the API until SIGTERM or SIGINT, then let the requests in hand finish."""
    stop = process.stop_on_signals()
    process.arm_failpoints(settings)
    async with contextlib.AsyncExitStack() as closing:
        resources = await Resources.build(
            settings, role="api", name="api", redis_timeout=API_REDIS_TIMEOUT, closing=closing
        )
        await check_servers(settings, resources, consumes=False)
        load_shedding = await closing.enter_async_context(_load_shedding(settings, resources))
        url = needed(settings.database_url, "DATABASE_URL")
        lists, watch, dead_letters = PaymentLists(url), PaymentWatch(url), DeadLetterStore(url)
        config = load_providers(settings)
        secrets = CurrentSecrets(load_notice_secrets(config))
        parsers = build_notice_parsers(config, secrets=secrets)
        provider_events = ProviderEventStore(url, grace=settings.sweep_grace) if parsers else None
        if provider_events is not None:
            closing.push_async_callback(provider_events.aclose)
        methods, disputes = PaymentMethodStore(url), DisputeLists(url)
        for store in (watch, lists, dead_letters, methods, disputes):
            closing.push_async_callback(store.aclose)
        webhooks = WebhookServices.of(
            url,
            masters=load_masters(settings.webhook_master),
            guard=Guard(allow=settings.webhook_allow or (), deny_ports=settings.webhook_deny_ports or ()),
        )
        closing.push_async_callback(webhooks.aclose)
        metrics_url = await closing.enter_async_context(serving_metrics(settings, resources, role="api", name="api"))
        router = Router(config.routes, defaults=config.default, capabilities=config.capabilities)
        operations = OperationServices(
            store=OperationStore(
                url,
                actor="api",
                lease=settings.lease,
                grace=settings.sweep_grace,
                on_batch=resources.metrics.observe_batch,
                on_round_trip=resources.metrics.observe_round_trip,
            ),
            lists=OperationLists(url),
            producer=resources.operations_producer,
            capabilities=config.capabilities,
        )
        for each in (operations.store, operations.lists):
            closing.push_async_callback(each.aclose)
        api = Api(
            settings,
            access=await closing.enter_async_context(_access(settings, resources)),
            store=resources.store,
            lists=lists,
            watch=watch,
            dead_letters=dead_letters,
            notes=DeadLetters(resources.redis, resources.stream),
            producer=resources.producer,
            load_shedding=load_shedding,
            metrics=resources.metrics,
            tracing=resources.tracing,
            providers=config.names,
            router=router,
            provider_events=provider_events,
            notice_parsers=parsers,
            operations=operations,
            webhooks=webhooks,
            methods=methods,
            disputes=disputes,
        )
        if config.path is not None:
            reload = ConfigReload.of_api(config, settings, secrets, set_routes=router.set_rules)
            await closing.enter_async_context(process.running(reload.run))
        api_url = await closing.enter_async_context(api.serving())
        process.tune_gc()
        log.info("api_started", url=api_url, metrics=metrics_url, auth=settings.auth)
        await stop.wait()
        if settings.lame_duck and stop.number is signal.SIGTERM:  # at a terminal (SIGINT) a person waits
            await api.leave(settings.lame_duck)
        log.info("api_stopping")
    log.info("api_stopped")


@contextlib.asynccontextmanager
async def _access(settings: Settings, resources: Resources) -> AsyncIterator[Access]:
    """Check credentials and count requests against rate limits inside the block."""
    async with contextlib.AsyncExitStack() as closing:
        buckets = TokenBuckets(resources.redis, resources.stream)
        closing.push_async_callback(buckets.aclose)
        limits = RateLimits(buckets, resources.presence.processes)
        await closing.enter_async_context(process.running(limits.run))
        if settings.auth == "none":
            yield AnonymousAccess(limits, rate=settings.rate_limit)
            return
        store = ApiKeyStore(needed(settings.database_url, "DATABASE_URL"))
        closing.push_async_callback(store.aclose)
        access = KeyAccess(store, limits, mode=settings.mode, rate=settings.rate_limit)
        await closing.enter_async_context(process.running(access.run))
        yield access


@contextlib.asynccontextmanager
async def _load_shedding(settings: Settings, resources: Resources) -> AsyncIterator[LoadShedding | None]:
    """Run the load-shedding check for new payments inside the block; yield None if `max_due_age` is unset."""
    if settings.max_due_age is None:
        yield None
        return
    load_shedding = LoadShedding(resources.overview, max_due_age=settings.max_due_age)
    async with process.running(load_shedding.run):
        yield load_shedding
