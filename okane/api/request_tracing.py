"""The span around a request that aiohttp handles, and the headers of the W3C Trace Context: a client's `traceparent` is taken
up, and `traceresponse` names the trace of the answer."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from okane.tracing import RequestTracer

TRACEPARENT, TRACERESPONSE = "traceparent", "traceresponse"
# Probes come every few seconds, and would bury the other traces.
_PROBES = frozenset({"/v1/health", "/health", "/healthz", "/readyz"})


def around_requests(tracer: RequestTracer) -> Middleware:
    """Return the middleware that traces. It goes around the other middleware: what that observes belongs to the span."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = None if resource is None else resource.canonical
        if route in _PROBES:
            return await handler(request)
        with tracer.request(request.method, route, request.path, request.headers.getall(TRACEPARENT, ())) as span:
            response = await handler(request)
            span.answered(response.status)
            response.headers.update(trace_response(span.traceparent))
            return response

    return middleware


def trace_response(traceparent: str) -> Mapping[str, str]:
    """Return the headers that name the trace of an answer; none if it has none."""
    return {TRACERESPONSE: traceparent} if traceparent else {}
