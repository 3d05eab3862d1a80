"""The routes of the API, and the application that serves them."""

from __future__ import annotations

from aiohttp import web

from okane.api.batch import Batch
from okane.api.creating import MAX_BODY_BYTES, SPELLINGS
from okane.api.dead_letters import DeadLetterRoutes
from okane.api.handlers import Handlers
from okane.api.middleware import around_requests
from okane.api.reading import Reading
from okane.metrics import OkaneMetrics


def build_api(handlers: Handlers, reading: Reading, dead: DeadLetterRoutes, metrics: OkaneMetrics) -> web.Application:
    """The application; whoever runs it closes what the handlers use."""
    app = web.Application(middlewares=[around_requests(metrics)], client_max_size=MAX_BODY_BYTES)
    app.on_shutdown.append(handlers.waiting.aclose)  # before the requests in hand are waited for
    for path, spelling in SPELLINGS.items():
        app.router.add_post(path, handlers.creates(spelling))
    app.router.add_post("/v1/payments/batch", Batch(creating=handlers.creating).create)
    app.router.add_get("/v1/payments", reading.payments)
    app.router.add_get("/v1/payments/{payment_id}", handlers.show)
    app.router.add_get("/v1/payments/{payment_id}/events", reading.events)
    app.router.add_get("/v1/payments/{payment_id}/attempts", reading.attempts)
    app.router.add_post("/v1/payments/{payment_id}/retry", handlers.retry)
    app.router.add_post("/v1/payments/{payment_id}/cancel", handlers.cancel)
    app.router.add_get("/v1/dead-letters", dead.list)
    app.router.add_post("/v1/dead-letters/replay", dead.replay)
    app.router.add_get("/v1/health", handlers.health)
    # As the two systems before us had them.
    app.router.add_get("/payments/{payment_id}", handlers.show)
    app.router.add_post("/payments/{payment_id}/retry", handlers.retry)
    app.router.add_get("/health", handlers.health)
    app.router.add_get("/healthz", handlers.health)
    app.router.add_get("/readyz", handlers.ready)
    return app
