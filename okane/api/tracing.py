"""The span around a request, in both lanes. A client's `traceparent` is taken up; `traceresponse` says what became of it."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from okane.api.access import Access
from okane.api.answers import Answer
from okane.api.creating import Creating
from okane.api.http.fast_path import Asked, FastConnection, FastLane
from okane.api.http.plain import PlainRequest
from okane.metrics import OkaneMetrics
from okane.origin_guard import OriginGuard
from okane.store import NewPayment
from okane.tracing import RequestTracer

TRACEPARENT, TRACERESPONSE = "traceparent", "traceresponse"
# Asked every few seconds by whoever keeps the process alive: nobody wants to see that.
_PROBES = frozenset({"/v1/health", "/health", "/healthz", "/readyz"})


class TracedLane(FastLane):
    """The fast lane, with a span around each request."""

    def __init__(
        self,
        creating: Creating,
        metrics: OkaneMetrics,
        access: Access,
        tracer: RequestTracer,
        guard: OriginGuard | None = None,
    ) -> None:
        super().__init__(creating, metrics, access, guard)
        self._tracer = tracer

    def _asked(self, connection: FastConnection, request: PlainRequest) -> Asked:
        asked = super()._asked(connection, request)
        asked.span = self._tracer.request("POST", asked.path, asked.path, request.values(TRACEPARENT))
        return asked

    async def _answer(self, batch: list[tuple[Asked, NewPayment]]) -> None:
        with self._tracer.together([(asked.span, new) for asked, new in batch if asked.span is not None]):
            await super()._answer(batch)

    def _reply(self, asked: Asked, answer: Answer) -> None:
        assert asked.span is not None
        with asked.span as span:
            span.answered(answer.status.value)
            headers = {**answer.headers, **_told(span.traceparent)}
            super()._reply(asked, Answer(answer.status, answer.body, headers, answer.content_type))

    def _give_up(self, asked: Asked) -> None:
        if asked.span is not None and not asked.answered:
            asked.span.given_up()
        super()._give_up(asked)


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
