"""Exchanges whose answer is its head (`head_counts`): the answers of webhook receivers, byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from okane.http import connection as http_connection
from okane.http.connection import BrokenExchange, HttpResponse
from tests.okane.test_connection_pool import LONG_S, OVERDUE, WHOLE, Wire, wired


async def exchanged(
    *pieces: bytes, end: Callable[[Wire], None] | None = None, within_s: float = LONG_S
) -> tuple[HttpResponse | BrokenExchange, bool]:
    """Return the outcome of an answer in these pieces, and True if the connection may be used again."""
    with wired() as (connection, wire):
        due_s = asyncio.get_running_loop().time() + within_s
        call = asyncio.create_task(connection.exchange(b"POST", due_s=due_s, overdue=OVERDUE, head_counts=True))
        await asyncio.sleep(0)
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


@pytest.mark.parametrize("name", WHOLE)
async def test_a_whole_answer_is_the_one_of_the_other_mode(name: str) -> None:
    said, expected, kept = WHOLE[name]
    kept = kept or name == "204"  # the usual answer of receivers
    for at in range(1, len(said)):
        assert await exchanged(said[:at], said[at:]) == (expected, kept)


@pytest.mark.parametrize("name", WHOLE)
async def test_an_answer_cut_after_its_head_counts_and_ends_the_connection(name: str) -> None:
    said, expected, _ = WHOLE[name]
    head_end = said.index(b"\r\n\r\n", said.rindex(b"HTTP/1.")) + 4
    for at in range(len(said)):
        for end in (Wire.end_of_stream, lambda wire: wire.lose(ConnectionResetError("reset"))):
            result, kept = await exchanged(*([said[:at]] if at else []), end=end)
            assert not kept
            if at < head_end:
                assert isinstance(result, BrokenExchange), said[:at]
            else:
                assert isinstance(result, HttpResponse), said[:at]
                assert (result.status, result.retry_after) == (expected.status, expected.retry_after)
                assert expected.body.startswith(result.body)


async def test_a_body_after_a_204_ends_the_connection_in_whatever_pieces_it_comes() -> None:
    said = b"HTTP/1.1 204 No Content\r\n\r\n"
    for body in (b"ok", b"HTTP/1.1 200 OK\r\n", b"\0"):
        assert await exchanged(said + body) == (HttpResponse(204, b"", None), False)
        assert await exchanged(said, body) == (HttpResponse(204, b"", None), False)


async def test_a_slow_body_ends_the_connection_after_its_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "BODY_GRACE_S", 0.01)
    result, kept = await exchanged(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"ha", b"lf")
    assert (result, kept) == (HttpResponse(200, b"half", None), False)


async def test_a_slow_head_is_overdue() -> None:
    assert await exchanged(b"HTTP/1.1 200 OK\r\n", within_s=0.01) == (OVERDUE, False)


async def test_a_head_without_an_end_is_no_answer() -> None:
    fields = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 1000) for number in range(70))
    result, kept = await exchanged(b"HTTP/1.1 200 OK\r\n" + fields)
    assert isinstance(result, BrokenExchange)
    assert not kept


async def test_another_protocol_is_no_answer() -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
    assert isinstance((await exchanged(switching))[0], BrokenExchange)
