"""`POST /v1/payments/batch`: many payments in one request, each accepted or refused for itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web

from okane.api import bodies, middleware, strict_json, wire
from okane.api.answers import JSON
from okane.api.caller import account_of
from okane.api.creating import Creating
from okane.api.problems import Problem, malformed
from okane.pipeline.accept import Receipt
from okane.store import NewPayment

NDJSON = "application/x-ndjson"
MAX_BYTES = 1024 * 1024
MAX_ITEMS = 1_000
TOGETHER = 50  # items that are read without letting other requests have their turn

Item = NewPayment | Problem


class Batch:
    """The handler of batches."""

    def __init__(self, *, creating: Creating) -> None:
        self._creating = creating

    async def create(self, request: web.Request) -> web.Response:
        """Accept what can be accepted: 207, with a result for each item, in order."""
        lines = bodies.check_media_type(request, JSON, NDJSON) == NDJSON
        if "Idempotency-Key" in request.headers:
            raise malformed("idempotency_key_misplaced", "in a batch every item carries its own idempotency_key")
        body = await bodies.read(request, MAX_BYTES)
        items = await self._read(_lines(body) if lines else _array(body), account_id=account_of(request))
        receipts = iter(await self._creating.accept_many([item for item in items if isinstance(item, NewPayment)]))
        results = [middleware.problem(item) if isinstance(item, Problem) else _result(next(receipts)) for item in items]
        refused = [one for one in results if isinstance(one, Problem)]
        if len(refused) == len(results) and all(one.code == "store_unavailable" for one in refused):
            raise refused[0]  # nothing is known to be accepted: the whole batch is to be repeated
        written = ",".join(_problem(one) if isinstance(one, Problem) else _receipt(one) for one in results)
        body_text = f'{{"results":[{written}],"accepted":{len(results) - len(refused)},"refused":{len(refused)}}}'
        return web.Response(status=HTTPStatus.MULTI_STATUS, body=body_text.encode(), content_type=JSON)

    async def _read(self, given: Sequence[Any], *, account_id: str) -> Sequence[Item]:
        if not 1 <= len(given) <= MAX_ITEMS:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "batch_size",
                f"a batch has 1 to {MAX_ITEMS:,} items, not {len(given):,}",
            )
        items: list[Item] = []
        for number, one in enumerate(given):
            if number % TOGETHER == TOGETHER - 1:
                await asyncio.sleep(0)
            try:
                parsed = strict_json.loads(one) if isinstance(one, bytes) else one
                items.append(self._creating.understand(parsed, (), account_id=account_id))
            except Problem as problem:
                items.append(problem)
        return items


def _array(body: bytes) -> Sequence[Any]:
    given = strict_json.loads(body)
    if not isinstance(given, list):
        raise malformed("body_not_an_array", "a batch is a JSON array, or one object a line as application/x-ndjson")
    return given


def _lines(body: bytes) -> Sequence[bytes]:
    return [line for line in body.split(b"\n") if line.strip()]


def _result(receipt: Receipt | BaseException) -> Receipt | Problem:
    if isinstance(receipt, Receipt):
        return receipt
    if not isinstance(receipt, Exception):
        raise receipt
    return middleware.problem(receipt)


def _receipt(receipt: Receipt) -> str:
    status = HTTPStatus.ACCEPTED if receipt.created else HTTPStatus.OK
    return f'{{"status":{status.value},{wire.receipt_json(receipt).decode()[1:]}'


def _problem(problem: Problem) -> str:
    document = json.dumps(problem.document())
    return f'{{"status":{problem.status.value},"problem":{document}}}'
