"""The HTTP side of the mock provider: routes, wire shapes, and the act that `charge_processor.py` has drawn.

    POST /charges             Idempotency-Key: k, {"payment_id", "amount", "currency"} -> 200, 422, or as drawn
    GET  /charges/{key}       200 {"provider_ref", "status", "code"?, "amount", "currency"}, or 404
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
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import assert_never

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

import okane.server_name  # noqa: F401 - for what it does
from okane import binding
from okane.origin_guard import OriginGuard, Refusal, is_loopback
from okane.simulator.charge_processor import ChargeProcessor, ChargeRequest, Conflict, NotRecorded, Recorded
from okane.simulator.journal import Charge, Journal, JournalError
from okane.simulator.options import Act, SimulatorOptions

CHARGES = web.AppKey("charges", ChargeProcessor)

_MAX_BODY_BYTES = 64 * 1024
_KEY = re.compile(r"[!-~]{1,255}")
_MAX_AMOUNT = 2**63 - 1
_HTML_500 = b"<html><body><h1>500 Internal Server Error</h1></body></html>"
_NOT_FOUND = (404, "charge_not_found", "no charge under this idempotency key")
_CONFLICT = (409, "idempotency_key_reused", "this key was used for another payment, amount or currency")


def build_app(options: SimulatorOptions) -> web.Application:
    """Return the provider as an application, which opens its journal at start-up and closes it at clean-up."""
    app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[_own_pages_only(options.host)])

    async def _open_journal(app: web.Application) -> AsyncIterator[None]:
        journal = await asyncio.to_thread(Journal.open, options.journal)
        app[CHARGES] = ChargeProcessor(journal=journal, behaviour=options.behaviour, dice=random.Random(options.seed))
        yield
        await journal.aclose()

    app.cleanup_ctx.append(_open_journal)
    app.router.add_post("/charges", _charge)
    app.router.add_get("/charges/{key}", _look_up)
    app.router.add_get("/journal", _journal)
    app.router.add_get("/journal/summary", _summary)
    app.router.add_get("/control", _show_control)
    app.router.add_put("/control", _change_control)
    app.router.add_get("/health", _health)
    return app


@contextlib.asynccontextmanager
async def serving(options: SimulatorOptions) -> AsyncIterator[str]:
    """Serve inside the block; yield the base URL. Raises OSError for a taken port, JournalError for the journal."""
    runner = web.AppRunner(build_app(options), access_log=None, shutdown_timeout=1.0)
    try:
        await runner.setup()
        for one in await asyncio.to_thread(binding.bind, options.host, options.port):
            await web.SockSite(runner, one, backlog=1024).start()
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
                return _problem(403, refusal.value, "a web page of another origin may not charge")
            case Refusal.HOST as refusal:
                return _problem(421, refusal.value, "Host does not name this machine")
        return await handler(request)

    return middleware


async def _charge(request: web.Request) -> web.Response:
    charges = request.app[CHARGES]
    try:
        charge_request = _parse(request.headers.get("Idempotency-Key", ""), await request.read())
    except ValueError as error:
        return _problem(400, "bad_request", str(error))
    if latency_s := charges.draw_latency_s():
        await asyncio.sleep(latency_s)
    try:
        decision = await charges.decide(charge_request)
        if decision == NotRecorded(Act.HELD_BACK):
            await asyncio.sleep(charges.behaviour.hang_s)
            decision = await charges.charge_late(charge_request)
    except JournalError as error:
        return _problem(500, "journal_failed", str(error))
    match decision:
        case Recorded(charge, act):
            return _result(charge) if act is None or act is Act.SUCCESS else await _misbehave(request, act, charge)
        case NotRecorded(act):
            return await _misbehave(request, act, None)
        case Conflict():
            return _problem(*_CONFLICT)
        case _:
            assert_never(decision)


async def _misbehave(request: web.Request, act: Act, charge: Charge | None) -> web.Response:
    """Answer in the way of `act`; `charge` is None if nothing was recorded."""
    behaviour = request.app[CHARGES].behaviour
    match act:
        case Act.SUCCESS | Act.DECLINE:
            assert charge is not None
            return _result(charge)
        case Act.UNAVAILABLE:
            return _problem(503, "unavailable", "nothing was charged, try again", retry_after=behaviour.retry_after)
        case Act.RATE_LIMIT:
            return _problem(429, "rate_limited", "nothing was charged, slow down", retry_after=behaviour.retry_after)
        case Act.ERROR_500 | Act.ERROR_500_AFTER_CHARGE:
            return web.Response(status=500, body=_HTML_500, content_type="text/html")
        case Act.GARBAGE:
            return web.Response(body=b'{"provider_ref": "ch_', content_type="application/json")
        case Act.TIMEOUT_AFTER_CHARGE | Act.TIMEOUT_BEFORE_CHARGE:
            await asyncio.sleep(behaviour.hang_s)
        case Act.RESET_AFTER_CHARGE | Act.RESET_BEFORE_CHARGE | Act.HELD_BACK:  # HELD_BACK: it is charged by now
            pass
        case _:
            assert_never(act)
    _reset(request)
    return web.Response()  # not sent: the connection is gone


async def _look_up(request: web.Request) -> web.Response:
    charge = await request.app[CHARGES].look_up(request.match_info["key"])
    if charge is None:
        return _problem(*_NOT_FOUND)
    body: dict[str, object] = {
        "provider_ref": charge.provider_ref,
        "status": charge.status,
        "amount": charge.amount,
        "currency": charge.currency,
    }
    return _json(200, body if charge.code is None else body | {"code": charge.code})


async def _journal(request: web.Request) -> web.StreamResponse:
    wanted = request.query.get("payment_id")
    # The field as the line spells it; it cannot occur inside another value, where quotes are escaped.
    containing = b"" if wanted is None else b'"payment_id":' + json.dumps(wanted).encode() + b","
    response = web.StreamResponse()
    response.content_type = "application/x-ndjson"
    await response.prepare(request)
    async for block in request.app[CHARGES].journal.lines(containing):
        await response.write(block)
    await response.write_eof()
    return response


async def _summary(request: web.Request) -> web.Response:
    return _json(200, request.app[CHARGES].summary())


async def _show_control(request: web.Request) -> web.Response:
    return _json(200, request.app[CHARGES].behaviour.to_json())


async def _change_control(request: web.Request) -> web.Response:
    charges = request.app[CHARGES]
    try:
        charges.change(charges.behaviour.changed(_json_object(await request.read())))
    except ValueError as error:
        return _problem(400, "bad_request", str(error))
    return _json(200, charges.behaviour.to_json())


async def _health(request: web.Request) -> web.Response:
    return _json(200, {"status": "ok"})


def _parse(key: str, body: bytes) -> ChargeRequest:
    """Parse a charge request. Raises ValueError."""
    if not _KEY.fullmatch(key):
        raise ValueError("the Idempotency-Key header must be 1 to 255 visible ASCII characters")
    document = _json_object(body)
    payment_id, amount, currency = document.get("payment_id"), document.get("amount"), document.get("currency")
    if not isinstance(payment_id, str) or not 1 <= len(payment_id) <= 255:
        raise ValueError("payment_id must be a string of 1 to 255 characters")
    if type(amount) is not int or not 0 < amount <= _MAX_AMOUNT:  # `type`: true is an int to isinstance
        raise ValueError("amount must be a whole number of minor units, from 1 to 2^63-1")
    if not isinstance(currency, str) or len(currency) != 3 or not (currency.isascii() and currency.isupper()):
        raise ValueError("currency must be an ISO 4217 code like USD")
    return ChargeRequest(key=key, payment_id=payment_id, amount=amount, currency=currency)


def _json_object(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError("the body is not JSON") from error
    if not isinstance(value, dict):
        raise ValueError("the body must be a JSON object")  # noqa: TRY004 - the caller's text is wrong, not a type
    return value


def _result(charge: Charge) -> web.Response:
    if charge.status == "captured":
        return _json(200, {"provider_ref": charge.provider_ref, "status": "captured"})
    return _json(422, {"code": charge.code, "message": "the charge was declined"})


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=json.dumps(body).encode(), content_type="application/json")


def _problem(status: int, code: str, detail: str, *, retry_after: int | None = None) -> web.Response:
    """Return a problem object (RFC 9457), with `code` and `message` as the wire contract names them."""
    body = {"type": "about:blank", "status": status, "code": code, "message": detail, "detail": detail}
    return web.Response(
        status=status,
        body=json.dumps(body).encode(),
        content_type="application/problem+json",
        headers=None if retry_after is None else {"Retry-After": str(retry_after)},
    )


def _reset(request: web.Request) -> None:
    """Close the connection with RST instead of FIN, as a crashed peer does."""
    transport = request.transport
    if transport is None:
        return  # the client closed first
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
