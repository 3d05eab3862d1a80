"""The middleware of every request: its id, its caller, its duration, and errors as problem+json.

Guarantee: no request of a client becomes a 500.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from okane.api import cross_site, error_problems, long_polling, request_body, request_ids
from okane.api.access import CALLER, Access
from okane.api.answer import NO_STORE
from okane.api.unknown_routes import RouteSuggestions
from okane.api_key import Scope
from okane.deadline import Deadline
from okane.logs import REQUEST_ID
from okane.metrics import OkaneMetrics
from okane.origin_guard import OriginGuard

log = structlog.get_logger("okane.api")

REQUEST_TIMEOUT_S = 10.0  # the longest that a request waits for a silent database

# The rest of such a body may still be coming: the connection is closed rather than read to its end.
_BODY_LEFT = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})


# By method and path: the scope that a key needs, None where a request needs no key. HEAD counts as GET.
Scopes = Mapping[tuple[str, str], Scope | None]
ExtraTime = Mapping[tuple[str, str], float]  # by method and path: seconds beyond those of any request
_NONE: ExtraTime = {}


def around_requests(
    metrics: OkaneMetrics,
    access: Access,
    scopes: Scopes,
    guard: OriginGuard | None = None,
    extra_time: ExtraTime = _NONE,
) -> Middleware:
    """Return the middleware of the API. A route that is not in `scopes` refuses every request. `guard` checks requests of
    browsers on a server without keys."""

    suggestions = RouteSuggestions(scopes)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started_s = time.perf_counter()
        request_id = request_ids.choose_id(request.headers.get("X-Request-Id"))
        REQUEST_ID.set(request_id)  # in the context of this request's task
        resource = request.match_info.route.resource
        rate_limit_headers: Mapping[str, str] = {}
        try:
            route = None if resource is None else (_as_get(request.method), resource.canonical)
            extra_s = extra_time.get(route, 0.0) if route is not None else 0.0
            wait_s = long_polling.preferred_wait_s(request.headers) or 0
            with Deadline(REQUEST_TIMEOUT_S + wait_s + extra_s):
                scope = None if route is None else scopes[route]
                if scope is not None:
                    if guard is not None:
                        cross_site.check_origin(guard, request)
                    caller = await access.admit(request.headers.getall("Authorization", ()), scope)
                    request[CALLER], rate_limit_headers = caller, caller.headers
                elif resource is None:  # a request that matches no route counts against its key too
                    rate_limit_headers = await access.count_unrouted(request.headers.getall("Authorization", ()))
                response = await handler(request)
        except ConnectionError:
            raise  # the client went away in the middle of its request: no answer can reach it
        except Exception as error:
            refusal = (
                suggestions.not_found(request.rel_url.raw_path)
                if resource is None and _is_404(error)
                else error_problems.problem_for(error)
            )
            refusal = request_body.name_form_type(refusal, request.headers.get("Content-Type"))
            response = refusal.answer(instance=request.path, request_id=request_id).response()
            if response.status in _BODY_LEFT:
                response.force_close()
        response.headers["X-Request-Id"] = request_id
        response.headers.setdefault("Cache-Control", NO_STORE)
        response.headers.update(rate_limit_headers)
        metrics.http_seconds.labels(
            resource.canonical if resource is not None else "unmatched", _method(request), str(response.status)
        ).observe(time.perf_counter() - started_s - request.get(long_polling.WAITED, 0.0))
        return response

    return middleware


def _is_404(error: Exception) -> bool:
    return isinstance(error, web.HTTPNotFound)


def _as_get(method: str) -> str:
    return "GET" if method == "HEAD" else method


def _method(request: web.Request) -> str:
    """Return the method as a label. A client may send any word, which must not become a series."""
    return request.method if request.method in {"GET", "HEAD", "POST", "PATCH", "DELETE"} else "other"
