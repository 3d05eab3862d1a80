"""The HTTP of the provider client: no answer reaches another call, and no charge is repeated, whatever a server does.

Byte by byte over a wire in memory; connections, deadlines and closing over TCP; and a server that draws its misbehaviour.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import socket
import ssl
import struct
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from okane.http.connection import MAX_ANSWER_BYTES, MAX_FRAMING_BYTES, BrokenExchange, HttpConnection, HttpResponse
from okane.http.pool import IDLE_LIMIT_S, ConnectionPool, NoConnection
from okane.payment import Payment
from okane.providers.base import Approved, ChargeResult, Unavailable, Unknown
from okane.providers.okane_http.answer_parser import parse_charge_answer
from okane.providers.okane_http.provider import OkaneHttpProvider
from streams import failpoints
from tests.okane.provider_server import (
    CAPTURED,
    FOUND,
    Act,
    answer,
    client,
    close,
    hang,
    raw_server,
    reset,
    then_close,
)
from tests.payments import NOW, PAYMENT

T = TypeVar("T")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LONG_S = 60.0
OVERDUE = BrokenExchange("overdue")
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run(story: Coroutine[object, object, T], *, loop: str = "asyncio") -> T:
    """Run on a new loop, and end once the servers have closed their connections too."""

    async def whole() -> T:
        result = await story
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
        await asyncio.sleep(0.001)
        return result

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(whole())


# One connection, byte by byte


class Wire(asyncio.Transport):
    """A transport in memory, with a socket for `poll`."""

    def __init__(self, protocol: asyncio.Protocol, local: socket.socket) -> None:
        super().__init__({"socket": local})
        self._protocol = protocol
        self._closing = False
        self.written: list[bytes] = []
        protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._closing, "written to a closed connection"
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self._closing

    def abort(self) -> None:
        self.lose(None)

    def end_of_stream(self) -> None:
        """Send the server's FIN."""
        if not self._closing:
            assert not self._protocol.eof_received()
            self.lose(None)

    def lose(self, error: Exception | None) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, error)


@contextlib.contextmanager
def wired() -> Iterator[tuple[HttpConnection, Wire]]:
    local, remote = socket.socketpair()
    with local, remote:
        connection = HttpConnection(on_lost=lambda _: None)
        yield connection, Wire(connection, local)


async def started(
    connection: HttpConnection, *, request: bytes = b"GET", within_s: float = LONG_S
) -> asyncio.Task[HttpResponse | BrokenExchange]:
    """Start an exchange and return once its request is written."""
    due_s = asyncio.get_running_loop().time() + within_s
    call = asyncio.create_task(connection.exchange(request, due_s=due_s, overdue=OVERDUE))
    await asyncio.sleep(0)
    return call


async def exchanged(
    *pieces: bytes, end: Callable[[Wire], None] | None = None
) -> tuple[HttpResponse | BrokenExchange, bool]:
    """Return the outcome of an answer in these pieces, and True if the connection may be used again."""
    with wired() as (connection, wire):
        call = await started(connection)
        for piece in pieces:
            if wire.is_closing():
                break
            connection.data_received(piece)
        if end is not None:
            end(wire)
        result = await call
        fit = connection.is_quiet()
        connection.end(OVERDUE)
        await connection.lost
        return result, fit


WHOLE = {
    "length": (OK, HttpResponse(200, b"ok", None), True),
    "no body": (b"HTTP/1.1 503 No\r\nretry-after: 7\r\nContent-Length: 0\r\n\r\n", HttpResponse(503, b"", "7"), True),
    "empty fields": (b"HTTP/1.1 200\r\nX:\r\nY: \r\nCONTENT-LENGTH: 2\r\n\r\nok", HttpResponse(200, b"ok", None), True),
    "two waits": (
        b"HTTP/1.1 429 No\r\nRetry-After: 1\r\nRetry-After: 2\r\nContent-Length: 1\r\n\r\n ",
        HttpResponse(429, b" ", "1"),
        True,
    ),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1;a=b\r\no\r\n1\r\nk\r\n0\r\nRetry-After: 9\r\n\r\n",
        HttpResponse(200, b"ok", None),
        True,
    ),
    "interim answers": (
        b"HTTP/1.1 100 Continue\r\nRetry-After: 9\r\n\r\nHTTP/1.1 103 Hints\r\nContent-Length: 5\r\n\r\n" + OK,
        HttpResponse(200, b"ok", None),
        True,
    ),
    "close": (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        HttpResponse(200, b"ok", None),
        False,
    ),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", HttpResponse(200, b"ok", None), False),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", HttpResponse(204, b"", None), False),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", HttpResponse(304, b"", None), False),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_an_answer_is_the_same_in_whatever_pieces_it_comes(name: str) -> None:
    said, expected, kept = WHOLE[name]
    for at in range(1, len(said)):
        assert await exchanged(said[:at], said[at:]) == (expected, kept)
    assert await exchanged(*(said[at : at + 1] for at in range(len(said)))) == (expected, kept)


