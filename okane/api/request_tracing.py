"""The span around a request, in both lanes. A client's `traceparent` is taken up; `traceresponse` says what became of it."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from okane.api.access import Access
from okane.api.answer import Answer
from okane.api.http.fast_path import FastConnection, FastPath, PendingRequest
from okane.api.http.plain_request import PlainRequest
from okane.api.payment_creation import PaymentCreation
from okane.metrics import OkaneMetrics
from okane.origin_guard import OriginGuard
from okane.store import NewPayment
from okane.tracing import RequestTracer

TRACEPARENT, TRACERESPONSE = "traceparent", "traceresponse"
# PendingRequest every few seconds by whoever keeps the process alive: nobody wants to see that.
_PROBES = frozenset({"/v1/health", "/health", "/healthz", "/readyz"})


class TracedFastPath(FastPath):
    """The fast lane, with a span around each request."""

    def __init__(
        self,
        creation: PaymentCreation,
        metrics: OkaneMetrics,
        access: Access,
        tracer: RequestTracer,
        guard: OriginGuard | None = None,
    ) -> None:
        super().__init__(creation, metrics, access, guard)
        self._tracer = tracer

    def _pending(self, connection: FastConnection, request: PlainRequest) -> PendingRequest:
        pending = super()._pending(connection, request)
        pending.span = self._tracer.request("POST", pending.path, pending.path, request.values(TRACEPARENT))
        return pending

    async def _answer(self, batch: list[tuple[PendingRequest, NewPayment]]) -> None:
        with self._tracer.batch([(pending.span, new) for pending, new in batch if pending.span is not None]):
            await super()._answer(batch)

    def _reply(self, pending: PendingRequest, answer: Answer) -> None:
        assert pending.span is not None
        with pending.span as span:
            span.answered(answer.status.value)
            headers = {**answer.headers, **_told(span.traceparent)}
            super()._reply(pending, Answer(answer.status, answer.body, headers, answer.content_type))

    def _give_up(self, pending: PendingRequest) -> None:
        if pending.span is not None and not pending.answered:
            pending.span.abandon()
        super()._give_up(pending)


def around_requests(tracer: RequestTracer) -> Middleware:
    """The same for the ordinary lane. Outside of the other middleware: what that observes belongs to the span."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = None if resource is None else resource.canonical
        if route in _PROBES:
            return await handler(request)
        with tracer.request(request.method, route, request.path, request.headers.getall(TRACEPARENT, ())) as span:
            response = await handler(request)
            span.answered(response.status)
            response.headers.update(_told(span.traceparent))
            return response

    return middleware


def _told(traceparent: str) -> dict[str, str]:
    return {TRACERESPONSE: traceparent} if traceparent else {}
