"""The problem that a client gets for an exception: the one mapping from errors of intake, store and aiohttp to answers."""

from __future__ import annotations

from collections.abc import Mapping
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
    OperationNotFound,
    OperationRefused,
    Overloaded,
    PaymentArchived,
    PaymentNotFound,
    RefusalCode,
    StatusConflict,
    StoreUnavailable,
    TooManyTests,
)

log = structlog.get_logger("okane.api")

OVERLOADED_RETRY_AFTER_S = "5"

# The status of a payment refuses an operation with a 409, as it refuses a retry; what the request asks for, with a 422.
_REFUSED: Mapping[RefusalCode, HTTPStatus] = {
    "capture_exceeds_authorized": HTTPStatus.UNPROCESSABLE_ENTITY,
    "refund_exceeds_captured": HTTPStatus.UNPROCESSABLE_ENTITY,
    "currency_mismatch": HTTPStatus.UNPROCESSABLE_ENTITY,
    "unsupported_by_provider": HTTPStatus.UNPROCESSABLE_ENTITY,
    "payment_not_authorized": HTTPStatus.CONFLICT,
    "payment_not_captured": HTTPStatus.CONFLICT,
    "operation_in_progress": HTTPStatus.CONFLICT,
}


def _not_found(error: PaymentNotFound) -> Problem:
    if isinstance(error, PaymentArchived):
        return Problem(HTTPStatus.GONE, "archived", f"payments of the time of {error} were archived")
    return Problem(HTTPStatus.NOT_FOUND, "payment_not_found", f"there is no payment {error}")


def problem_for(error: BaseException) -> Problem:
    """Return the problem for an exception. An unforeseen one is logged, and is a 500."""
    match error:
        case Problem():
            return error
        case web.HTTPMethodNotAllowed():
            return not_allowed(error)
        case web.HTTPException():
            return from_http(error)
        case IdempotencyKeyReused():
            return idempotency_key.key_reused(error)
        case PaymentNotFound():
            return _not_found(error)
        case StatusConflict() | OperationNotFound() | OperationRefused():
            return _of_operation(error)
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


def _of_operation(error: StatusConflict | OperationNotFound | OperationRefused) -> Problem:
    """Return the problem for a refused change of a payment, or of a capture or refund."""
    match error:
        case StatusConflict():
            status = "payment_status" if error.what == "payment" else "operation_status"
            return Problem(HTTPStatus.CONFLICT, "status_conflict", str(error), extra={status: error.status})
        case OperationNotFound():
            return Problem(HTTPStatus.NOT_FOUND, "refund_not_found", f"there is no refund {error}")
        case OperationRefused():
            limit = {} if error.limit is None else {"limit": error.limit}
            return Problem(_REFUSED[error.code], error.code, error.message, extra=limit)
