"""An answer before it is on its way: what is said is decided once, however it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web

JSON = "application/json"


@dataclass(frozen=True, slots=True)
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
