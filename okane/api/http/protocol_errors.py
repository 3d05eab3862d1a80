"""The problems of bytes that are not a request, or not one that HTTP allows: parser errors to Problems. Pure."""

from __future__ import annotations

import re
from http import HTTPStatus

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http import HttpProcessingError
from aiohttp.http_exceptions import BadHttpMethod, BadStatusLine, InvalidURLError, LineTooLong

from okane.api.problems import Problem, malformed

MAX_LINE_BYTES = 4096  # no route has a hundred; must differ from the next, to tell the two errors apart
MAX_FIELD_BYTES = 8190
MAX_FIELDS = 64
MAX_HEAD_BYTES = 32 * 1024  # of a head that comes in pieces: the memory that one connection may take

# The codes of these problems, and of an Expect that cannot be met.
REASONS = (
    "expectation_failed",
    "framing_invalid",
    "head_too_large",
    "head_too_slow",
    "http_version_unsupported",
    "method_unknown",
    "request_invalid",
    "request_line_invalid",
    "target_too_long",
    "too_many_connections",
    "transfer_coding_unknown",
)

_WORD = re.compile(r"b['\"][A-Za-z-]{1,32} ")  # in a parser's message: the line began with something like a method
_VERSIONS = frozenset({HttpVersion10, HttpVersion11})


def unsupported(request: web.BaseRequest) -> Problem | None:
    """Return the problem with a request that aiohttp's parser accepts and RFC 9112 does not; None if there is none."""
    if request.version not in _VERSIONS:
        return Problem(
            HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
            "http_version_unsupported",
            "this server supports HTTP/1.1 and HTTP/1.0",
        )
    coding = request.headers.get("Transfer-Encoding")
    if coding is None:
        return None
    if request.version == HttpVersion10:
        return malformed("framing_invalid", "HTTP/1.0 has no Transfer-Encoding")
    if coding.lower() != "chunked":
        return Problem(
            HTTPStatus.NOT_IMPLEMENTED, "transfer_coding_unknown", "the only transfer coding here is chunked"
        )
    return None


def problem_of(error: HttpProcessingError) -> Problem:
    """Return the problem for an error of aiohttp's parser, without a quote of the request."""
    message = str(error.message)
    match error:
        case LineTooLong(args=(_, limit, *_)) if limit == MAX_LINE_BYTES:
            return Problem(
                HTTPStatus.REQUEST_URI_TOO_LONG,
                "target_too_long",
                f"a request's target has up to {MAX_LINE_BYTES} bytes",
            )
        case LineTooLong():
            return HEAD_TOO_LARGE
        case BadHttpMethod() if _WORD.search(message):
            return Problem(HTTPStatus.NOT_IMPLEMENTED, "method_unknown", "there is no such method")
        case BadHttpMethod():
            return malformed("request_line_invalid", "this is not an HTTP request")
        case BadStatusLine() if "version" in message.lower():
            return Problem(
                HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
                "http_version_unsupported",
                "this server supports HTTP/1.1 and HTTP/1.0",
            )
        case BadStatusLine() | InvalidURLError():
            return malformed("request_line_invalid", "the request line cannot be read")
        case _ if message.startswith("Too many headers"):
            return HEAD_TOO_LARGE
        case _:
            return malformed("request_invalid", "the head of the request, or the framing of its body, cannot be read")


FULL = Problem(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "too_many_connections",
    "this server has reached its limit of connections; repeat the request",
    retryable=True,
    headers={"Retry-After": "1"},
)
HEAD_TOO_SLOW = Problem(
    HTTPStatus.REQUEST_TIMEOUT, "head_too_slow", "the head of the request did not come in time", retryable=True
)
HEAD_TOO_LARGE = Problem(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "head_too_large",
    f"a request has up to {MAX_FIELDS} header fields of up to {MAX_FIELD_BYTES} bytes each, "
    f"and {MAX_HEAD_BYTES // 1024} kB altogether",
)
