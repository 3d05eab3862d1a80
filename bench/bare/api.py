"""`python -m bench.bare.api`: validates a payment, keeps nothing, answers 202."""

from __future__ import annotations

import os
from typing import Annotated

import uvloop
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field


class CreatePayment(BaseModel):
    """The body of a POST."""

    model_config = ConfigDict(extra="forbid", strict=True)

    amount: Annotated[int, Field(gt=0, le=2**63 - 1)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "USD"
    metadata: Annotated[dict[str, str], Field(max_length=50)] = Field(default_factory=dict)
    idempotency_key: Annotated[str, Field(min_length=1, max_length=255)]


async def create(request: web.Request) -> web.Response:
    body = CreatePayment.model_validate_json(await request.read())
    return web.Response(status=202, body=body.model_dump_json().encode(), content_type="application/json")


async def health(_request: web.Request) -> web.Response:
    return web.Response()


def main() -> None:
    app = web.Application()
    app.add_routes([web.post("/v1/payments", create), web.get("/v1/health", health)])
    port = int(os.environ["OKANE_PORT"])
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
