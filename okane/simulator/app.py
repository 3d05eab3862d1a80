"""The HTTP side of the mock provider: routes, wire shapes, and the act that `charge_processor.py` has drawn.

    POST /charges             Idempotency-Key: k, {"payment_id", "amount", "currency", "capture"?} -> 200, 422, or as drawn
    GET  /charges/{key}       200 {"provider_ref", "status", "code"?, "amount", "currency"}, or 404
    POST /operations          captures, voids and refunds: see `operation_routes.py`; GET /operations/{key}, /operations
    GET  /records             what the provider has of a time: see `records.py`
    POST /disputes            opens a dispute: see `disputes.py`
    GET  /journal             every charge as JSON lines (?payment_id= for one payment's)
    GET  /journal/summary     counts
    GET  /control             the behaviour in force; PUT with some of its fields changes those, for calls from then on
    GET  /health
Promise: an answer about a charge is sent after the charge is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import assert_never

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

import okane.server_name  # noqa: F401 - for what it does
from okane import binding
from okane.origin_guard import OriginGuard, Refusal, is_loopback
from okane.simulator import disputes as disputes_of
from okane.simulator import operation_routes, records
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
from okane.simulator.charge_processor import ChargeProcessor, ChargeRequest, Conflict, NotRecorded, Recorded
from okane.simulator.disputes import DisputeJournal
from okane.simulator.journal import Charge, Journal, JournalError
from okane.simulator.notices import NoticeSender
from okane.simulator.operation_journal import OperationJournal
from okane.simulator.operation_processor import ChargeState, OperationProcessor
from okane.simulator.options import Act, SimulatorOptions

_MAX_BODY_BYTES = 64 * 1024
_NOT_FOUND = (404, "charge_not_found", "no charge under this idempotency key")


def build_app(options: SimulatorOptions) -> web.Application:
    """Return the provider as an application, which opens its journals at start-up and closes them at clean-up."""
    app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[_own_pages_only(options.host)])

    async def _open_journal(app: web.Application) -> AsyncIterator[None]:
        journal = await asyncio.to_thread(Journal.open, options.journal)
        dice = random.Random(options.seed)
        app[CHARGES] = ChargeProcessor(journal=journal, behaviour=options.behaviour, dice=dice)
        async with contextlib.AsyncExitStack() as opened:
            opened.push_async_callback(journal.aclose)
            await _open_operations(app, options, dice, opened)
            yield

    app.cleanup_ctx.append(_open_journal)
    app.router.add_post("/charges", _charge)
    app.router.add_get("/charges/{key}", _look_up)
    operation_routes.add_to(app)
    records.add_to(app)
    disputes_of.add_to(app)
    app.router.add_get("/journal", _journal)
    app.router.add_get("/journal/summary", _summary)
    app.router.add_get("/control", _show_control)
    app.router.add_put("/control", _change_control)
    app.router.add_get("/health", _health)
    return app


async def _open_operations(
    app: web.Application, options: SimulatorOptions, dice: random.Random, opened: contextlib.AsyncExitStack
) -> None:
    """Open the journals beside that of the charges, and the sender of notices. Raises JournalError."""
    name = options.journal.name
    operations = await asyncio.to_thread(OperationJournal.open, options.journal.with_name(f"{name}.operations"))
    opened.push_async_callback(operations.aclose)
    disputes = await asyncio.to_thread(DisputeJournal.open, options.journal.with_name(f"{name}.disputes"))
    opened.push_async_callback(disputes.aclose)
    notices = None
    if options.notify_url is not None and options.notify_secret is not None:
        notices = NoticeSender(options.notify_url, options.notify_secret)
        opened.push_async_callback(notices.aclose)
        notices.resume(await asyncio.to_thread(lambda: list(operations.read_all())))
    app[OPERATIONS] = OperationProcessor(charges=app[CHARGES], journal=operations, dice=dice, notices=notices)
    app[disputes_of.DISPUTES] = disputes_of.DisputeDesk(disputes, notices)


@contextlib.asynccontextmanager
async def serving(options: SimulatorOptions) -> AsyncIterator[str]:
    """Serve inside the block; yield the base URL. Raises OSError for a taken port, JournalError for the journal."""
    runner = web.AppRunner(build_app(options), access_log=None, shutdown_timeout=1.0)
    try:
        await runner.setup()
        for one in await asyncio.to_thread(binding.listen, options.host, options.port):
            await web.SockSite(runner, one, backlog=binding.BACKLOG).start()
        yield f"http://{binding.netloc(*runner.addresses[0][:2])}"
    finally:
        await runner.cleanup()


async def run(options: SimulatorOptions, *, stop: asyncio.Event, ready: Callable[[str], None] | None = None) -> None:
    """Serve until `stop` is set; call `ready` with the base URL once requests are answered. Raises as `serving` does."""
    async with serving(options) as base_url:
        if ready is not None:
            ready(base_url)
        await stop.wait()


def _own_pages_only(host: str) -> Middleware:
    """Refuse requests of web pages of other origins. On other than loopback addresses any Host is accepted."""
    guard = OriginGuard(frozenset() if all(map(is_loopback, binding.hosts(host))) else None)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        fields = (request.headers.getall(name, ()) for name in ("Host", "Origin", "Sec-Fetch-Site"))
        match guard.refusal(*fields):
            case Refusal.CROSS_SITE as refusal:
                return problem(403, refusal.value, "a web page of another origin may not charge")
            case Refusal.HOST as refusal:
                return problem(421, refusal.value, "Host does not name this machine")
        return await handler(request)

    return middleware


async def _charge(request: web.Request) -> web.Response:
    charges = request.app[CHARGES]
    try:
        charge_request = _parse(request.headers.get("Idempotency-Key", ""), await request.read())
    except ValueError as error:
        return problem(400, "bad_request", str(error))
    if latency_s := charges.draw_latency_s():
        await asyncio.sleep(latency_s)
    try:
        decision = await charges.decide(charge_request)
        if decision == NotRecorded(Act.HELD_BACK):
            await asyncio.sleep(charges.behaviour.hang_s)
            decision = await charges.charge_late(charge_request)
    except JournalError as error:
        return problem(500, "journal_failed", str(error))
    match decision:
        case Recorded(charge, act):
            return await misbehave(request, act or Act.SUCCESS, _result(charge))
        case NotRecorded(act):
            return await misbehave(request, act, None)
        case Conflict():
            return problem(*CONFLICT)
        case _:
            assert_never(decision)


async def _look_up(request: web.Request) -> web.Response:
    charge = await request.app[CHARGES].look_up(request.match_info["key"])
    if charge is None:
        return problem(*_NOT_FOUND)
    state = request.app[OPERATIONS].state_of(charge, datetime.now(UTC))
    return json_answer(200, {**_state(charge, state), "amount": charge.amount, "currency": charge.currency})


async def _journal(request: web.Request) -> web.StreamResponse:
    wanted = request.query.get("payment_id")
    # The field as the line spells it; it cannot occur inside another value, where quotes are escaped.
    containing = b"" if wanted is None else b'"payment_id":' + json.dumps(wanted).encode() + b","
    return await stream_lines(request, request.app[CHARGES].journal.lines(containing))


async def _summary(request: web.Request) -> web.Response:
    return json_answer(200, request.app[CHARGES].summary())


async def _show_control(request: web.Request) -> web.Response:
    return json_answer(200, request.app[CHARGES].behaviour.to_json())


async def _change_control(request: web.Request) -> web.Response:
    charges = request.app[CHARGES]
    try:
        charges.change(charges.behaviour.changed(json_object(await request.read())))
    except ValueError as error:
        return problem(400, "bad_request", str(error))
    return json_answer(200, charges.behaviour.to_json())


async def _health(request: web.Request) -> web.Response:
    return json_answer(200, {"status": "ok"})


def _parse(key: str, body: bytes) -> ChargeRequest:
    """Parse a charge request. Raises ValueError."""
    checked_key(key)
    document = json_object(body)
    capture = document.get("capture", "automatic")
    if capture not in ("automatic", "manual"):
        raise ValueError("capture must be automatic or manual")
    amount, currency = money(document)
    return ChargeRequest(
        key=key,
        payment_id=text_member(document, "payment_id"),
        amount=amount,
        currency=currency,
        is_manual=capture == "manual",
    )


def _result(charge: Charge) -> web.Response:
    """Return the answer to a charge, which is that of its first moment."""
    if charge.status == "declined":
        return json_answer(422, {"code": charge.code, "message": "the charge was declined"})
    return json_answer(200, _state(charge, ChargeState(charge.status, charge.amount, 0)))


def _state(charge: Charge, state: ChargeState) -> dict[str, object]:
    shown: dict[str, object] = {"provider_ref": charge.provider_ref, "status": state.status}
    if charge.code is not None:
        shown["code"] = charge.code
    if charge.is_manual and state.status == "authorized":
        shown["capture_before"] = charge.capture_before
    if charge.is_manual and state.status == "captured":
        shown["amount_captured"] = state.captured
    if state.refunded:
        shown["amount_refunded"] = state.refunded
    return shown
