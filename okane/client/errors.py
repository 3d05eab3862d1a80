"""The errors of the client: one type for each way to handle them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import aiohttp

# Statuses of answers that do not come from the API, but from a proxy.
_LATER = frozenset({408, 429, 500, 502, 503, 504})


class ClientError(Exception):
    """The base of all errors of the client."""


class InvalidSignature(ClientError):
    """A webhook that was not signed with one of the secrets, or too long ago: answer it with 400 and do nothing."""


class NoAnswer(ClientError):
    """No readable answer came for as long as the client is patient. The request may have been carried out."""

    def __init__(self, request: str, reason: str) -> None:
        super().__init__(f"{request}: {reason}")
        self.reason = reason


class Refused(ClientError):
    """The API has refused the request for the reason `code` (docs/errors.md). `errors` names the wrong members.

    `retryable`: the same request may succeed later; the client has repeated it for as long as it is patient.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], *, after_s: int | None = None) -> None:
        self.status = status
        self.code = str(problem.get("code", f"http_{status}"))
        self.detail = str(problem.get("detail", "an answer that is not the API's"))
        self.retryable = bool(problem.get("retryable", status in _LATER))
        self.request_id: str | None = problem.get("request_id")
        self.errors: Sequence[Mapping[str, str]] = problem.get("errors", ())
        self.after_s = after_s
        super().__init__(f"{self.code}: {self.detail}")


class AccessDenied(Refused):
    """The API key is missing, not valid, or lacks the scope."""


class Invalid(Refused):
    """The request is wrong: to repeat it does not help."""


class NotFound(Refused):
    """The account has no such payment, payment method, refund, dispute, webhook endpoint or event."""


class Archived(NotFound):
    """Payments of the time in this id were archived."""


class Conflict(Refused):
    """The status of the payment, `payment_status`, or of the refund, `operation_status`, does not allow this."""

    def __init__(self, status: int, problem: Mapping[str, Any], *, after_s: int | None = None) -> None:
        super().__init__(status, problem, after_s=after_s)
        self.payment_status = str(problem.get("payment_status", ""))
        self.operation_status = str(problem.get("operation_status", ""))


class OperationRefused(Refused):
    """The capture or refund is not possible, or a new payment at no provider that may take it; nothing was changed.
    `limit`: the most that is possible, in minor units."""

    def __init__(self, status: int, problem: Mapping[str, Any], *, after_s: int | None = None) -> None:
        super().__init__(status, problem, after_s=after_s)
        self.limit: int | None = problem.get("limit")


class KeyReused(Refused):
    """The idempotency key belongs to the payment `payment_id`, the saved payment method `payment_method_id`, or the capture
    or refund `operation_id`, which has other members."""

    def __init__(self, status: int, problem: Mapping[str, Any], *, after_s: int | None = None) -> None:
        super().__init__(status, problem, after_s=after_s)
        self.payment_id = _id(problem.get("payment_id"))
        self.payment_method_id = _id(problem.get("payment_method_id"))
        self.operation_id = _id(problem.get("operation_id"))


def _id(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)


_BY_CODE: Mapping[str, type[Refused]] = {
    "key_missing": AccessDenied,
    "key_invalid": AccessDenied,
    "scope_missing": AccessDenied,
    "payment_not_found": NotFound,
    "archived": Archived,
    "payment_method_not_found": NotFound,
    "refund_not_found": NotFound,
    "dispute_not_found": NotFound,
    "endpoint_not_found": NotFound,
    "event_not_found": NotFound,
    "status_conflict": Conflict,
    "capture_exceeds_authorized": OperationRefused,
    "refund_exceeds_captured": OperationRefused,
    "currency_mismatch": OperationRefused,
    "payment_not_authorized": OperationRefused,
    "payment_not_captured": OperationRefused,
    "operation_in_progress": OperationRefused,
    "unsupported_by_provider": OperationRefused,
    "idempotency_key_reused": KeyReused,
}
# Statuses that say that the request is wrong, whatever code a newer server gives for it.
_INVALID = frozenset({400, 413, 414, 415, 422, 431})


def refused(status: int, problem: Mapping[str, Any], *, after_s: int | None = None) -> Refused:
    """Return the error for a problem."""
    plain = Invalid if status in _INVALID else Refused
    return _BY_CODE.get(str(problem.get("code")), plain)(status, problem, after_s=after_s)


def broken(error: Exception) -> str:
    """Name the failure in a word or two, the same for each of its kind."""
    match error:
        case aiohttp.ClientConnectorError():
            return "connection refused" if isinstance(error.os_error, ConnectionRefusedError) else "cannot connect"
        case TimeoutError():
            return "timeout"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
            return "connection lost"
        case aiohttp.ClientPayloadError():
            return "cut-off answer"
        case _:
            return type(error).__name__
