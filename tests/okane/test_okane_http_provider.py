"""The provider client against a raw TCP server with every fault: one test per row of the outcome table."""

from __future__ import annotations

import asyncio
import json
import socket
import traceback
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from okane.http.connection import HttpResponse
from okane.providers.base import Approved, Declined, NotFound, Unavailable, Unknown
from okane.providers.okane_http.answer_parser import parse_charge_answer
from okane.providers.retry_after import RETRY_AFTER_CAP, parse_retry_after
from okane.simulator.app import serving
from okane.simulator.options import SimulatorOptions
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

PAGE = b"<html><body>Bad gateway</body></html>"


async def charge_against(*acts: Act, timeout_s: float = 5.0) -> object:
    async with raw_server(*acts) as server, client(server.base_url, timeout_s=timeout_s) as provider:
        return await provider.charge(PAYMENT)


async def look_up_against(*acts: Act, timeout_s: float = 5.0) -> object:
    async with raw_server(*acts) as server, client(server.base_url, timeout_s=timeout_s) as provider:
        return await provider.look_up(PAYMENT)


# Requests


async def test_a_charge_is_one_post_with_key_payment_amount_and_currency() -> None:
    async with raw_server(answer(200, CAPTURED)) as server, client(server.base_url + "/v2/") as provider:
        assert await provider.charge(PAYMENT) == Approved("ch_1")
    [request] = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v2/charges HTTP/1.1"
    assert {"Idempotency-Key: pk-1", "Content-Type: application/json"} <= set(lines)
    assert json.loads(body) == {"payment_id": str(PAYMENT.id), "amount": 440, "currency": "USD"}


async def test_no_cookie_of_one_payment_reaches_the_next() -> None:
    async with (
        raw_server(answer(200, CAPTURED, "Set-Cookie: session=1")) as server,
        client(server.base_url) as provider,
    ):
        await provider.charge(PAYMENT)
        await provider.charge(PAYMENT)
    assert all(b"cookie" not in request.lower() for request in server.requests)


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert await charge_against(answer(200, CAPTURED)) == Approved("ch_1")


@pytest.mark.parametrize("url", ["", "provider.example", "ftp://provider.example", "http://", "http://host/?a=b"])
async def test_a_base_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="base URL"):
        client(url)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://okane:s3cret@host",
        "https://okane:s3cret@host/?key=s3cret",
        "https://okane:s3cret@host/#s3cret",
        "okane:s3cret@host",
        "https://okane:s3cret@",
        "https://okane:s3cret#@host",
    ],
)
async def test_a_bad_base_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="base URL") as refused:
        client(url)
    assert "s3cret" not in "".join(traceback.format_exception(refused.value))


async def test_the_connect_timeout_must_leave_time_for_the_call() -> None:
    with pytest.raises(ValueError, match="connect_timeout"):
        client("http://127.0.0.1:1", timeout_s=1, connect_s=1)


# Approved, declined


@pytest.mark.parametrize("body", [CAPTURED, FOUND, b'{"provider_ref": "ch_1"}'])
async def test_a_readable_200_is_approved(body: bytes) -> None:
    assert await charge_against(answer(200, body)) == Approved("ch_1")


async def test_a_readable_201_is_approved() -> None:
    assert await charge_against(answer(201, CAPTURED)) == Approved("ch_1")


@pytest.mark.parametrize("status", [422, 402])
async def test_422_and_402_are_declined_with_the_providers_code(status: int) -> None:
    body = b'{"code": "card_declined", "message": "no"}'
    assert await charge_against(answer(status, body)) == Declined("card_declined", "no")


async def test_a_decline_without_a_code_is_still_a_decline() -> None:
    assert await charge_against(answer(422, b"{}")) == Declined("declined")


async def test_text_of_a_decline_is_made_fit_for_a_row() -> None:
    body = json.dumps({"code": "bad\x00code", "message": "\ud800" + "x" * 1000}).encode()
    result = await charge_against(answer(422, body))
    assert result == Declined("bad?code", "?" + "x" * 254)


