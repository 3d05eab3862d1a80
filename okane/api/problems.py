"""Errors as RFC 9457 problem+json, with a stable `code`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web

from okane.api.answer import NO_STORE, Answer
from okane.card_numbers import masked
from okane.currencies import MAX_AMOUNT_MINOR

JSON = "application/problem+json"

MAX_ERRORS = 20  # listed in an answer; `error_count` is the number of all
MAX_NAME = 100  # characters of a client's name that an answer repeats

_CODES = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "body_too_large",
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """An error in one member of the body. `pointer` is a JSON Pointer (RFC 6901)."""

    pointer: str
    code: str
    detail: str

    def document(self) -> Mapping[str, str]:
        """Return its part of the document."""
        return {"pointer": masked(self.pointer), "code": self.code, "detail": masked(self.detail)}


@dataclass(frozen=True, slots=True)
class ParameterError:
    """An error in one parameter of the query."""

    parameter: str
    code: str
    detail: str

    def document(self) -> Mapping[str, str]:
        """Return its part of the document."""
        return {"parameter": masked(self.parameter), "code": self.code, "detail": masked(self.detail)}


class Problem(Exception):
    """An error answer, raised anywhere in the API.

    Its texts repeat no card number. The first `errors` are listed; `error_count` is the number of all, where the caller has
    left some out already. `retryable` tells the client that the same request may succeed later. `extra` members go into the
    document as they are, `headers` onto the answer.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        retryable: bool = False,
        errors: Sequence[FieldError | ParameterError] = (),
        error_count: int | None = None,
        extra: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retryable = retryable
        self.errors = errors[:MAX_ERRORS]
        self.error_count = len(errors) if error_count is None else error_count
        self.extra = extra or {}
        self.headers = headers or {}

    def answer(self, *, instance: str | None, request_id: str) -> Answer:
        """Return the answer to the request with this id and path (`instance`; None if it is not known)."""
        return Answer(self.status, self._document(instance, request_id), self.headers, JSON)

    def on_the_wire(self, *, request_id: str) -> bytes:
        """Return the answer as bytes, for a connection that is about to be closed and may not have sent a request."""
        body = self._document(None, request_id)
        fields = {
            "Content-Type": JSON,
            "Content-Length": str(len(body)),
            "X-Request-Id": request_id,
            "Cache-Control": NO_STORE,
            "Connection": "close",
            **self.headers,
        }
        return last_answer(self.status, fields, body)

    def document(self, *, max_errors: int = MAX_ERRORS) -> dict[str, object]:
        """Return the members that do not depend on the request, with at most `max_errors` of the errors."""
        document: dict[str, object] = {
            "type": f"urn:okane:problem:{self.code}",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": masked(self.detail),
            "code": self.code,
            "retryable": self.retryable,
            **self.extra,
        }
        if self.errors:
            document["errors"] = [one.document() for one in self.errors[:max_errors]]
            document["error_count"] = self.error_count
        return document

    def _document(self, instance: str | None, request_id: str) -> bytes:
        document = self.document() | {"request_id": request_id}
        if instance is not None:
            document["instance"] = _text(instance)
        return json.dumps(document).encode()


def last_answer(status: HTTPStatus, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return an answer as bytes. The headers state its length, and that the connection ends."""
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n{head}\r\n".encode() + body


def shortened(name: str) -> str:
    """Shorten a name that a client sent: an answer must not grow with the request that it refuses."""
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"


def _text(path: str) -> str:
    """Replace the lone surrogates by which a path holds bytes that are not UTF-8: I-JSON forbids them. A card number in it is
    masked: answers are kept in the logs of clients."""
    return masked(path if path.isascii() else path.encode("utf-8", "replace").decode())


def malformed(code: str, detail: str) -> Problem:
    """Return a 400: the request cannot be parsed."""
    return Problem(HTTPStatus.BAD_REQUEST, code, detail)


def invalid(errors: Sequence[FieldError], *, count: int | None = None) -> Problem:
    """Return a 422: members of the body are wrong."""
    first = errors[0]
    detail = f"{first.pointer}: {first.detail}" if first.pointer else first.detail
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "validation_failed", detail, errors=errors, error_count=count)


def unsafe_amount() -> Problem:
    """Return a 422: the `amount` is one that a JSON parser may change."""
    detail = f"must not exceed 2^53-1 ({MAX_AMOUNT_MINOR}), above which not every JSON parser keeps all digits"
    errors = [FieldError("/amount", "amount_unsafe_integer", detail)]
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "amount_unsafe_integer", f"/amount: {detail}", errors=errors)


def bad_query(errors: Sequence[ParameterError], *, count: int | None = None) -> Problem:
    """Return a 400: parameters of the query are wrong."""
    first = errors[0]
    detail = f"{first.parameter}: {first.detail}"
    return Problem(HTTPStatus.BAD_REQUEST, "query_invalid", detail, errors=errors, error_count=count)


def internal() -> Problem:
    """Return a 500. The caller has logged the cause."""
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal",
        "a bug on our side, logged under this request's id; repeat the request with the same idempotency key",
        retryable=True,
    )


def from_http(error: web.HTTPException) -> Problem:
    """Return the problem for a refusal of aiohttp's own."""
    status = HTTPStatus(error.status)
    code = _CODES.get(status, status.name.lower())
    return Problem(status, code, error.reason or status.phrase)
