"""Errors on the wire: RFC 9457 problem+json with a stable `code`, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web

from okane.api.answer import NO_STORE, Answer

JSON = "application/problem+json"

MAX_ERRORS = 20  # that an answer lists; `error_count` says how many there are
MAX_NAME = 100  # characters of a name that an answer repeats

_CODES = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "body_too_large",
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one member of the body. `pointer` is a JSON Pointer (RFC 6901)."""

    pointer: str
    code: str
    detail: str

    def document(self) -> Mapping[str, str]:
        """As it stands in the answer."""
        return {"pointer": self.pointer, "code": self.code, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class ParameterError:
    """What is wrong with one parameter of the query."""

    parameter: str
    code: str
    detail: str

    def document(self) -> Mapping[str, str]:
        """As it stands in the answer."""
        return {"parameter": self.parameter, "code": self.code, "detail": self.detail}


class Problem(Exception):
    """Raised anywhere in the API to answer with an error.

    Of the `errors` the first are kept, and how many there are (`error_count`, where the caller has left some out already).
    `retryable` tells the client whether the same request may succeed later. `extra` members go into the document as they
    are, `headers` onto the answer.
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
        extra: Mapping[str, str] | None = None,
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
        """The answer to the request with this path, if it is known, and this id."""
        return Answer(self.status, self._document(instance, request_id), self.headers, JSON)

    def on_the_wire(self, *, request_id: str) -> bytes:
        """The same as bytes, for a connection that is about to be closed and may not have sent a request."""
        body = self._document(None, request_id)
        fields = {
            "Content-Type": JSON,
            "Content-Length": str(len(body)),
            "X-Request-Id": request_id,
            "Cache-Control": NO_STORE,
            "Connection": "close",
            **self.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\n{head}\r\n".encode() + body

    def document(self, *, max_errors: int = MAX_ERRORS) -> dict[str, object]:
        """The members that do not depend on the request, with so many of the errors."""
        document: dict[str, object] = {
            "type": f"urn:okane:problem:{self.code}",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
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


def shortened(name: str) -> str:
    """A name that a client sent, as an answer repeats it: an answer must not grow with what it refuses."""
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"


def _text(path: str) -> str:
    """A path may hold bytes that are no UTF-8: as lone surrogates, which would make the document no I-JSON."""
    return path if path.isascii() else path.encode("utf-8", "replace").decode()


def malformed(code: str, detail: str) -> Problem:
    """The request cannot be read as what it claims to be."""
    return Problem(HTTPStatus.BAD_REQUEST, code, detail)


def invalid(errors: Sequence[FieldError], *, count: int | None = None) -> Problem:
    """The request can be read, and asks for something that is not allowed."""
    first = errors[0]
    detail = f"{first.pointer}: {first.detail}" if first.pointer else first.detail
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "validation_failed", detail, errors=errors, error_count=count)


def bad_query(errors: Sequence[ParameterError], *, count: int | None = None) -> Problem:
    """What stands after the question mark is not understood."""
    first = errors[0]
    detail = f"{first.parameter}: {first.detail}"
    return Problem(HTTPStatus.BAD_REQUEST, "query_invalid", detail, errors=errors, error_count=count)


def internal() -> Problem:
    """Nothing the client did. Whoever answers with it has logged what happened."""
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal",
        "a bug on our side, logged under this request's id; repeat the request with the same idempotency key",
        retryable=True,
    )


def from_http(error: web.HTTPException) -> Problem:
    """aiohttp's own refusals, in our words."""
    status = HTTPStatus(error.status)
    code = _CODES.get(status, status.name.lower())
    return Problem(status, code, error.reason or status.phrase)
