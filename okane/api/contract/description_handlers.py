"""The handlers of the description: the OpenAPI document, and a page made of it."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Sequence

from aiohttp import web

from okane.api.contract import docs_page, openapi
from okane.api.contract.operations import HTML, OPENAPI, Endpoint

# The page runs nothing and fetches nothing, whatever its text contains.
_POLICY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
# The description is the same for every client, until the next version.
CACHEABLE = {"Cache-Control": "public, max-age=300"}


class DescriptionHandlers:
    """The handlers of the description, which is built at its first request, in a thread."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._document = functools.cache(functools.partial(openapi.build_document, endpoints))
        self._json = functools.cache(lambda: json.dumps(self._document()).encode())
        self._page = functools.cache(lambda: docs_page.render(self._document()).encode())

    async def openapi(self, _request: web.Request) -> web.Response:
        """`GET /v1/openapi.json`: answer with the OpenAPI document."""
        return web.Response(body=await asyncio.to_thread(self._json), content_type=OPENAPI, headers=CACHEABLE)

    async def docs(self, _request: web.Request) -> web.Response:
        """`GET /docs`: answer with the page."""
        body = await asyncio.to_thread(self._page)
        return web.Response(body=body, content_type=HTML, charset="utf-8", headers=_POLICY | CACHEABLE)
