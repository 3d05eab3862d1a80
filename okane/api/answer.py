"""An answer before it is on its way: what is said is decided once, however it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time

from okane.server_name import SERVER
from streams.values import value

JSON = "application/json"
NO_STORE = "no-store"  # for all but what is no client's own: nothing on the way is to keep what it says of a payment

_LINES = {status: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


@value
class Answer:
    """What a client is told, apart from the id of its request."""

    status: HTTPStatus
    body: bytes
    headers: Mapping[str, str]
    content_type: str = JSON

    def response(self) -> web.Response:
        """For aiohttp to send."""
        return web.Response(
            status=self.status.value, body=self.body, headers=self.headers, content_type=self.content_type
        )

    def on_the_wire(self, *, request_id: str, closing: bool) -> bytes:
        """The bytes that aiohttp would send to HTTP/1.1. `closing`: the connection is going to be closed."""
        head = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        end = "Connection: close\r\n\r\n" if closing else "\r\n"
        return (
            f"{_LINES[self.status]}{head}Content-Type: {self.content_type}\r\n"
            f"X-Request-Id: {request_id}\r\nCache-Control: {NO_STORE}\r\nContent-Length: {len(self.body)}\r\n"
            f"Date: {rfc822_formatted_time()}\r\nServer: {SERVER}\r\n{end}"
        ).encode() + self.body
