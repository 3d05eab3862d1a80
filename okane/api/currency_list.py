"""`GET /v1/currencies`: which currencies new payments may be in, and how many decimal digits their minor units stand for."""

from __future__ import annotations

import json

from aiohttp import web

from okane.api.answer import JSON
from okane.currencies import NEW_PAYMENTS

# It changes with ISO 4217's amendments, which come with a version of ours.
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
    """The list, the same for every client."""
    return web.Response(body=_BODY, content_type=JSON, headers=_CACHEABLE)
