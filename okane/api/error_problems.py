"""The problem that a client gets for an exception: the one mapping from errors of intake, store and aiohttp to answers."""

from __future__ import annotations

from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.web import RequestPayloadError

from okane.api import idempotency_key
from okane.api.problems import Problem, from_http, internal, malformed
from okane.api.unknown_routes import not_allowed
from okane.errors import (
    AccountBusy,
    IdempotencyKeyReused,
    Overloaded,
    PaymentNotFound,
    StatusConflict,
    StoreUnavailable,
    TooManyTests,
)

log = structlog.get_logger("okane.api")

OVERLOADED_RETRY_AFTER_S = "5"


def problem_for(error: BaseException) -> Problem:
    """Return the problem for an exception. An unforeseen one is logged, and is a 500."""
    match error:
        case Problem():
            return error
        case web.HTTPMethodNotAllowed():
            return not_allowed(error)
        case web.HTTPException():
            return from_http(error)
        case IdempotencyKeyReused(payment_id=payment_id):
            return idempotency_key.key_reused(str(payment_id))
        case PaymentNotFound():
            return Problem(HTTPStatus.NOT_FOUND, "payment_not_found", f"there is no payment {error}")
        case StatusConflict():
            return Problem(HTTPStatus.CONFLICT, "status_conflict", str(error), extra={"payment_status": error.status})
        case Overloaded():
            return Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "overloaded",
                "payments wait too long: no new ones are accepted; repeat the request with the same idempotency key",
                retryable=True,
                headers={"Retry-After": OVERLOADED_RETRY_AFTER_S},
            )
        case AccountBusy():
            return Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too_many_reads",
                "this account has reached its limit of lists that are read or wait at the same time: send fewer at a time",
                retryable=True,
                headers={"Retry-After": "1"},
            )
        case TooManyTests():
            headers = {"Retry-After": "1"}
            return Problem(HTTPStatus.TOO_MANY_REQUESTS, "too_many_tests", str(error), retryable=True, headers=headers)
        case RequestPayloadError():
            return malformed("body_unreadable", f"the body broke off, or is not coded as its headers state: {error}")
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
            return internal()