@pytest.mark.parametrize("name", WHOLE)
async def test_an_answer_cut_anywhere_is_broken(name: str) -> None:
    said = WHOLE[name][0]
    for at in range(len(said)):
        for end in (Wire.end_of_stream, lambda wire: wire.lose(ConnectionResetError("reset"))):
            result, kept = await exchanged(*([said[:at]] if at else []), end=end)
            assert isinstance(result, BrokenExchange), said[:at]
            assert not kept


async def test_a_body_may_last_until_the_connection_ends() -> None:
    said = b"HTTP/1.0 200 OK\r\nRetry-After: 3\r\n\r\n" + CAPTURED
    assert await exchanged(said, end=Wire.end_of_stream) == (HttpResponse(200, CAPTURED, "3"), False)
    assert isinstance((await exchanged(said, end=lambda wire: wire.lose(OSError())))[0], BrokenExchange)


@pytest.mark.parametrize("status", [200, 503])
async def test_such_a_body_that_was_cut_says_nothing(status: int) -> None:
    head = b"HTTP/1.1 %d Whatever\r\n\r\n" % status
    for at in range(len(CAPTURED)):
        result, _ = await exchanged(head + b"\n" + CAPTURED[:at], end=Wire.end_of_stream)
        if isinstance(result, HttpResponse):
            # An empty 503 would mean that no money moved.
            assert isinstance(parse_charge_answer(result, PAYMENT, now=NOW), Unknown)


