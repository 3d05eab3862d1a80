"""The routes of the mock provider for captures, voids and refunds.

    POST /operations          Idempotency-Key: k, {"kind", "charge", "operation_id", "payment_id", "amount", "currency"}
                              -> 200, 422, or as drawn; `charge` is the key of the charge
    GET  /operations/{key}    200 {"kind", "provider_ref", "status", "code"?, "amount", "currency"}, or 404
    GET  /operations          every operation as JSON lines (?payment_id= for one payment's)
Promise: an answer about an operation is sent after the operation is on disk.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import assert_never

from aiohttp import web

from okane.simulator.answers import (
    CHARGES,
    CONFLICT,
    OPERATIONS,
    checked_key,
    json_answer,
    json_object,
    misbehave,
    money,
    problem,
    stream_lines,
    text_member,
)
from okane.simulator.charge_processor import Conflict, NotRecorded
from okane.simulator.journal import JournalError
from okane.simulator.operation_journal import OperationEntry
from okane.simulator.operation_processor import KINDS, NoCharge, Operated, OperationRequest
from okane.simulator.options import Act


def add_to(app: web.Application) -> None:
    """Add the routes."""
    app.router.add_post("/operations", _operate)
    app.router.add_get("/operations/{key}", _look_up)
    app.router.add_get("/operations", _journal)


async def _operate(request: web.Request) -> web.Response:
    charges, operations = request.app[CHARGES], request.app[OPERATIONS]
    try:
        wanted = _parse(request.headers.get("Idempotency-Key", ""), await request.read())
    except ValueError as error:
        return problem(400, "bad_request", str(error))
    if latency_s := charges.draw_latency_s():
        await asyncio.sleep(latency_s)
    try:
        decision = await operations.decide(wanted)
        if decision == NotRecorded(Act.HELD_BACK):
            await asyncio.sleep(charges.behaviour.hang_s)
            decision = await operations.execute_late(wanted)
    except JournalError as error:
        return problem(500, "journal_failed", str(error))
    match decision:
        case Operated(entry, act):
            return await misbehave(request, act or Act.SUCCESS, _result(entry))
        case NotRecorded(act):
            return await misbehave(request, act, None)
        case Conflict():
            return problem(*CONFLICT)
        case NoCharge():
            return problem(404, "charge_not_found", "no charge under this key")
        case _:
            assert_never(decision)


async def _look_up(request: web.Request) -> web.Response:
    entry = await request.app[OPERATIONS].look_up(request.match_info["key"])
    if entry is None:
        return problem(404, "operation_not_found", "no operation under this idempotency key")
    return json_answer(200, _shown(entry))


async def _journal(request: web.Request) -> web.StreamResponse:
    wanted = request.query.get("payment_id")
    containing = b"" if wanted is None else b'"payment_id":' + json.dumps(wanted).encode() + b","
    return await stream_lines(request, request.app[OPERATIONS].journal.lines(containing))


def _parse(key: str, body: bytes) -> OperationRequest:
    """Parse a request for an operation. Raises ValueError."""
    document = json_object(body)
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}")
    amount, currency = money(document)
    return OperationRequest(
        key=checked_key(key),
        kind=kind,
        charge=text_member(document, "charge"),
        payment_id=text_member(document, "payment_id"),
        operation_id=text_member(document, "operation_id"),
        amount=amount,
        currency=currency,
    )


def _result(entry: OperationEntry) -> web.Response:
    """Return the answer to an operation."""
    shown = _shown(entry)
    if shown["status"] == "failed":
        return json_answer(422, {"code": entry.code, "message": f"the {entry.kind} was declined"})
    return json_answer(200, shown)


def _shown(entry: OperationEntry) -> dict[str, object]:
    """Return the operation in its present state."""
    status = entry.status_at(datetime.now(UTC))
    shown: dict[str, object] = {
        "kind": entry.kind,
        "provider_ref": entry.provider_ref,
        "status": status,
        "amount": entry.amount,
        "currency": entry.currency,
    }
    return shown | {"code": entry.code} if status == "failed" else shown