# Unavailable: nothing happened there


async def test_a_refused_connection_is_unavailable() -> None:
    with socket.socket() as bound:  # bound and not listening: no other process can take the port
        bound.bind(("127.0.0.1", 0))
        async with client(f"http://127.0.0.1:{bound.getsockname()[1]}") as provider:
            result = await provider.charge(PAYMENT)
    assert isinstance(result, Unavailable)
    assert result.reason.startswith("no connection")


async def test_a_name_that_does_not_resolve_is_unavailable() -> None:
    async with client("http://provider.invalid") as provider:
        assert isinstance(await provider.charge(PAYMENT), Unavailable)


async def test_a_failed_tls_handshake_is_unavailable() -> None:
    async def no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(no_tls, "127.0.0.1", 0)
    async with server, client(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}") as provider:
        assert isinstance(await provider.charge(PAYMENT), Unavailable)


async def test_a_connect_timeout_is_unavailable() -> None:
    with socket.socket() as full, socket.socket() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting.setblocking(False)
        waiting.connect_ex(full.getsockname())  # takes the only place in the backlog: the next SYN is dropped
        async with client(f"http://127.0.0.1:{full.getsockname()[1]}", connect_s=0.2) as provider:
            assert await provider.charge(PAYMENT) == Unavailable("no connection in time")


async def test_waiting_for_a_free_connection_too_long_is_unavailable() -> None:
    async with (
        raw_server(hang) as server,
        client(server.base_url, timeout_s=1.0, connect_s=0.2, connections=1) as provider,
    ):
        first = asyncio.create_task(provider.charge(PAYMENT))
        second = asyncio.create_task(provider.charge(PAYMENT))
        assert await second == Unavailable("no connection in time")
        assert isinstance(await first, Unknown)
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"", b'{"code": "unavailable"}'])
async def test_a_contractual_503_is_unavailable(body: bytes) -> None:
    assert await charge_against(answer(503, body)) == Unavailable("HTTP 503")


@pytest.mark.parametrize("body", [b"", b"{}", PAGE])
async def test_a_429_is_unavailable(body: bytes) -> None:
    assert await charge_against(answer(429, body)) == Unavailable("HTTP 429", fault="limit")