UNREADABLE = {
    "garbage": b"\x16\x03\x01 no such thing",
    "a page": b"<html>Hello</html>",
    "two answers": OK + OK,
    "an answer and garbage": OK + b"x",
    "an answer and more body": OK + b" and more",
    "an answer and half": OK + b"HTTP",
    "more after close": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok" + OK,
    "a body for 204": b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\nok",
    "length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked and length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "a list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "a signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "a length beyond all": b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok",
    "another coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a coding after chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\nok",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a chunk beyond all": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\nok\r\n0\r\n\r\n",
    "a chunk without a size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nok\r\n0\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "a folded field": b"HTTP/1.1 200 OK\r\nX: a\r\n Content-Length: 5\r\nContent-Length: 2\r\n\r\nok",
    "a space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    "a NUL in a field": b"HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 2\r\n\r\nok",
    "another protocol from here": b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + OK,
    "an unasked 101": b"HTTP/1.1 101 Switch\r\n\r\n" + OK,
    "a huge head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_FRAMING_BYTES,
    "a huge head, complete": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: " + b"x" * MAX_FRAMING_BYTES + b"\r\n\r\nok",
    "many fields": b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * (MAX_FRAMING_BYTES // 6) + b"Content-Length: 2\r\n\r\nok",
    "interim answers for ever": b"HTTP/1.1 102 Processing\r\n\r\n" * (MAX_FRAMING_BYTES // 27 + 1),
    "a chunk's endless extension": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;"
    + b"x" * MAX_FRAMING_BYTES,
    "a body one too long": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_ANSWER_BYTES + 1)
    + b" " * (MAX_ANSWER_BYTES + 1),
    "a body without end": b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (MAX_ANSWER_BYTES + 1),
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_what_is_no_answer_ends_the_connection(name: str) -> None:
    said = UNREADABLE[name]
    result, kept = await exchanged(said)
    assert isinstance(result, BrokenExchange)
    assert (kept, result.stale) == (False, False)
    # A complete answer before the failure is used; the next call finds the connection closed.
    for at in range(1, min(len(said), 256)):
        result, kept = await exchanged(said[:at], said[at:], end=Wire.end_of_stream)
        assert not kept
        assert isinstance(result, BrokenExchange) or said[:at] == OK or result.status == 204 or b"close" in said


@given(st.lists(st.one_of(st.sampled_from([*(said for said, _, _ in WHOLE.values()), OK[:20]]), st.binary(max_size=9))))
@settings(max_examples=150, deadline=None)
def test_bytes_of_any_kind_end_in_an_answer_or_a_closed_connection(pieces: list[bytes]) -> None:
    result, kept = run(exchanged(*pieces, end=lambda wire: None if kept_open(wire) else wire.end_of_stream()))
    assert isinstance(result, HttpResponse | BrokenExchange)
    assert not kept or isinstance(result, HttpResponse)


def kept_open(wire: Wire) -> bool:
    """A complete answer without further bytes."""
    connection = wire._protocol
    assert isinstance(connection, HttpConnection)
    return connection._answer is None and not wire.is_closing()


@pytest.mark.parametrize("unasked", [OK, b"\r\n", b"H", b"HTTP/1.1 408 Timeout\r\nConnection: close\r\n\r\n"])
async def test_data_that_nobody_asked_for_ends_the_connection(unasked: bytes) -> None:
    with wired() as (connection, wire):
        call = await started(connection)
        connection.data_received(OK)
        assert isinstance(await call, HttpResponse)
        connection.data_received(unasked)
        assert wire.is_closing()
        assert not connection.is_open
        await connection.lost


async def test_a_server_that_speaks_first_is_not_asked() -> None:
    with wired() as (connection, wire):
        connection.data_received(OK)
        assert not connection.is_open
        assert wire.is_closing()
        await connection.lost


async def test_an_answer_after_the_deadline_finds_the_connection_closed() -> None:
    with wired() as (connection, wire):
        call = await started(connection, within_s=0.01)
        assert await call == OVERDUE
        assert wire.is_closing()
        await connection.lost


async def test_an_answer_whose_caller_has_gone_finds_the_connection_closed() -> None:
    with wired() as (connection, wire):
        call = await started(connection)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert wire.is_closing()
        await connection.lost


async def test_each_exchange_has_its_own_deadline() -> None:
    with wired() as (connection, _):
        long = await started(connection)
        connection.data_received(OK)
        await long
        # Sooner than the one before it...
        assert await (await started(connection, within_s=0.01)) == OVERDUE
        await connection.lost
    with wired() as (connection, _):
        short = await started(connection, within_s=0.01)
        connection.data_received(OK)
        await short
        # ... and later: the first deadline passes during the second exchange.
        long = await started(connection)
        await asyncio.sleep(0.05)
        assert not long.done()
        connection.data_received(OK)
        assert await long == HttpResponse(200, b"ok", None)
        # The deadline of an answered exchange has no effect.
        third = await started(connection, within_s=0.01)
        connection.data_received(OK)
        await third
        await asyncio.sleep(0.05)
        assert connection.is_open
        connection.end(OVERDUE)
        await connection.lost


async def test_only_a_kept_connection_that_ends_without_a_byte_is_stale() -> None:
    with wired() as (connection, wire):
        first = await started(connection)
        connection.data_received(OK)
        await first
        second = await started(connection)
        wire.end_of_stream()
        assert await second == BrokenExchange("connection lost: closed by the server", stale=True)
    with wired() as (connection, wire):
        first = await started(connection)
        connection.data_received(OK)
        await first
        second = await started(connection)
        connection.data_received(b"H")
        wire.end_of_stream()
        assert await second == BrokenExchange("connection lost: closed by the server")
    with wired() as (connection, wire):
        first = await started(connection)
        wire.end_of_stream()
        assert await first == BrokenExchange("connection lost: closed by the server")


# Connections that the server has closed, or sent stray bytes on, before the event loop noticed


@dataclass(slots=True)
class Listener:
    """A server without a loop: each action is complete when the call returns."""

    server: socket.socket
    connections: list[socket.socket] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server.getsockname()[1]}"

    async def accept(self) -> socket.socket:
        connection, _ = await asyncio.get_running_loop().sock_accept(self.server)
        connection.setblocking(False)
        self.connections.append(connection)
        return connection

    async def read(self, connection: socket.socket) -> bytes:
        return await asyncio.get_running_loop().sock_recv(connection, 65536)


@contextlib.contextmanager
def listening() -> Iterator[Listener]:
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as closing:
        server.setblocking(False)
        listener = Listener(server)
        yield listener
        for connection in listener.connections:
            closing.enter_context(connection)


def spoken(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def shut(connection: socket.socket) -> None:
    connection.close()


def rst(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def second_answer(connection: socket.socket) -> None:
    connection.send(spoken(b'{"provider_ref": "another payment"}'))


@pytest.mark.parametrize("spoil", [shut, rst, second_answer])
async def test_no_charge_is_written_to_a_connection_that_was_closed_or_spoilt(
    spoil: Callable[[socket.socket], None],
) -> None:
    with listening() as listener:
        async with client(listener.base_url) as provider:
            first = asyncio.create_task(provider.charge(PAYMENT))
            kept = await listener.accept()
            await listener.read(kept)
            kept.send(spoken(CAPTURED))
            assert await first == Approved("ch_1")
            spoil(kept)
            second = provider.charge(PAYMENT)  # continues without a turn of the event loop
            answering = asyncio.create_task(_answer_next(listener))
            assert await second == Approved("ch_2")
            await answering


async def _answer_next(listener: Listener) -> None:
    connection = await listener.accept()
    await listener.read(connection)
    connection.send(spoken(b'{"provider_ref": "ch_2"}'))


@pytest.mark.parametrize(("idle_limit_s", "connections"), [(LONG_S, 1), (0.0, 2)])
async def test_a_connection_that_was_idle_for_the_pools_limit_is_not_used_again(
    idle_limit_s: float, connections: int
) -> None:
    async with raw_server(answer(200, CAPTURED)) as server:
        pool = await _pool(server.base_url, connections=1, idle_limit_s=idle_limit_s)
        for _ in range(2):
            assert await _got(pool) == HttpResponse(200, CAPTURED, None)
        await pool.aclose()
        assert server.connections == connections


# Headers and bodies beyond the usual


async def test_an_answer_carries_the_headers_on_the_allow_list_alone() -> None:
    said = (
        "Request-Id: req_1",
        "request-id: req_2",
        "Set-Cookie: session=1",
        "Idempotent-Replayed: true",
        "X-Other: 1",
    )
    async with raw_server(answer(200, b"", *said), answer(200, b""), answer(200, b"", "Request-Id: req_3")) as server:
        pool = await _pool(server.base_url, connections=1, headers=("Request-Id", "Idempotent-Replayed", "Location"))
        found = [await _got(pool) for _ in range(3)]
        await pool.aclose()
        assert server.connections == 1
    assert [answered.headers for answered in found if isinstance(answered, HttpResponse)] == [
        {"request-id": "req_1", "idempotent-replayed": "true"},
        {},
        {"request-id": "req_3"},
    ]


async def test_headers_of_interim_answers_and_trailers_are_no_headers() -> None:
    local, remote = socket.socketpair()
    with local, remote:
        connection = HttpConnection(on_lost=lambda _: None, headers=frozenset({b"location"}))
        Wire(connection, local)
        call = await started(connection)
        connection.data_received(b"HTTP/1.1 103 Hints\r\nLocation: /hint\r\n\r\nHTTP/1.1 200 OK\r\n")
        connection.data_received(b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nLocation: /trailer\r\n\r\n")
        assert await call == HttpResponse(200, b"ok", None)
        connection.end(OVERDUE)
        await connection.lost


async def test_a_call_may_allow_a_longer_answer_and_the_next_one_does_not() -> None:
    body = b" " * (MAX_ANSWER_BYTES + 1)
    async with raw_server(answer(200, body)) as server:
        pool = await _pool(server.base_url, connections=1)
        assert await _got(pool, max_answer_bytes=len(body)) == HttpResponse(200, body, None)
        assert await _got(pool) == BrokenExchange("HTTP 200 with more than 64 kB")
        await pool.aclose()


async def _got(pool: ConnectionPool, *, max_answer_bytes: int = MAX_ANSWER_BYTES) -> HttpResponse | BrokenExchange:
    """Return the answer to a GET."""
    connection = await _take(pool)
    due_s = asyncio.get_running_loop().time() + LONG_S
    try:
        return await connection.exchange(
            b"GET / HTTP/1.1\r\n\r\n", due_s=due_s, overdue=OVERDUE, max_answer_bytes=max_answer_bytes
        )
    finally:
        pool.give_back(connection)


async def test_a_connection_that_the_server_will_close_is_closed_at_once() -> None:
    hung_up = asyncio.Event()

    async def say_close_and_wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(200, CAPTURED, "Connection: close")(reader, writer)
        await reader.read()
        hung_up.set()

    async with raw_server(say_close_and_wait) as server, client(server.base_url) as provider:
        assert await provider.charge(PAYMENT) == Approved("ch_1")
        await asyncio.wait_for(hung_up.wait(), LONG_S)


async def test_a_connection_that_ends_before_the_request_is_written_has_sent_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local, remote = socket.socketpair()

    async def connect(new: Callable[[], HttpConnection], *_: object, **__: object) -> tuple[Wire, HttpConnection]:
        connection = new()
        wire = Wire(connection, local)
        connection.data_received(OK)
        return wire, connection

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", connect)
    with local, remote:
        async with client("http://127.0.0.1:1") as provider:
            result = await provider.charge(PAYMENT)
    assert result == Unavailable("no connection: the server hung up before the request")


# Look-ups may be repeated, once


@pytest.mark.parametrize("end", [close, reset])
async def test_a_look_up_on_a_stale_connection_is_repeated_on_a_fresh_one(end: Act) -> None:
    async with raw_server(answer(200, FOUND), end, answer(200, FOUND)) as server, client(server.base_url) as provider:
        assert await provider.look_up(PAYMENT) == Approved("ch_1")
        assert await provider.look_up(PAYMENT) == Approved("ch_1")
        assert (server.connections, len(server.requests)) == (2, 3)


async def test_a_look_up_is_repeated_once_only() -> None:
    async with raw_server(answer(200, FOUND), close) as server, client(server.base_url) as provider:
        assert await provider.look_up(PAYMENT) == Approved("ch_1")
        assert isinstance(await provider.look_up(PAYMENT), Unknown)
        assert (server.connections, len(server.requests)) == (2, 3)


async def test_the_repeat_does_not_use_another_kept_connection() -> None:
    gate = asyncio.Event()

    async def together(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await answer(200, FOUND)(reader, writer)

    acts = (together, together, together, close, answer(200, FOUND))
    async with raw_server(*acts) as server, client(server.base_url, connections=3) as provider:
        calls = [asyncio.create_task(provider.look_up(PAYMENT)) for _ in range(3)]
        while len(server.requests) < 3:
            await asyncio.sleep(0.001)
        gate.set()
        await asyncio.gather(*calls)
        assert await provider.look_up(PAYMENT) == Approved("ch_1")
        assert (server.connections, len(server.requests)) == (4, 5)


@pytest.mark.parametrize("act", [close, then_close(answer(200, FOUND[:10], length=100))])
async def test_a_look_up_that_broke_in_any_other_way_is_not_repeated(act: Act) -> None:
    async with raw_server(act) as server, client(server.base_url) as provider:
        assert isinstance(await provider.look_up(PAYMENT), Unknown)
        assert len(server.requests) == 1


async def test_a_look_up_that_timed_out_is_not_repeated() -> None:
    async with (
        raw_server(answer(200, FOUND), hang) as server,
        client(server.base_url, timeout_s=0.5) as provider,
    ):
        await provider.look_up(PAYMENT)
        assert await provider.look_up(PAYMENT) == Unknown("no answer within 0.5 s")
        assert len(server.requests) == 2


# The pool


async def test_callers_get_a_connection_in_the_order_of_coming() -> None:
    async with raw_server(answer(200, CAPTURED)) as server, client(server.base_url, connections=1) as provider:
        keys = [f"key-{number}" for number in range(20)]
        calls = [asyncio.create_task(provider.charge(replace(PAYMENT, provider_key=key))) for key in keys]
        assert set(await asyncio.gather(*calls)) == {Approved("ch_1")}
        assert [_key(request) for request in server.requests] == keys
        assert server.connections == 1


def _key(request: bytes) -> str:
    match = re.search(rb"^Idempotency-Key: (.*)\r$", request, re.MULTILINE)
    assert match is not None
    return match[1].decode()


async def test_there_are_never_more_connections_than_allowed() -> None:
    open_now = most = 0

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0.002)
        open_now -= 1
        await answer(200, CAPTURED)(reader, writer)

    async with raw_server(counted) as server, client(server.base_url, connections=3, timeout_s=60) as provider:
        results = await asyncio.gather(*(provider.charge(PAYMENT) for _ in range(30)))
    assert set(results) == {Approved("ch_1")}
    assert (most, server.connections) == (3, 3)


async def test_the_wait_for_a_connection_has_a_deadline_of_its_own() -> None:
    async with (
        raw_server(hang) as server,
        client(server.base_url, timeout_s=1000, connect_s=0.05, connections=1) as provider,
    ):
        first = asyncio.create_task(provider.charge(PAYMENT))
        while not server.requests:
            await asyncio.sleep(0.001)
        assert await provider.charge(PAYMENT) == Unavailable("no connection in time")
        assert not first.done()
        await provider.aclose()
        assert isinstance(await first, Unknown)


async def test_a_caller_that_gives_up_waiting_does_not_take_a_place_along() -> None:
    async with raw_server(answer(200, CAPTURED)) as server:
        pool = await _pool(server.base_url, connections=1)
        held = await _take(pool)
        turns = [asyncio.create_task(_take(pool)) for _ in range(3)]
        await asyncio.sleep(0)
        turns[0].cancel()  # while it waits
        await asyncio.sleep(0)
        pool.give_back(held)
        turns[1].cancel()  # in the moment of its turn
        pool.give_back(await turns[2])
        assert [turn.cancelled() for turn in turns] == [True, True, False]
        pool.give_back(await _take(pool))
        await pool.aclose()
        assert server.connections <= 1


async def _pool(
    base_url: str, *, connections: int, idle_limit_s: float = IDLE_LIMIT_S, headers: Iterable[str] = ()
) -> ConnectionPool:
    host, port = base_url.removeprefix("http://").split(":")
    return ConnectionPool(
        host=host, port=int(port), tls=None, connections=connections, idle_limit_s=idle_limit_s, headers=headers
    )


async def _take(pool: ConnectionPool) -> HttpConnection:
    connection = await pool.take(due_s=asyncio.get_running_loop().time() + LONG_S)
    assert isinstance(connection, HttpConnection)
    return connection


async def test_failed_connections_leave_their_places() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with client(f"http://127.0.0.1:{bound.getsockname()[1]}", connections=1) as provider:
            for _ in range(3):
                assert isinstance(await provider.charge(PAYMENT), Unavailable)
            bound.listen()
            # A server now accepts the connection and does not answer.
            provider._http._timeout_s = 0.2
            assert isinstance(await provider.charge(PAYMENT), Unknown)


async def test_closing_ends_those_who_wait_as_not_sent() -> None:
    async with raw_server(hang) as server, client(server.base_url, connections=1) as provider:
        calls = [asyncio.create_task(provider.charge(PAYMENT)) for _ in range(3)]
        while not server.requests:
            await asyncio.sleep(0.001)
        await provider.aclose()
        first, *others = await asyncio.gather(*calls)
        assert first == Unknown("the client was closed")
        assert others == [Unavailable("the client is closed")] * 2
        assert await provider.charge(PAYMENT) == Unavailable("the client is closed")
        assert len(server.requests) == 1


async def test_closing_ends_those_who_connect_as_not_sent() -> None:
    with socket.socket() as full, socket.socket() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting.setblocking(False)
        waiting.connect_ex(full.getsockname())  # takes the only place in the backlog: the next SYN is dropped
        async with client(f"http://127.0.0.1:{full.getsockname()[1]}", timeout_s=LONG_S) as provider:
            call = asyncio.create_task(provider.charge(PAYMENT))
            while not provider._http._pool._connect_timeouts:
                await asyncio.sleep(0.001)
            await provider.aclose()
            assert await call == Unavailable("the client is closed")


@pytest.mark.parametrize("loop", LOOPS)
def test_nothing_is_left_behind_after_closing(loop: str) -> None:
    async def story() -> tuple[int, int]:
        async with raw_server(answer(200, CAPTURED)) as server:
            async with client(server.base_url) as provider:
                await asyncio.gather(*(provider.charge(PAYMENT) for _ in range(5)))
                held = len(provider._http._pool._connections)
            assert all(connection.lost.done() for connection in provider._http._pool._idle)
            return held, len(provider._http._pool._connections)

    held, left = run(story(), loop=loop)
    assert 1 <= held <= 5
    assert left == 0


async def test_a_cancelled_call_closes_its_connection_and_leaves_its_place() -> None:
    async with (
        raw_server(hang, answer(200, CAPTURED)) as server,
        client(server.base_url, connections=1) as provider,
    ):
        call = asyncio.create_task(provider.charge(PAYMENT))
        while not server.requests:
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await provider.charge(PAYMENT) == Approved("ch_1")
        assert server.connections == 2


async def test_a_connection_that_nobody_can_have_was_not_written_to() -> None:
    async with raw_server(answer(200, CAPTURED)) as server:
        pool = await _pool(server.base_url, connections=1)
        pool.give_back(await _take(pool))
        held = await _take(pool)
        now_s = asyncio.get_running_loop().time()
        assert await pool.take(due_s=now_s + 0.01) == NoConnection("no connection in time")
        pool.give_back(held)
        await pool.aclose()
        assert server.requests == []


# Requests


async def test_the_head_names_the_host_and_the_port() -> None:
    async with raw_server(answer(200, FOUND)) as server, client(server.base_url + "/a%20b") as provider:
        await provider.look_up(PAYMENT)
    [request] = server.requests
    lines = request.decode().split("\r\n")
    assert lines[0] == "GET /a%20b/charges/pk-1 HTTP/1.1"
    assert lines[1] == f"Host: {server.base_url.removeprefix('http://')}"
    assert lines[2:] == ["Accept: application/json", "Accept-Encoding: identity", "User-Agent: okane", "", ""]


@pytest.mark.parametrize(
    ("user_info", "pair"), [("me", "me:"), ("me:se%40cret", "me:se@cret"), (":secret", ":secret"), ("\xfc:p", "\xfc:p")]
)
async def test_a_user_in_the_base_url_becomes_basic_authorization(user_info: str, pair: str) -> None:
    async with raw_server(answer(200, CAPTURED)) as server:
        address = server.base_url.removeprefix("http://")
        async with client(f"http://{user_info}@{address}") as provider:
            assert await provider.charge(PAYMENT) == Approved("ch_1")
    [request] = server.requests
    assert f"Authorization: Basic {b64encode(pair.encode('latin-1')).decode()}\r\n".encode() in request
    assert f"Host: {address}\r\n".encode() in request


async def test_a_provider_may_live_at_an_ipv6_address() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        await answer(200, FOUND)(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, sock=listener)
    address = f"[::1]:{listener.getsockname()[1]}"
    async with server, client(f"http://{address}") as provider:
        assert await provider.look_up(PAYMENT) == Approved("ch_1")
    assert f"Host: {address}\r\n".encode() in heads[0]


@pytest.mark.parametrize(
    "key", ["a\r\nX: y", "a\n", "\r", "a b", "a\x00", "", " a", "schl\xfcssel", "\u2028", "\ud800"]
)
async def test_a_key_that_fits_no_header_is_refused_and_nothing_sent(key: str) -> None:
    async with raw_server(answer(200, CAPTURED)) as server, client(server.base_url) as provider:
        with pytest.raises(ValueError, match="provider key"):
            await provider.charge(replace(PAYMENT, provider_key=key))
        assert server.connections == 0


async def test_a_currency_cannot_break_out_of_the_body() -> None:
    currency = '", "amount": 1, "x": "\u00fc\r\n'
    async with raw_server(answer(200, CAPTURED)) as server, client(server.base_url) as provider:
        await provider.charge(replace(PAYMENT, currency=currency))
    [request] = server.requests
    said = json.loads(request.partition(b"\r\n\r\n")[2])
    assert said == {"payment_id": str(PAYMENT.id), "amount": 440, "currency": currency}


@pytest.mark.parametrize("url", ["http://a b/", "http://h\x00/", "http://h\x7f/"])
async def test_a_host_that_can_be_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="base URL"):
        client(url)


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
async def test_a_name_that_dns_cannot_carry_is_unavailable(host: str) -> None:
    async with client(f"http://{host}") as provider:
        assert isinstance(await provider.charge(PAYMENT), Unavailable)


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    """A server's context for localhost."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("no openssl here")
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    made = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    files = ("-keyout", str(key), "-out", str(chain))
    subprocess.run([openssl, "req", "-x509", *made, *subject, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context


@contextlib.asynccontextmanager
async def tls_server(context: ssl.SSLContext) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answer every request; yield the port and the requests, one list entry each."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                requests.append(head + (await reader.readuntil(b"}") if head.startswith(b"POST") else b""))
                await answer(200, FOUND)(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "localhost", 0, ssl=context, family=socket.AF_INET)
    async with server:
        yield server.sockets[0].getsockname()[1], requests


@pytest.mark.parametrize("loop", LOOPS)
def test_a_provider_may_speak_tls(
    certificate: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "chain.pem"))

    async def story() -> None:
        async with tls_server(certificate) as (port, requests), client(f"https://localhost:{port}") as provider:
            for _ in range(3):
                assert await provider.charge(PAYMENT) == Approved("ch_1")
                assert await provider.look_up(PAYMENT) == Approved("ch_1")
            assert len(requests) == 6
            assert len(provider._http._pool._connections) == 1

    run(story(), loop=loop)


@pytest.mark.parametrize(("host", "trusted"), [("127.0.0.1", True), ("localhost", False)])
async def test_a_certificate_that_proves_nothing_is_unavailable(
    certificate: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, trusted: bool
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "chain.pem"))
    async with tls_server(certificate) as (port, requests), client(f"https://{host}:{port}") as provider:
        result = await provider.charge(PAYMENT)
    assert isinstance(result, Unavailable)
    assert "certificate" in result.reason.lower()
    assert requests == []


# The failpoint


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.disarm_all()


@pytest.mark.parametrize(
    ("action", "reason"),
    [("raise", "connection lost: failpoint provider.before_answer"), ("delay=60", "no answer within 0.5 s")],
)
async def test_the_failpoint_lies_between_the_charge_and_its_answer(action: str, reason: str) -> None:
    async with (
        raw_server(answer(200, CAPTURED)) as server,
        client(server.base_url, timeout_s=0.5) as provider,
    ):
        await provider.charge(PAYMENT)
        failpoints.arm(f"provider.before_answer:{action}")
        assert await provider.charge(PAYMENT) == Unknown(reason)
        assert len(server.requests) == 2


# A server with random faults

WHAT_IT_MAY_DO = (
    "answer",
    "in pieces",
    "chunked",
    "after interim answers",
    "saying close",
    "and hang up",
    "twice",
    "twice in two writes",
    "and a bit more",
    "early",
    "late",
    "at the last moment",
    "cut",
    "reset",
    "garbage",
    "huge head",
    "hang up",
)
CLEAN = ("answer", "in pieces", "chunked", "after interim answers", "saying close")
SHORT_S = 0.04


@dataclass(slots=True)
class NastyServer:
    """Draw the fault of each request. Each answer names the key of its request."""

    acts: list[str]
    cut_at: int
    keys: list[str] = field(default_factory=list)
    base_url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                self.keys.append(_key(head))
                act = self.acts[(len(self.keys) - 1) % len(self.acts)]
                body = b'{"provider_ref": "for %s"}' % self.keys[-1].encode()
                if act == "early":
                    writer.write(spoken(body))
                await reader.readuntil(b"}")
                await self.misbehave(act, body, reader, writer)

    async def misbehave(
        self, act: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        said = spoken(body)
        match act:
            case "early":
                pass
            case "answer":
                writer.write(said)
            case "in pieces":
                for at in range(0, len(said), 7):
                    writer.write(said[at : at + 7])
                    await asyncio.sleep(0)
            case "chunked":
                head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                writer.write(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
            case "after interim answers":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
                await asyncio.sleep(0)
                writer.write(said)
            case "saying close":
                writer.write(said.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            case "and hang up":
                writer.write(said)
                writer.close()
            case "twice":
                writer.write(said + said)
            case "twice in two writes":
                writer.write(said)
                writer.write(said)
            case "and a bit more":
                writer.write(said + said[: self.cut_at])
            case "late":
                await reader.read()  # until the client hangs up
                writer.write(said)
            case "at the last moment":
                await asyncio.sleep(SHORT_S)
                writer.write(said)
            case "cut":
                writer.write(said[: self.cut_at])
                writer.close()
            case "reset":
                writer.write(said[: self.cut_at])
                await reset(reader, writer)
            case "garbage":
                writer.write(b"\x00" * self.cut_at + said)
            case "huge head":
                writer.write(said.replace(b"\r\n", b"\r\nX: " + b"x" * MAX_FRAMING_BYTES + b"\r\n", 1))
            case "hang up":
                writer.close()
            case _:
                raise AssertionError(act)


async def settle_with(server: NastyServer, *, calls: int, at_once: int, timeout_s: float) -> dict[str, ChargeResult]:
    """Charge this many payments, `at_once` at a time; return the results by key."""
    results: dict[str, ChargeResult] = {}
    keys = iter([f"key-{number}" for number in range(calls)])

    async def caller(provider: OkaneHttpProvider) -> None:
        for key in keys:
            results[key] = await provider.charge(_payment(key))

    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with client(url, timeout_s=timeout_s, connections=2) as provider:
            await asyncio.gather(*(caller(provider) for _ in range(at_once)))
            assert provider._http._pool._free == 2
            assert len(provider._http._pool._connections) <= 2
    return results


def _payment(key: str) -> Payment:
    return replace(PAYMENT, provider_key=key)


@pytest.mark.parametrize("loop", LOOPS)
@given(
    acts=st.lists(st.sampled_from(WHAT_IT_MAY_DO), min_size=1, max_size=8),
    cut_at=st.integers(0, 90),
    at_once=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_server_does_an_answer_is_never_given_to_another_call(
    loop: str, acts: list[str], cut_at: int, at_once: int
) -> None:
    server = NastyServer(acts, cut_at)
    results = run(settle_with(server, calls=10, at_once=at_once, timeout_s=SHORT_S), loop=loop)
    assert len(server.keys) == len(set(server.keys)), "a charge was written twice"
    for key, result in results.items():
        match result:
            case Approved(ref):
                assert ref == f"for {key}"
            case Unavailable():
                assert key not in server.keys
            case _:
                assert isinstance(result, Unknown)


@pytest.mark.parametrize("loop", LOOPS)
@given(acts=st.lists(st.sampled_from(CLEAN), min_size=1, max_size=8), at_once=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_a_server_that_only_looks_odd_is_understood(loop: str, acts: list[str], at_once: int) -> None:
    results = run(settle_with(NastyServer(acts, 0), calls=10, at_once=at_once, timeout_s=LONG_S), loop=loop)
    assert results == {key: Approved(f"for {key}") for key in results}
    assert len(results) == 10
