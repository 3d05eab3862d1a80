"""The stores and readers that the screens use. Opened once for the process, closed in reverse order.

They are the console's own: no connection of a payment waits for a page.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

import aiohttp

from okane.config import Settings
from okane.console.doctor import CheckedConsole, Doctor
from okane.console.outages import Outages
from okane.console.sampler import FACTS_S, NAMES, PATIENCE_S, Sampler
from okane.errors import SetupError
from okane.http.guard import Guard
from okane.intake.accept import PaymentIntake
from okane.intake.dead_letter_replay import DeadLetterReplay
from okane.intake.operations import OperationIntake
from okane.intake.provider_switch import ProviderSwitch
from okane.lanes import operations_stream
from okane.monitoring.doctor import diagnose
from okane.monitoring.observation import Observer
from okane.providers.capabilities import NO_CAPABILITIES, Capabilities
from okane.providers.config import load_providers
from okane.redis.buckets import TokenBuckets
from okane.redis.presence import Presence
from okane.store import ApiKeyStore, DeadLetterStore, Overview, PaymentLists, PaymentStore, ReviewStore
from okane.store.console_audit import ConsoleAuditStore
from okane.store.disputes import DisputeLists
from okane.store.metadata_index import MetadataSearch
from okane.store.operations import OperationLists, OperationStore
from okane.store.payment_details import PaymentDetailsStore
from okane.store.providers import ProviderStore
from okane.store.webhook_deliveries import WebhookDeliveryStore
from okane.store.webhook_endpoints import WebhookEndpointStore
from okane.webhooks.endpoint_tests import EndpointTests
from okane.webhooks.keys import Masters, load_masters
from streams import DeadLetters, Inspector, Producer, Stream, connect
from streams.connection import RedisClient

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
    outages: Outages
    stream: Stream
    keys: ApiKeyStore
    audit: ConsoleAuditStore
    buckets: TokenBuckets
    payments: PaymentStore
    lists: PaymentLists
    by_metadata: MetadataSearch
    details: PaymentDetailsStore
    dead_letters: DeadLetterStore
    overview: Overview
    inspector: Inspector
    presence: Presence
    providers: ProviderStore
    producer: Producer
    intake: PaymentIntake
    operations: OperationIntake
    replay: DeadLetterReplay
    reviews: ReviewStore
    disputes: DisputeLists
    switch: ProviderSwitch
    endpoints: WebhookEndpointStore
    deliveries: WebhookDeliveryStore
    endpoint_tests: EndpointTests
    masters: Masters | None
    sampler: Sampler
    doctor: Doctor


class Closable(Protocol):
    """Something that holds connections or tasks."""

    async def aclose(self) -> None: ...


Kept = TypeVar("Kept", bound=Closable)


@contextlib.asynccontextmanager
async def open_services(
    settings: Settings, *, database_url: str, redis_url: str, stream: Stream, now: Callable[[], datetime] = utc_now
) -> AsyncIterator[ConsoleServices]:
    """Open the services inside the block. Each store connects when it is first used."""
    async with contextlib.AsyncExitStack() as closing:

        def keep(one: Kept) -> Kept:
            """Return it, to be closed at the end of the block, before what was opened earlier."""
            closing.push_async_callback(one.aclose)
            return one

        redis = keep(connect(redis_url, timeout=REDIS_TIMEOUT))
        http = await closing.enter_async_context(aiohttp.ClientSession())
        payments = keep(
            PaymentStore(
                database_url,
                actor="console",
                lease=settings.lease,
                grace=settings.sweep_grace,
                late_look_ups=settings.late_look_ups,
                timeout=STATEMENT_TIMEOUT,
            )
        )
        producer = keep(Producer(redis, stream, max_length=settings.max_stream_length))
        intake = PaymentIntake(store=payments, producer=producer)
        operation_lists = keep(OperationLists(database_url, timeout=STATEMENT_TIMEOUT))
        operations = _open_operations(
            settings, database_url, redis, payments=intake, lists=operation_lists, closing=closing
        )
        providers = keep(ProviderStore(database_url, timeout=STATEMENT_TIMEOUT))
        endpoints = keep(WebhookEndpointStore(database_url, timeout=STATEMENT_TIMEOUT))
        overview = keep(Overview(database_url, timeout=STATEMENT_TIMEOUT))
        inspector, presence = Inspector(redis, stream, group=settings.group), Presence(redis, stream)
        observer = keep(
            Observer(
                inspector=inspector,
                presence=presence,
                overview=overview,
                http=http,
                names=NAMES,
                facts_s=FACTS_S,
                patience_s=PATIENCE_S,
            )
        )
        outages = Outages.none(now)
        guard = Guard(allow=settings.webhook_allow or (), deny_ports=settings.webhook_deny_ports or ())
        checked = CheckedConsole(settings, database=database_url, redis=redis_url)
        services = ConsoleServices(
            settings=settings,
            now=now,
            outages=outages,
            stream=stream,
            keys=keep(ApiKeyStore(database_url, timeout=STATEMENT_TIMEOUT)),
            audit=keep(ConsoleAuditStore(database_url, timeout=STATEMENT_TIMEOUT)),
            buckets=keep(TokenBuckets(redis, stream)),
            payments=payments,
            lists=keep(PaymentLists(database_url, timeout=STATEMENT_TIMEOUT)),
            by_metadata=keep(MetadataSearch(database_url, timeout=STATEMENT_TIMEOUT)),
            details=keep(PaymentDetailsStore(database_url, timeout=STATEMENT_TIMEOUT)),
            dead_letters=keep(DeadLetterStore(database_url, timeout=STATEMENT_TIMEOUT)),
            overview=overview,
            inspector=inspector,
            presence=presence,
            providers=providers,
            producer=producer,
            intake=intake,
            operations=operations,
            replay=DeadLetterReplay(intake=intake, notes=DeadLetters(redis, stream)),
            reviews=keep(ReviewStore(database_url, timeout=STATEMENT_TIMEOUT)),
            disputes=keep(DisputeLists(database_url, timeout=STATEMENT_TIMEOUT)),
            switch=ProviderSwitch(settings, providers),
            endpoints=endpoints,
            deliveries=keep(WebhookDeliveryStore(database_url, timeout=STATEMENT_TIMEOUT)),
            endpoint_tests=EndpointTests(endpoints, guard),
            masters=load_masters(settings.webhook_master),
            sampler=keep(Sampler(observer.observe, now=now, outages=outages)),
            doctor=Doctor(lambda: diagnose(checked), now=now),
        )
        yield services


def _open_operations(
    settings: Settings,
    database_url: str,
    redis: RedisClient,
    *,
    payments: PaymentIntake,
    lists: OperationLists,
    closing: contextlib.AsyncExitStack,
) -> OperationIntake:
    """Open what the console needs to request captures, voids and refunds, and to decide them."""
    store = OperationStore(
        database_url,
        actor="console",
        lease=settings.lease,
        grace=settings.sweep_grace,
        late_look_ups=settings.late_look_ups,
        timeout=STATEMENT_TIMEOUT,
    )
    stream = operations_stream(settings.operations_stream_name)
    producer = Producer(redis, stream, max_length=settings.max_stream_length)
    for one in (store, producer):
        closing.push_async_callback(one.aclose)

    def capabilities() -> Capabilities:
        try:
            return load_providers(settings).capabilities
        except SetupError:  # the page of the providers shows it; what a provider cannot do, the worker declines
            return NO_CAPABILITIES

    return OperationIntake(store=store, lists=lists, payments=payments, producer=producer, capabilities=capabilities)
