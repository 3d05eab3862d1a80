"""The routes of the API, and the application that serves them."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from okane.api import currency_list, middleware, request_tracing
from okane.api.access import Access
from okane.api.batch import BatchHandler
from okane.api.contract.description_handlers import DescriptionHandlers
from okane.api.dead_letters import DeadLetterHandlers
from okane.api.middleware import Scopes
from okane.api.payment_creation import MAX_BODY_BYTES, RENDERERS
from okane.api.payment_handlers import PaymentHandlers
from okane.api.payment_queries import PaymentQueries
from okane.api_key import Scope
from okane.metrics import OkaneMetrics
from okane.origin_guard import OriginGuard
from okane.tracing import RequestTracer

# What a key must be allowed to for each route; None: a route for everybody. One that is missing here lets nobody in.
SCOPES: Scopes = {
    ("POST", "/v1/payments"): Scope.WRITE,
    ("POST", "/v1/payments/batch"): Scope.WRITE,
    ("GET", "/v1/payments"): Scope.READ,
    ("GET", "/v1/payments/{payment_id}"): Scope.READ,
    ("GET", "/v1/payments/{payment_id}/events"): Scope.READ,
    ("GET", "/v1/payments/{payment_id}/attempts"): Scope.READ,
    ("POST", "/v1/payments/{payment_id}/retry"): Scope.WRITE,
    ("POST", "/v1/payments/{payment_id}/cancel"): Scope.WRITE,
    ("POST", "/v1/payments/{payment_id}/resolve"): Scope.OPERATE,
    ("GET", "/v1/dead-letters"): Scope.READ,
    ("POST", "/v1/dead-letters/replay"): Scope.OPERATE,
    ("GET", "/v1/currencies"): None,
    ("GET", "/v1/health"): None,
    ("GET", "/v1/openapi.json"): None,
    ("GET", "/docs"): None,
    ("POST", "/payments"): Scope.WRITE,
    ("GET", "/payments/{payment_id}"): Scope.READ,
    ("POST", "/payments/{payment_id}/retry"): Scope.WRITE,
    ("POST", "/pay"): Scope.WRITE,
    ("GET", "/health"): None,
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
}


@dataclass(frozen=True, slots=True)
class Handlers:
    """Who answers."""

    handlers: PaymentHandlers
    queries: PaymentQueries
    dead: DeadLetterHandlers


def build_api(
    routes: Handlers,
    metrics: OkaneMetrics,
    access: Access,
    *,
    guard: OriginGuard | None = None,
    tracer: RequestTracer | None = None,
) -> web.Application:
    """Build the application. Its caller closes what the handlers use."""
    around = [middleware.around_requests(metrics, access, SCOPES, guard)]
    if tracer is not None:
        around.insert(0, request_tracing.around_requests(tracer))
    app = web.Application(middlewares=around, client_max_size=MAX_BODY_BYTES)
    handlers, queries, dead = routes.handlers, routes.queries, routes.dead
    app.on_shutdown.append(handlers.waiting.aclose)  # before the requests in hand are waited for
    for path, renderer in RENDERERS.items():
        app.router.add_post(path, handlers.creates(renderer))
    app.router.add_post("/v1/payments/batch", BatchHandler(creation=handlers.creation).create)
    app.router.add_get("/v1/payments", queries.payments)
    app.router.add_get("/v1/payments/{payment_id:(?!batch$)[^/]+}", handlers.show)  # there is no GET of a batch
    app.router.add_get("/v1/payments/{payment_id}/events", queries.events)
    app.router.add_get("/v1/payments/{payment_id}/attempts", queries.attempts)
    app.router.add_post("/v1/payments/{payment_id}/retry", handlers.retry)
    app.router.add_post("/v1/payments/{payment_id}/cancel", handlers.cancel)
    app.router.add_post("/v1/payments/{payment_id}/resolve", handlers.resolve)
    app.router.add_get("/v1/dead-letters", dead.list)
    app.router.add_post("/v1/dead-letters/replay", dead.replay)
    app.router.add_get("/v1/currencies", currency_list.show)
    app.router.add_get("/v1/health", handlers.health)
    description = DescriptionHandlers(SCOPES)
    app.router.add_get("/v1/openapi.json", description.openapi)
    app.router.add_get("/docs", description.docs)
    # As the two systems before us had them.
    app.router.add_get("/payments/{payment_id}", handlers.show)
    app.router.add_post("/payments/{payment_id}/retry", handlers.retry)
    app.router.add_get("/health", handlers.health)
    app.router.add_get("/healthz", handlers.health)
    app.router.add_get("/readyz", handlers.ready)
    return app