async def test_retry_after_is_handed_on() -> None:
    assert await charge_against(answer(503, b"", "Retry-After: 7")) == Unavailable("HTTP 503", timedelta(seconds=7))


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        (None, None),
        ("0", timedelta(0)),
        (" 120 ", timedelta(seconds=120)),
        ("86400", RETRY_AFTER_CAP),
        ("9" * 5000, RETRY_AFTER_CAP),
        (format_datetime(NOW + timedelta(seconds=30), usegmt=True), timedelta(seconds=30)),
        (format_datetime(NOW - timedelta(days=1), usegmt=True), timedelta(0)),
        (format_datetime(NOW + timedelta(days=1), usegmt=True), RETRY_AFTER_CAP),
        ("Thu, 01 Jan 2026 00:00:30", timedelta(seconds=30)),
        ("1m0s", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("\u0663", None),
        ("Thu, 99 Jan 2026 00:00:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_reason(header: str | None, wait: timedelta | None) -> None:
    assert parse_retry_after(header, now=NOW) == wait


# Unknown: it may have been executed


async def test_a_timeout_after_the_request_went_out_is_unknown() -> None:
    assert await charge_against(hang, timeout_s=0.3) == Unknown("no answer within 0.3 s")


async def test_a_body_that_never_ends_is_unknown_at_the_deadline() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    assert await charge_against(drip, timeout_s=0.3) == Unknown("no answer within 0.3 s")


@pytest.mark.parametrize("act", [reset, close, answer(200, CAPTURED[:10], length=100), answer(200, length=-1)])
async def test_a_broken_answer_is_unknown(act: Act) -> None:
    assert isinstance(await charge_against(then_close(act)), Unknown)


@pytest.mark.parametrize("end", [reset, close])
async def test_a_charge_is_never_sent_twice_on_a_dead_keep_alive_connection(end: Act) -> None:
    async with (
        raw_server(answer(200, CAPTURED), end, answer(200, CAPTURED)) as server,
        client(server.base_url) as provider,
    ):
        assert await provider.charge(PAYMENT) == Approved("ch_1")
        assert isinstance(await provider.charge(PAYMENT), Unknown)
        assert (server.connections, len(server.requests)) == (1, 2)


@pytest.mark.parametrize("status", [500, 502, 504, 400, 401, 403, 404, 409, 418, 301, 303, 307, 308])
async def test_every_other_status_is_unknown_and_no_redirect_is_followed(status: int) -> None:
    async with raw_server(answer(status, b"{}", "Location: /elsewhere")) as server, client(server.base_url) as provider:
        result = await provider.charge(PAYMENT)
    assert isinstance(result, Unknown)
    assert str(status) in result.reason
    assert len(server.requests) == 1


async def test_a_conflict_names_itself() -> None:
    result = await charge_against(answer(409, b'{"code": "idempotency_key_reused"}'))
    assert result == Unknown("HTTP 409: the provider knows this key with another amount, currency or payment")


@pytest.mark.parametrize("status", [200, 422, 402, 503, 404])
async def test_html_is_unknown_under_every_status_that_would_mean_something(status: int) -> None:
    assert isinstance(await charge_against(answer(status, PAGE, "Content-Type: text/html")), Unknown)


async def test_a_503_of_a_proxy_whose_upstream_broke_is_unknown() -> None:
    body = b"upstream connect error or disconnect/reset before headers. reset reason: connection termination"
    assert await charge_against(answer(503, body)) == Unknown("HTTP 503")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"{}",
        b'{"provider_ref": ""}',
        b'{"provider_ref": 7}',
        b'{"provider_ref": "a\\u0000b"}',
        b'{"provider_ref": "' + b"x" * 256 + b'"}',
        b'{"provider_ref": "ch_1", "status": "pending"}',
        b'{"provider_ref": "ch_1", "amount": 441}',
        b'{"provider_ref": "ch_1", "amount": "440"}',
        b'{"provider_ref": "ch_1", "amount": 440.0}',
        b'{"provider_ref": "ch_1", "currency": "EUR"}',
        b"[" * 60_000,
        b" " * (64 * 1024 + 1),
    ],
)
async def test_a_200_that_does_not_say_what_was_charged_is_unknown(body: bytes) -> None:
    assert isinstance(await charge_against(answer(200, body)), Unknown)


async def test_another_amount_is_said_in_the_reason() -> None:
    result = await charge_against(answer(200, b'{"provider_ref": "ch_1", "amount": 441, "currency": "USD"}'))
    assert result == Unknown("provider answered for 441 USD, not 440 USD")


async def test_an_answer_without_end_is_dropped_and_the_client_goes_on() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(b" " * 65536)
            await writer.drain()

    async with raw_server(flood, answer(200, CAPTURED)) as server, client(server.base_url) as provider:
        assert await provider.charge(PAYMENT) == Unknown("HTTP 200 with more than 64 kB")
        assert await provider.charge(PAYMENT) == Approved("ch_1")


async def test_closing_the_client_ends_a_call_in_flight_as_unknown() -> None:
    started = asyncio.Event()

    async def tell_and_hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        started.set()
        await hang(reader, writer)

    async with raw_server(tell_and_hang) as server, client(server.base_url) as provider:
        call = asyncio.create_task(provider.charge(PAYMENT))
        await started.wait()
        await provider.aclose()
        assert isinstance(await call, Unknown)


# Look-ups


