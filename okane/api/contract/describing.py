"""The routes of the description: the OpenAPI document, and a page made of it."""

from __future__ import annotations

import asyncio
import functools
import json

from aiohttp import web

from okane.api.contract import document, page
from okane.api.contract.operations import HTML, OPENAPI
from okane.api.middleware import Scopes

# The page runs nothing and fetches nothing, whatever came to stand in it.
_POLICY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
# It is the same for every client, until the next version.
CACHEABLE = {"Cache-Control": "public, max-age=300"}


class Description:
    """The handlers of the description. It is made when it is first asked for, beside the requests for payments."""

    def __init__(self, scopes: Scopes) -> None:
        self._document = functools.cache(functools.partial(document.build, scopes))
        self._json = functools.cache(lambda: json.dumps(self._document()).encode())
        self._page = functools.cache(lambda: page.render(self._document()).encode())

    async def openapi(self, _request: web.Request) -> web.Response:
        """`GET /v1/openapi.json`: for machines."""
        return web.Response(body=await asyncio.to_thread(self._json), content_type=OPENAPI, headers=CACHEABLE)

    async def docs(self, _request: web.Request) -> web.Response:
        """`GET /docs`: for people."""
        body = await asyncio.to_thread(self._page)
        return web.Response(body=body, content_type=HTML, charset="utf-8", headers=_POLICY | CACHEABLE)
