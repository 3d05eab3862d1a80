"""`GET /v1/currencies`: the currencies of new payments, with the number of decimal digits of their minor units."""

from __future__ import annotations

import json

from aiohttp import web

from okane.api.answer import JSON
from okane.currencies import NEW_PAYMENTS

# The list changes only with a release.
_CACHEABLE = {"Cache-Control": "public, max-age=3600"}
_BODY = json.dumps(
    {
        "currencies": [
            {"code": one.code, "exponent": one.exponent, "name": one.currency_name}
            for _, one in sorted(NEW_PAYMENTS.items())
        ]
    }
).encode()


async def show(_request: web.Request) -> web.Response:
    """Answer with the list, the same for every client."""
    return web.Response(body=_BODY, content_type=JSON, headers=_CACHEABLE)
