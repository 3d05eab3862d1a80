"""The route table of the API, and the application that serves it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from okane.api import currency_list, middleware, request_tracing
from okane.api.access import Access
from okane.api.batch import BatchHandler
from okane.api.contract import dispute_operations, method_operations, operations, refund_operations, webhook_operations
from okane.api.contract.description_handlers import DescriptionHandlers
from okane.api.contract.operations import Endpoint
from okane.api.dead_letters import DeadLetterHandlers
from okane.api.disputes import DisputeHandlers
from okane.api.endpoint_deliveries import EndpointDeliveries
from okane.api.events import EventHandlers
from okane.api.health import HealthHandlers
from okane.api.middleware import ExtraTime, Scopes
from okane.api.operation_handlers import OperationHandlers
from okane.api.payment_creation import MAX_BODY_BYTES
from okane.api.payment_handlers import PaymentHandlers
from okane.api.payment_methods import PaymentMethodHandlers
from okane.api.payment_queries import PaymentQueries
from okane.api.provider_notices import NoticeHandlers
from okane.api.webhook_actions import EndpointActions
from okane.api.webhook_endpoints import EndpointHandlers
from okane.api.webhook_requests import MAX_TIMEOUT_S
from okane.api.webhook_services import WebhookServices
from okane.api_key import Scope
from okane.metrics import OkaneMetrics
from okane.origin_guard import OriginGuard
from okane.tracing import RequestTracer
from okane.webhooks.confirmation import CONFIRM_S
from okane.webhooks.endpoint_tests import EndpointTests


class Handlers:
    """The handlers of all routes."""

    def __init__(
        self,
        payments: PaymentHandlers,
        queries: PaymentQueries,
        dead_letters: DeadLetterHandlers,
        health: HealthHandlers,
        notices: NoticeHandlers,
        *,
        methods: PaymentMethodHandlers,
        disputes: DisputeHandlers,
        operations: OperationHandlers,
        webhooks: WebhookServices,
    ) -> None:
        self.payments = payments
        self.queries = queries
        self.dead_letters = dead_letters
        self.health = health
        self.notices = notices
        self.methods = methods
        self.disputes = disputes
        self.operations = operations
        endpoint_tests = EndpointTests(webhooks.endpoints, webhooks.guard)
        self.endpoints = EndpointHandlers(webhooks, endpoint_tests)
        self.actions = EndpointActions(webhooks, endpoint_tests)
        self.endpoint_deliveries = EndpointDeliveries(webhooks)
        self.webhook_events = EventHandlers(webhooks)
        self.batch = BatchHandler(creation=payments.creation)
        self.description = DescriptionHandlers(ROUTES)


@dataclass(frozen=True, slots=True)
class Route(Endpoint):
    """An endpoint with its handler. aiohttp matches `pattern` where that is narrower than the path."""

    handler: Callable[[Handlers], Handler]
    pattern: str | None = None
    extra_s: float = 0.0  # that a request may take beyond the time of any request


_READ, _WRITE, _OPERATE, _WEBHOOKS = Scope.READ, Scope.WRITE, Scope.OPERATE, Scope.WEBHOOKS
_METHODS = "/v1/payment-methods"
_METHOD = f"{_METHODS}/{{payment_method_id}}"
_REFUNDS = "/v1/refunds"
_REFUND = f"{_REFUNDS}/{{refund_id}}"
_ENDPOINTS = "/v1/webhook-endpoints"
_ENDPOINT = f"{_ENDPOINTS}/{{endpoint_id}}"
_EVENT = "/v1/events/{event_id}"
_NOT_THE_BATCH = "/v1/payments/{payment_id:(?!batch$)[^/]+}"  # GET of a batch is a 405

# In the order of the OpenAPI document.
ROUTES: Sequence[Route] = (
    Route("POST", "/v1/payments", _WRITE, operations.CREATE_PAYMENT, lambda to: to.payments.creator("/v1/payments")),
    Route("POST", "/v1/payments/batch", _WRITE, operations.CREATE_PAYMENTS, lambda to: to.batch.create),
    Route("GET", "/v1/payments", _READ, operations.LIST_PAYMENTS, lambda to: to.queries.payments),
    Route(
        "GET", "/v1/payments/{payment_id}", _READ, operations.GET_PAYMENT, lambda to: to.payments.show, _NOT_THE_BATCH
    ),
    Route("GET", "/v1/payments/{payment_id}/events", _READ, operations.LIST_EVENTS, lambda to: to.queries.events),
    Route("GET", "/v1/payments/{payment_id}/attempts", _READ, operations.LIST_ATTEMPTS, lambda to: to.queries.attempts),
    Route("POST", "/v1/payments/{payment_id}/retry", _WRITE, operations.RETRY_PAYMENT, lambda to: to.payments.retry),
    Route(
        "POST",
        "/v1/payments/{payment_id}/cancel",
        _WRITE,
        operations.CANCEL_PAYMENT,
        lambda to: to.operations.cancel_payment,
    ),
    Route(
        "POST",
        "/v1/payments/{payment_id}/capture",
        _WRITE,
        refund_operations.CAPTURE_PAYMENT,
        lambda to: to.operations.capture,
    ),
    Route(
        "GET",
        "/v1/payments/{payment_id}/operations",
        _READ,
        refund_operations.LIST_OPERATIONS,
        lambda to: to.operations.of_payment,
    ),
    Route(
        "POST",
        "/v1/payments/{payment_id}/resolve",
        _OPERATE,
        operations.RESOLVE_PAYMENT,
        lambda to: to.payments.resolve,
    ),
    Route("POST", _METHODS, _WRITE, method_operations.CREATE_METHOD, lambda to: to.methods.create),
    Route("GET", _METHODS, _READ, method_operations.LIST_METHODS, lambda to: to.methods.list),
    Route("GET", _METHOD, _READ, method_operations.GET_METHOD, lambda to: to.methods.show),
    Route("DELETE", _METHOD, _WRITE, method_operations.DELETE_METHOD, lambda to: to.methods.delete),
    Route("GET", "/v1/disputes", _READ, dispute_operations.LIST_DISPUTES, lambda to: to.disputes.list),
    Route("GET", "/v1/disputes/{dispute_id}", _READ, dispute_operations.GET_DISPUTE, lambda to: to.disputes.show),
    Route("POST", _REFUNDS, _WRITE, refund_operations.CREATE_REFUND, lambda to: to.operations.refund),
    Route("GET", _REFUNDS, _READ, refund_operations.LIST_REFUNDS, lambda to: to.operations.refunds),
    Route("GET", _REFUND, _READ, refund_operations.GET_REFUND, lambda to: to.operations.show_refund),
    Route("POST", f"{_REFUND}/cancel", _WRITE, refund_operations.CANCEL_REFUND, lambda to: to.operations.cancel_refund),
    Route("POST", f"{_REFUND}/retry", _WRITE, refund_operations.RETRY_REFUND, lambda to: to.operations.retry_refund),
    Route(
        "POST",
        f"{_REFUND}/resolve",
        _OPERATE,
        refund_operations.RESOLVE_REFUND,
        lambda to: to.operations.resolve_refund,
    ),
    Route("GET", "/v1/currencies", None, operations.LIST_CURRENCIES, lambda _to: currency_list.show),
    Route("GET", "/v1/dead-letters", _READ, operations.LIST_DEAD_LETTERS, lambda to: to.dead_letters.list),
    Route(
        "POST", "/v1/dead-letters/replay", _OPERATE, operations.REPLAY_DEAD_LETTERS, lambda to: to.dead_letters.replay
    ),
    Route("POST", _ENDPOINTS, _WEBHOOKS, webhook_operations.CREATE_ENDPOINT, lambda to: to.endpoints.create),
    Route("GET", _ENDPOINTS, _READ, webhook_operations.LIST_ENDPOINTS, lambda to: to.endpoints.list),
    Route("GET", _ENDPOINT, _READ, webhook_operations.GET_ENDPOINT, lambda to: to.endpoints.show),
    Route("PATCH", _ENDPOINT, _WEBHOOKS, webhook_operations.CHANGE_ENDPOINT, lambda to: to.endpoints.change),
    Route(
        "DELETE",
        _ENDPOINT,
        _WEBHOOKS,
        webhook_operations.DELETE_ENDPOINT,
        lambda to: to.endpoints.delete,
        extra_s=CONFIRM_S,
    ),
    Route(
        "POST",
        f"{_ENDPOINT}/rotate",
        _WEBHOOKS,
        webhook_operations.ROTATE_ENDPOINT,
        lambda to: to.actions.rotate,
        extra_s=CONFIRM_S,
    ),
    Route("GET", f"{_ENDPOINT}/secret", _OPERATE, webhook_operations.GET_SECRET, lambda to: to.actions.secret),
    Route(
        "POST",
        f"{_ENDPOINT}/test",
        _WEBHOOKS,
        webhook_operations.TEST_ENDPOINT,
        lambda to: to.actions.test,
        extra_s=MAX_TIMEOUT_S,
    ),
    Route("POST", f"{_ENDPOINT}/enable", _WEBHOOKS, webhook_operations.ENABLE_ENDPOINT, lambda to: to.actions.enable),
    Route(
        "POST",
        f"{_ENDPOINT}/disable",
        _WEBHOOKS,
        webhook_operations.DISABLE_ENDPOINT,
        lambda to: to.actions.disable,
        extra_s=CONFIRM_S,
    ),
    Route(
        "POST", f"{_ENDPOINT}/recover", _WEBHOOKS, webhook_operations.RECOVER_ENDPOINT, lambda to: to.actions.recover
    ),
    Route(
        "GET",
        f"{_ENDPOINT}/deliveries",
        _READ,
        webhook_operations.LIST_ENDPOINT_DELIVERIES,
        lambda to: to.endpoint_deliveries.list,
    ),
    Route("GET", "/v1/events", _READ, webhook_operations.LIST_WEBHOOK_EVENTS, lambda to: to.webhook_events.list),
    Route("GET", _EVENT, _READ, webhook_operations.GET_WEBHOOK_EVENT, lambda to: to.webhook_events.show),
    Route(
        "GET",
        f"{_EVENT}/deliveries",
        _READ,
        webhook_operations.LIST_DELIVERIES,
        lambda to: to.webhook_events.deliveries,
    ),
    Route(
        "POST",
        f"{_EVENT}/redeliver",
        _WEBHOOKS,
        webhook_operations.REDELIVER_EVENT,
        lambda to: to.webhook_events.redeliver,
    ),
    Route("POST", "/v1/providers/{provider}/webhook", None, operations.TAKE_NOTICE, lambda to: to.notices.take),
    Route("GET", "/v1/health", None, operations.HEALTH_CHECK, lambda to: to.health.health),
    Route("GET", "/healthz", None, operations.HEALTHZ, lambda to: to.health.health),
    Route("GET", "/readyz", None, operations.READYZ, lambda to: to.health.ready),
    Route("GET", "/v1/openapi.json", None, operations.OPENAPI_DOCUMENT, lambda to: to.description.openapi),
    Route("GET", "/docs", None, operations.DOCS_PAGE, lambda to: to.description.docs),
    # As the two systems before this one had them.
    Route("POST", "/payments", _WRITE, operations.CREATE_PAYMENT_OKANE, lambda to: to.payments.creator("/payments")),
    Route("GET", "/payments/{payment_id}", _READ, operations.GET_PAYMENT_OLDER, lambda to: to.payments.show),
    Route("POST", "/payments/{payment_id}/retry", _WRITE, operations.RETRY_PAYMENT_OKANE, lambda to: to.payments.retry),
    Route("GET", "/health", None, operations.HEALTH_CHECK_OKANE, lambda to: to.health.health),
    Route("POST", "/pay", _WRITE, operations.PAY, lambda to: to.payments.creator("/pay")),
)

# By method and path: the scope that a key needs, None where a request needs no key.
SCOPES: Scopes = {(route.method, route.path): route.scope for route in ROUTES}
EXTRA_S: ExtraTime = {(route.method, route.path): route.extra_s for route in ROUTES if route.extra_s}


def build_api(
    handlers: Handlers,
    metrics: OkaneMetrics,
    access: Access,
    *,
    guard: OriginGuard | None = None,
    tracer: RequestTracer | None = None,
) -> web.Application:
    """Build the application. Its caller closes what the handlers use."""
    around = [middleware.around_requests(metrics, access, SCOPES, guard, EXTRA_S)]
    if tracer is not None:
        around.insert(0, request_tracing.around_requests(tracer))
    app = web.Application(middlewares=around, client_max_size=MAX_BODY_BYTES)
    app.on_shutdown.append(handlers.payments.long_polling.aclose)  # before the requests in hand are waited for
    app.on_shutdown.append(handlers.webhook_events.waiting.aclose)
    add = {
        "GET": app.router.add_get,
        "POST": app.router.add_post,
        "PATCH": app.router.add_patch,
        "DELETE": app.router.add_delete,
    }
    for route in ROUTES:
        add[route.method](route.pattern or route.path, route.handler(handlers))
    return app
