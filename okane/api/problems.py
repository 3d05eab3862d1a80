"""Errors on the wire: RFC 9457 problem+json with a stable `code`, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one member of the body. `pointer` is a JSON Pointer (RFC 6901)."""

    pointer: str
    code: str
    detail: str


class Problem(Exception):
    """Raised anywhere in the API to answer with an error.

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
        errors: Sequence[FieldError] = (),
        extra: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retryable = retryable
        self.errors = errors
        self.extra = extra or {}
        self.headers = headers or {}

    def response(self, *, instance: str, request_id: str) -> web.Response:
        """The answer to the request with this path and id."""
        document: dict[str, object] = {
            "type": f"urn:okane:problem:{self.code}",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            "request_id": request_id,
            "retryable": self.retryable,
            **self.extra,
        }
        if self.errors:
            document["errors"] = [
                {"pointer": one.pointer, "code": one.code, "detail": one.detail} for one in self.errors
            ]
        return web.Response(
            status=self.status.value,
            body=json.dumps(document).encode(),
            content_type="application/problem+json",
            headers=self.headers,
        )


def malformed(code: str, detail: str) -> Problem:
    """The request cannot be read as what it claims to be."""
    return Problem(HTTPStatus.BAD_REQUEST, code, detail)


def invalid(errors: Sequence[FieldError]) -> Problem:
    """The request can be read, and asks for something that is not allowed."""
    first = errors[0]
    detail = f"{first.pointer}: {first.detail}" if first.pointer else first.detail
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "validation_failed", detail, errors=errors)