async def test_a_look_up_is_a_get_by_the_escaped_key() -> None:
    async with raw_server(answer(200, FOUND)) as server, client(server.base_url) as provider:
        assert await provider.look_up(replace(PAYMENT, provider_key="a/b?c")) == Approved("ch_1")
    assert server.requests[0].startswith(b"GET /charges/a%2Fb%3Fc HTTP/1.1\r\n")


async def test_a_found_decline_is_declined() -> None:
    body = b'{"provider_ref": "ch_1", "status": "declined", "code": "expired_card", "amount": 440, "currency": "USD"}'
    assert await look_up_against(answer(200, body)) == Declined("expired_card")


async def test_a_404_of_the_contract_is_not_found() -> None:
    assert await look_up_against(answer(404, b'{"code": "charge_not_found"}')) == NotFound()


@pytest.mark.parametrize("body", [b"", PAGE, b"404 page not found", b"[]"])
async def test_any_other_404_is_unknown(body: bytes) -> None:
    assert isinstance(await look_up_against(answer(404, body)), Unknown)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_look_up_that_is_not_taken_is_unavailable(status: int) -> None:
    result = await look_up_against(answer(status, b"", "Retry-After: 2"))
    assert result == Unavailable(f"HTTP {status}", timedelta(seconds=2), "limit" if status == 429 else "provider")


@pytest.mark.parametrize(
    "act",
    [
        answer(500, b"{}"),
        answer(422, b"{}"),
        answer(302, b"", "Location: /x"),
        answer(200, PAGE),
        answer(200, CAPTURED),  # without the amount it proves nothing
        answer(200, b'{"provider_ref": "ch_1", "amount": 440, "currency": "USD"}'),
        answer(200, b'{"provider_ref": "ch_1", "status": "pending", "amount": 440, "currency": "USD"}'),
        answer(200, b'{"provider_ref": "ch_1", "status": "captured", "amount": 441, "currency": "USD"}'),
        answer(200, b'{"provider_ref": "ch_1", "status": "declined", "amount": 440, "currency": "EUR"}'),
        close,
    ],
)
async def test_any_other_answer_to_a_look_up_is_unknown(act: Act) -> None:
    assert isinstance(await look_up_against(act), Unknown)


# Against the mock provider


@pytest.mark.parametrize(
    ("act", "outcome", "then"),
    [
        ("success", Approved, Approved),
        ("decline", Declined, Declined),
        ("unavailable", Unavailable, NotFound),
        ("rate_limit", Unavailable, NotFound),
        ("error_500", Unknown, NotFound),
        ("error_500_after_charge", Unknown, Approved),
        ("garbage", Unknown, Approved),
        ("timeout_after_charge", Unknown, Approved),
        ("timeout_before_charge", Unknown, NotFound),
        ("reset_after_charge", Unknown, Approved),
        ("reset_before_charge", Unknown, NotFound),
    ],
)
async def test_the_mock_provider_provokes_every_outcome_and_its_look_up(
    tmp_path: Path, act: str, outcome: type, then: type
) -> None:
    weights = {"success": 0, "unavailable": 0, "decline": 0} | {act: 1}
    options = SimulatorOptions(journal=tmp_path / "journal.jsonl", port=0, hang_s=0.5, **weights)  # type: ignore[arg-type] # weights are floats
    async with serving(options) as base_url, client(base_url, timeout_s=0.4) as provider:
        assert isinstance(await provider.charge(PAYMENT), outcome)
        assert isinstance(await provider.look_up(PAYMENT), then)


@pytest.mark.parametrize("ours_is_ahead", [timedelta(0), timedelta(hours=1), timedelta(hours=-1)])
def test_a_retry_after_date_is_counted_by_the_providers_own_clock(ours_is_ahead: timedelta) -> None:
    theirs = NOW - ours_is_ahead
    due, date = (format_datetime(at, usegmt=True) for at in (theirs + timedelta(seconds=90), theirs))
    assert parse_charge_answer(HttpResponse(503, b"", due, date), PAYMENT, now=NOW) == Unavailable(
        "HTTP 503", timedelta(seconds=90)
    )
