"""An answer before it is sent: its content is the same whether aiohttp or the fast path sends it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time

from okane.server_name import SERVER
from streams.values import value

JSON = "application/json"
NO_STORE = "no-store"  # no cache may keep the data of a payment; the descriptions of the API are cacheable

_LINES = {status: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


@value
class Answer:
    """The answer to a request, without the id of the request."""

    status: HTTPStatus
    body: bytes
    headers: Mapping[str, str]
    content_type: str = JSON

    def response(self) -> web.Response:
        """Return the response for aiohttp to send."""
        return web.Response(
            status=self.status.value, body=self.body, headers=self.headers, content_type=self.content_type
        )

    def on_the_wire(self, *, request_id: str, closing: bool) -> bytes:
        """Return the bytes that aiohttp would send in HTTP/1.1. `closing`: the connection will be closed."""
        head = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        end = "Connection: close\r\n\r\n" if closing else "\r\n"
        return (
            f"{_LINES[self.status]}{head}Content-Type: {self.content_type}\r\n"
            f"X-Request-Id: {request_id}\r\nCache-Control: {NO_STORE}\r\nContent-Length: {len(self.body)}\r\n"
            f"Date: {rfc822_formatted_time()}\r\nServer: {SERVER}\r\n{end}"
        ).encode() + self.body


def is_known(request: web.Request, etag: str) -> bool:
    """Return True if a client has the version with this ETag already: a GET is answered with 304 then."""
    # `*` and weak tags match as RFC 9110 13.1.2 says; okane's tags have no commas.
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")}
    return etag in known or "*" in known
