"""Around every request: its id, its duration, and errors as problem+json. Nothing a client sends becomes a 500."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from aiohttp.web import RequestPayloadError

from okane.api import idempotency
from okane.api.problems import Problem, malformed
from okane.errors import IdempotencyKeyReused, PaymentNotFound, StatusConflict, StoreUnavailable
from okane.metrics import OkaneMetrics

log = structlog.get_logger("okane.api")

REQUEST_TIMEOUT_S = 10.0  # a database that is silent: nobody waits longer than this

_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)

_CODES = {
    HTTPStatus.NOT_FOUND: "route_not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "body_too_large",
}


def around_requests(metrics: OkaneMetrics) -> Middleware:
    """The one middleware of the API."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started_s = time.perf_counter()
        sent = request.headers.get("X-Request-Id", "")
        request_id = sent if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    response = await handler(request)
            except ConnectionError:
                raise  # the client went away in the middle of its request: there is nobody to answer
            except Exception as error:
                response = _problem(error).response(instance=request.path, request_id=request_id)
        response.headers["X-Request-Id"] = request_id
        resource = request.match_info.route.resource
        metrics.http_seconds.labels(
            resource.canonical if resource is not None else "unmatched", _method(request), response.status
        ).observe(time.perf_counter() - started_s)
        return response

    return middleware


def _method(request: web.Request) -> str:
    """The method as a label: a client may send any word, a metric must not keep it."""
    return request.method if request.method in {"GET", "HEAD", "POST"} else "other"


def _problem(error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case web.HTTPException():
            return _from_http(error)
        case IdempotencyKeyReused(payment_id=payment_id):
            return idempotency.reused(str(payment_id))
        case PaymentNotFound():
            return Problem(HTTPStatus.NOT_FOUND, "payment_not_found", f"there is no payment {error}")
        case StatusConflict():
            return Problem(HTTPStatus.CONFLICT, "status_conflict", str(error), extra={"payment_status": error.status})
        case RequestPayloadError():
            return malformed("body_unreadable", f"the body broke off or is not coded as it says: {error}")
        case StoreUnavailable() | TimeoutError():
            return Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "store_unavailable",
                "the database does not answer; repeat the request with the same idempotency key",
                retryable=True,
                headers={"Retry-After": "1"},
            )
        case _:
            log.error("request_failed", exc_info=error)
            return Problem(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "internal",
                "a bug on our side, logged under this request's id; repeat the request with the same idempotency key",
                retryable=True,
            )


def _from_http(error: web.HTTPException) -> Problem:
    """aiohttp's own refusals, in our words; the Allow header of a 405 stays."""
    status = HTTPStatus(error.status)
    code = _CODES.get(status, status.name.lower())
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return Problem(status, code, error.reason or status.phrase, headers=headers)
