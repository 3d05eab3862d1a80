"""The parts that the routes of the mock provider share: members of requests, shapes of answers, and acts that spoil them."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from typing import assert_never

from aiohttp import web

from okane.simulator.charge_processor import ChargeProcessor
from okane.simulator.operation_processor import OperationProcessor
from okane.simulator.options import Act

CHARGES = web.AppKey("charges", ChargeProcessor)
OPERATIONS = web.AppKey("operations", OperationProcessor)
CONFLICT = (409, "idempotency_key_reused", "this key was used for another payment, amount or currency")

_KEY = re.compile(r"[!-~]{1,255}")
_MAX_AMOUNT = 2**63 - 1
_HTML_500 = b"<html><body><h1>500 Internal Server Error</h1></body></html>"


async def misbehave(request: web.Request, act: Act, plain: web.Response | None) -> web.Response:
    """Answer in the way of `act`; `plain` is the true answer, or None if nothing was recorded."""
    behaviour = request.app[CHARGES].behaviour
    match act:
        case Act.SUCCESS | Act.DECLINE:
            assert plain is not None
            return plain
        case Act.UNAVAILABLE:
            return problem(503, "unavailable", "nothing was done, try again", retry_after=behaviour.retry_after)
        case Act.RATE_LIMIT:
            return problem(429, "rate_limited", "nothing was done, slow down", retry_after=behaviour.retry_after)
        case Act.ERROR_500 | Act.ERROR_500_AFTER_CHARGE:
            return web.Response(status=500, body=_HTML_500, content_type="text/html")
        case Act.GARBAGE:
            return web.Response(body=b'{"provider_ref": "ch_', content_type="application/json")
        case Act.TIMEOUT_AFTER_CHARGE | Act.TIMEOUT_BEFORE_CHARGE:
            await asyncio.sleep(behaviour.hang_s)
        case Act.RESET_AFTER_CHARGE | Act.RESET_BEFORE_CHARGE | Act.HELD_BACK:  # HELD_BACK: it is executed by now
            pass
        case _:
            assert_never(act)
    _reset(request)
    return web.Response()  # not sent: the connection is gone


async def stream_lines(request: web.Request, lines: AsyncIterator[bytes]) -> web.StreamResponse:
    """Answer with the lines of a journal."""
    response = web.StreamResponse()
    response.content_type = "application/x-ndjson"
    await response.prepare(request)
    async for block in lines:
        await response.write(block)
    await response.write_eof()
    return response


def checked_key(key: str) -> str:
    """Return an idempotency key. Raises ValueError."""
    if not _KEY.fullmatch(key):
        raise ValueError("the Idempotency-Key header must be 1 to 255 visible ASCII characters")
    return key


def text_member(document: Mapping[str, object], name: str) -> str:
    """Return a short text of a request. Raises ValueError."""
    text = document.get(name)
    if not isinstance(text, str) or not 1 <= len(text) <= 255:
        raise ValueError(f"{name} must be a string of 1 to 255 characters")
    return text


def money(document: Mapping[str, object]) -> tuple[int, str]:
    """Return the amount and the currency of a request. Raises ValueError."""
    amount, currency = document.get("amount"), document.get("currency")
    if type(amount) is not int or not 0 < amount <= _MAX_AMOUNT:  # `type`: true is an int to isinstance
        raise ValueError("amount must be a whole number of minor units, from 1 to 2^63-1")
    if not isinstance(currency, str) or len(currency) != 3 or not (currency.isascii() and currency.isupper()):
        raise ValueError("currency must be an ISO 4217 code like USD")
    return amount, currency


def json_object(body: bytes) -> dict[str, object]:
    """Return the body of a request. Raises ValueError."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError("the body is not JSON") from error
    if not isinstance(value, dict):
        raise ValueError("the body must be a JSON object")  # noqa: TRY004 - the caller's text is wrong, not a type
    return value


def json_answer(status: int, body: object) -> web.Response:
    """Return an answer with a JSON body."""
    return web.Response(status=status, body=json.dumps(body).encode(), content_type="application/json")


def problem(status: int, code: str, detail: str, *, retry_after: int | None = None) -> web.Response:
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
