"""The API, served in this process over the session's servers, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_network
from typing import Any
from uuid import uuid4

import aiohttp
from prometheus_client import CollectorRegistry

from okane.api import api
from okane.api.access import Access, AnonymousAccess
from okane.api.api import NO_PARSERS
from okane.api.event_waiting import EventWaiting
from okane.api.http.connection_limits import ConnectionLimits
from okane.api.long_polling import LongPolling
from okane.api.operation_handlers import OperationServices
from okane.api.payment_creation import ONLY_HTTP, PaymentCreation
from okane.api.webhook_services import WebhookServices
from okane.config import Settings
from okane.http.guard import Guard
from okane.intake.load_shedding import LoadShedding
from okane.lanes import operations_stream, payments_stream
from okane.metrics import OkaneMetrics
from okane.providers.base import NoticeParser
from okane.providers.capabilities import ALL, Capabilities
from okane.providers.routing import Router
from okane.store import DeadLetterStore, PaymentLists, PaymentStore, PaymentWatch, ProviderEventStore
from okane.store.disputes import DisputeLists
from okane.store.operations import OperationLists, OperationStore
from okane.store.payment_methods import PaymentMethodStore
from okane.webhooks.keys import Masters
from streams import DeadLetters, Producer, Stream, connect
from tests.contract.answers import CheckedResponse

MASTER = b"a master of webhooks in tests, 42 bytes"
LIMITS = ConnectionLimits(connections=1000, head_timeout_s=60.0, keep_alive_timeout_s=60.0, write_timeout_s=60.0)


@dataclass(frozen=True, slots=True)
class Api:
    """A served API, a client for it, and its parts."""

    client: aiohttp.ClientSession
    store: PaymentStore
    stream: Stream
    metrics: OkaneMetrics
    long_polling: LongPolling
    event_waiting: EventWaiting
    creation: PaymentCreation
    leaving: asyncio.Event
    url: str
    operations: OperationServices
    operations_stream: Stream


async def serve_api(
    database_url: str,
    redis_url: str,
    access: Access | None = None,
    load_shedding: LoadShedding | None = None,
    notice_parsers: Mapping[str, NoticeParser] = NO_PARSERS,
    providers: Collection[str] = ONLY_HTTP,
    default_providers: Sequence[str] | None = None,
    router: Router | None = None,
    webhooks: WebhookServices | None = None,
    capabilities: Capabilities | None = None,
    **changed: Any,
) -> AsyncIterator[Api]:
    """Serve the API over these two servers, on a stream of its own."""
    settings = Settings(_env_file=None, **{"port": 0, "drain": timedelta(seconds=1), **changed})
    capabilities = dict.fromkeys(providers, ALL) if capabilities is None else capabilities
    metrics = OkaneMetrics(CollectorRegistry())
    stream = payments_stream(f"test-{uuid4()}")
    redis = connect(redis_url, timeout=timedelta(seconds=2))
    store = PaymentStore(
        database_url, actor="api", lease=settings.lease, grace=settings.sweep_grace, timeout=timedelta(seconds=3)
    )
    producer = Producer(redis, stream)
    events = ProviderEventStore(database_url, grace=settings.sweep_grace, timeout=timedelta(seconds=3))
    lists, watch, dead_letters = PaymentLists(database_url), PaymentWatch(database_url), DeadLetterStore(database_url)
    webhooks = webhooks or WebhookServices.of(
        database_url,
        masters=Masters((MASTER,)),
        guard=Guard(allow=[ip_network("127.0.0.0/8")]),
    )
    methods, disputes = PaymentMethodStore(database_url), DisputeLists(database_url)
    operations_queue = operations_stream(f"{stream.name}-operations")
    operations_producer = Producer(redis, operations_queue)
    operations = OperationServices(
        store=OperationStore(
            database_url, actor="api", lease=settings.lease, grace=settings.sweep_grace, timeout=timedelta(seconds=3)
        ),
        lists=OperationLists(database_url),
        producer=operations_producer,
        capabilities=capabilities,
    )
    product = api.Api(
        settings,
        access=access or AnonymousAccess(),
        store=store,
        lists=lists,
        watch=watch,
        dead_letters=dead_letters,
        notes=DeadLetters(redis, stream),
        producer=producer,
        load_shedding=load_shedding,
        metrics=metrics,
        provider_events=events,
        operations=operations,
        webhooks=webhooks,
        methods=methods,
        disputes=disputes,
        notice_parsers=notice_parsers,
        providers=providers,
        router=router or Router((), defaults=default_providers or sorted(providers), capabilities=capabilities),
    )
    payments = product.payments
    async with (
        product.serving(LIMITS) as url,
        aiohttp.ClientSession(url, response_class=CheckedResponse) as client,
    ):
        yield Api(
            client,
            store,
            stream,
            metrics,
            payments.long_polling,
            product.event_waiting,
            payments.creation,
            product.leaving,
            url,
            operations,
            operations_queue,
        )
    await operations.store.aclose()
    await operations.lists.aclose()
    await operations_producer.aclose()
    for opened in (producer, store, events, lists, watch, dead_letters, webhooks, methods, disputes, redis):
        await opened.aclose()
