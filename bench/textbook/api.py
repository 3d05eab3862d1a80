"""`python -m bench.textbook.api`: takes a payment, writes its row, adds its entry, answers 202."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from typing import Annotated

import uuid_utils.compat as uuid7s
import uvloop
from aiohttp import web
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.asyncio import Redis

from bench.textbook.wiring import STREAM, Pool, new_pool, new_redis

POOL = web.AppKey("pool", Pool)
REDIS = web.AppKey("redis", Redis)

_INSERT = """
INSERT INTO payments (id, account_id, idempotency_key, fingerprint, amount_minor, currency, metadata, lane, provider_key)
VALUES (%s, 'default', %s, %s, %s, %s, %s, 'default', %s)
ON CONFLICT ON CONSTRAINT payments_idempotency_key DO NOTHING
RETURNING id, status, created_at
"""
_FIND = """
SELECT id, status, created_at, fingerprint FROM payments WHERE account_id = 'default' AND idempotency_key = %s
"""


class CreatePayment(BaseModel):
    """The body of a POST."""

    model_config = ConfigDict(extra="forbid", strict=True)

    amount: Annotated[int, Field(gt=0, le=2**63 - 1)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "USD"
    metadata: Annotated[dict[str, str], Field(max_length=50)] = Field(default_factory=dict)
    idempotency_key: Annotated[str, Field(min_length=1, max_length=255)]

    def fingerprint(self) -> bytes:
        return hashlib.sha256(self.model_dump_json(exclude={"idempotency_key"}).encode()).digest()


async def create(request: web.Request) -> web.Response:
    """202 for a new payment, 200 for a repeat, 422 for a body or a key that won't do."""
    try:
        body = CreatePayment.model_validate(await request.json())
    except (ValueError, ValidationError) as error:
        return web.json_response({"error": str(error)}, status=422)
    payment_id, fingerprint = uuid7s.uuid7(), body.fingerprint()
    async with request.app[POOL].connection() as connection:
        values = (body.idempotency_key, fingerprint, body.amount, body.currency, Jsonb(body.metadata))
        cursor = await connection.execute(_INSERT, (payment_id, *values, str(payment_id)))
        row = await cursor.fetchone()
        if row is None:
            found = await (await connection.execute(_FIND, (body.idempotency_key,))).fetchone()
            if found is None or found[3] != fingerprint:
                return web.json_response({"error": "the idempotency key was used for another payment"}, status=422)
            return web.json_response(_payment(body, *found[:3]), status=200)
    await request.app[REDIS].xadd(STREAM, {"id": payment_id.bytes})
    return web.json_response(_payment(body, *row), status=202)


def _payment(body: CreatePayment, payment_id: object, status: object, created_at: object) -> dict[str, object]:
    payment = {"id": str(payment_id), "amount": body.amount, "currency": body.currency, "status": status}
    return {"payment": payment | {"idempotency_key": body.idempotency_key, "created_at": str(created_at)}}


async def health(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _with_servers(app: web.Application) -> AsyncIterator[None]:
    app[POOL], app[REDIS] = new_pool(), new_redis()
    await app[POOL].open(wait=True)
    yield
    await app[POOL].close()
    await app[REDIS].aclose()


def main() -> None:
    app = web.Application()
    app.cleanup_ctx.append(_with_servers)
    app.add_routes([web.post("/v1/payments", create), web.get("/v1/health", health)])
    port = int(os.environ["OKANE_PORT"])
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
