"""The API of one process: its handlers, its fast path and its server.

The caller opens and closes the stores and clients that it uses.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType

import structlog

from okane.api.access import Access, AnonymousAccess
from okane.api.dead_letters import DeadLetterHandlers
from okane.api.disputes import DisputeHandlers
from okane.api.health import HealthHandlers
from okane.api.http.connection_limits import ConnectionLimits, ConnectionMetrics
from okane.api.http.fast_path import FastPath
from okane.api.http.server import serving
from okane.api.long_polling import LongPolling
from okane.api.operation_handlers import OperationHandlers, OperationServices
from okane.api.payment_creation import ONLY_HTTP
from okane.api.payment_handlers import PaymentHandlers
from okane.api.payment_methods import PaymentMethodHandlers
from okane.api.payment_queries import PaymentQueries
from okane.api.provider_notices import NoticeHandlers
from okane.api.routes import Handlers, build_api
from okane.api.webhook_services import WebhookServices
from okane.config import Settings
from okane.intake.accept import PaymentIntake
from okane.intake.dead_letter_replay import DeadLetterReplay
from okane.intake.load_shedding import LoadShedding
from okane.intake.provider_notices import NoticeIntake
from okane.metrics import OkaneMetrics
from okane.origin_guard import OriginGuard
from okane.providers.base import NoticeParser
from okane.providers.routing import Router
from okane.store import DeadLetterStore, PaymentLists, PaymentStore, PaymentWatch, ProviderEventStore
from okane.store.disputes import DisputeLists
from okane.store.payment_methods import PaymentMethodStore
from okane.tracing import OFF, Tracing
from streams import DeadLetters, Publisher

NO_PARSERS: Mapping[str, NoticeParser] = MappingProxyType({})

log = structlog.get_logger("okane.app")


class Api:
    """The API. Lists, long polling and dead letters have stores of their own, so that a long list delays no payment.

    `providers`: the names that a new payment may request. `router` chooses the candidates of those that request none.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        access: Access,
        store: PaymentStore,
        lists: PaymentLists,
        watch: PaymentWatch,
        dead_letters: DeadLetterStore,
        notes: DeadLetters,
        producer: Publisher,
        load_shedding: LoadShedding | None,
        metrics: OkaneMetrics,
        tracing: Tracing = OFF,
        provider_events: ProviderEventStore | None = None,
        operations: OperationServices,
        webhooks: WebhookServices,
        methods: PaymentMethodStore,
        disputes: DisputeLists,
        notice_parsers: Mapping[str, NoticeParser] = NO_PARSERS,
        providers: Collection[str] = ONLY_HTTP,
        router: Router | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self.leaving = asyncio.Event()
        operations = replace(operations, producer=tracing.for_operations.publisher(operations.producer))
        intake = PaymentIntake(
            store=store,
            row_writer=tracing.row_writer(store),
            producer=tracing.publisher(producer),
            load_shedding=load_shedding,
        )
        self.payments = PaymentHandlers(
            settings=settings,
            store=store,
            intake=intake,
            long_polling=LongPolling(watch=watch),
            metrics=metrics,
            providers=providers,
            methods=methods,
            router=router,
            capabilities=operations.capabilities,
        )
        handlers = Handlers(
            self.payments,
            PaymentQueries(store=store, lists=lists),
            DeadLetterHandlers(dead=dead_letters, replay=DeadLetterReplay(intake=intake, notes=notes)),
            HealthHandlers(store=store, leaving=self.leaving),
            NoticeHandlers(
                parsers=notice_parsers,
                intake=None
                if provider_events is None
                else NoticeIntake(events=provider_events, payments=intake, operations=operations.producer),
                metrics=metrics,
            ),
            operations=OperationHandlers(operations, payments=store, intake=intake),
            webhooks=webhooks,
            methods=PaymentMethodHandlers(methods=methods, providers=providers),
            disputes=DisputeHandlers(disputes),
        )
        self.event_waiting = handlers.webhook_events.waiting
        metrics.show_notice_zeros(providers)  # of those without webhooks, too: their panel says that there are none
        anonymous = isinstance(access, AnonymousAccess)
        guard = OriginGuard(settings.allowed_hosts or frozenset()) if anonymous else None
        self._app = build_api(handlers, metrics, access, guard=guard, tracer=tracing.requests)
        self._fast_path: FastPath | None = None
        if settings.fast_lane:
            self._fast_path = FastPath(self.payments.creation, metrics, access, guard=guard, tracer=tracing.requests)

    @contextlib.asynccontextmanager
    async def serving(self, limits: ConnectionLimits | None = None) -> AsyncIterator[str]:
        """Serve inside the block; yield the base URL. At its end let the requests in hand finish, for `drain` at most."""
        settings = self._settings
        async with serving(
            self._app,
            settings.host,
            settings.port,
            limits=limits or ConnectionLimits.of(settings),
            drain=settings.drain,
            metrics=ConnectionMetrics(self._metrics.registry),
            fast_path=self._fast_path,
            share_port=settings.share_port,
            leaving=self.leaving,
        ) as url:
            yield url

    async def leave(self, lame_duck: timedelta) -> None:
        """Go on serving for `lame_duck`, but not ready and with `Connection: close`, so that clients go elsewhere."""
        self.leaving.set()
        log.info("api_leaving", lame_duck_s=lame_duck.total_seconds())
        await asyncio.sleep(lame_duck.total_seconds())
