"""Clients that are slow, too many, or send no HTTP lose their connection; other clients are not affected."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import cast

import pytest
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from okane.api.access import AnonymousAccess
from okane.api.http.connection_limits import ConnectionLimits, ConnectionMetrics
from okane.api.http.fast_path import FastPath
from okane.api.http.server import GuardedRunner
from okane.api.middleware import Scopes, around_requests
from okane.api.payment_creation import MAX_BODY_BYTES, PaymentCreation
from okane.config import Settings
from okane.intake.accept import PaymentIntake
from okane.lanes import payments_stream
from okane.metrics import OkaneMetrics
from okane.open_files import SPARE_FILES
from okane.store import PaymentStore
from streams.testing import MemoryQueue
from tests.flow.system import System

# What a test does not wait for is far away, what it waits for is near.
FAR_S = 60.0
NEAR_S = 0.2
PATIENT = ConnectionLimits(connections=100, head_timeout_s=FAR_S, keep_alive_timeout_s=FAR_S, write_timeout_s=FAR_S)
WAIT_S = 20.0

HEALTH = b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """Return the bytes of a connection until it ended."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])


@dataclass(frozen=True, slots=True)
class Served:
    """A server in this process."""

    port: int
    registry: CollectorRegistry

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def answers(self, sent: bytes) -> list[Answer]:
        """All that is answered to these bytes before the server hangs up."""
        reader, writer = await self.connect()
        writer.write(sent)
        try:
            return _answers(await _rest(reader))
        finally:
            writer.close()

    def refused(self, reason: str) -> float:
        """Return the count for this reason; every reason starts at 0."""
        count = self.registry.get_sample_value("okane_http_requests_refused_total", {"reason": reason})
        assert count is not None, f"{reason} is not among the reasons"
        return count

    def open(self) -> float | None:
        return self.registry.get_sample_value("okane_http_connections")


async def _rest(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(WAIT_S):
        return await reader.read()


def _answers(received: bytes) -> list[Answer]:
    answers = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        headers = dict(field.split(": ", 1) for field in fields)
        length = int(headers.get("Content-Length", "0"))
        answers.append(Answer(int(line.split()[1]), headers, received[:length]))
        received = received[length:]
    return answers


async def _health(_request: web.Request) -> web.Response:
    return web.Response(body=b"{}", content_type="application/json")


async def _large(_request: web.Request) -> web.Response:
    return web.Response(body=b" " * LARGE_BYTES)


async def _body(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


@asynccontextmanager
async def serving(limits: ConnectionLimits) -> AsyncIterator[Served]:
    registry = CollectorRegistry()
    metrics = OkaneMetrics(registry)
    for_everybody: Scopes = {("GET", "/v1/health"): None, ("GET", "/large"): None, ("POST", "/body"): None}
    around = around_requests(metrics, AnonymousAccess(), for_everybody)
    app = web.Application(middlewares=[around], client_max_size=MAX_BODY_BYTES)
    app.router.add_get("/v1/health", _health)
    app.router.add_get("/large", _large)
    app.router.add_post("/body", _body)
    runner = GuardedRunner(
        app,
        limits=limits,
        metrics=ConnectionMetrics(registry),
        fast_path=_fast_path(metrics),
        shutdown_timeout=0.1,
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield Served(runner.addresses[0][1], registry)
    finally:
        await runner.cleanup()


def _fast_path(metrics: OkaneMetrics) -> FastPath:
    """One that takes nothing: there are no payments here. But it sees whatever comes first."""
    intake = PaymentIntake(store=cast("PaymentStore", None), producer=MemoryQueue(payments_stream("test")))
    creation = PaymentCreation(settings=Settings(_env_file=None), intake=intake, metrics=metrics)
    return FastPath(creation, metrics, AnonymousAccess())


Loud = Callable[[], list[str]]


@pytest.fixture
def loud(caplog: pytest.LogCaptureFixture) -> Iterator[Loud]:
    """Return the lines logged above debug so far, those of aiohttp included."""
    with structlog.testing.capture_logs() as ours:
        yield lambda: [
            *(str(line) for line in ours if line["log_level"] != "debug"),
            *(record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG),
        ]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with serving(replace(PATIENT, head_timeout_s=NEAR_S)) as served:
        assert await served.answers(b"") == []
        await until(lambda: served.open() == 0)


async def test_a_head_that_drips_is_cut_off_however_often_a_byte_comes() -> None:
    async with serving(replace(PATIENT, head_timeout_s=NEAR_S)) as served:
        reader, writer = await served.connect()

        async def drip() -> None:
            for byte in HEALTH[:-2] + b"A: b\r\n" * 10_000:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        (answer,) = _answers(await _rest(reader))
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        writer.close()
        assert (answer.status, answer.code, served.refused("head_too_slow")) == (408, "head_too_slow", 1)


async def test_the_head_of_a_further_request_has_its_own_time() -> None:
    async with serving(replace(PATIENT, head_timeout_s=NEAR_S)) as served:
        reader, writer = await served.connect()
        writer.write(HEALTH)
        async with asyncio.timeout(WAIT_S):
            assert b" 200 " in await reader.readline()
            await reader.readuntil(b"{}")
        await asyncio.sleep(2 * NEAR_S)  # longer than a head may take: an idle connection is not a slow head
        writer.write(HEALTH[:10])
        (answer,) = _answers(await _rest(reader))
        writer.close()
        assert answer.code == "head_too_slow"


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with serving(replace(PATIENT, keep_alive_timeout_s=NEAR_S)) as served:
        answers = await served.answers(HEALTH)
        assert [answer.status for answer in answers] == [200]


async def test_a_client_that_does_not_read_its_answer_is_cut_off() -> None:
    async with serving(replace(PATIENT, write_timeout_s=NEAR_S)) as served:
        _, writer = await served.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a ReadTransport too
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: served.open() == 1)
        await until(lambda: served.open() == 0)
        writer.transport.abort()


async def test_a_closed_connection_whose_answer_nobody_reads_does_not_stay_either() -> None:
    async with serving(replace(PATIENT, write_timeout_s=NEAR_S)) as served:
        _, writer = await served.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a ReadTransport too
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await until(lambda: served.open() == 1)
        await until(lambda: served.open() == 0)
        writer.transport.abort()


async def test_one_connection_too_many_is_refused_at_once_and_room_is_made_again() -> None:
    async with serving(replace(PATIENT, connections=3)) as served:
        held = [await served.connect() for _ in range(3)]
        await until(lambda: served.open() == 3)
        (answer,) = await served.answers(b"")
        assert (answer.status, answer.code) == (503, "too_many_connections")
        assert (answer.headers["Content-Type"], answer.headers["Retry-After"]) == ("application/problem+json", "1")
        assert served.refused("too_many_connections") == 1
        held[0][1].close()
        await until(lambda: served.open() == 2)
        reader, writer = await served.connect()
        writer.write(HEALTH)
        async with asyncio.timeout(WAIT_S):
            assert b" 200 " in await reader.readline()
        for _, one in [*held, (reader, writer)]:
            one.close()


def test_the_cap_leaves_files_for_the_rest_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    limits = ConnectionLimits.of(Settings(_env_file=None, max_connections=10_000))
    assert limits.connections == 4096 - SPARE_FILES
    assert asked == [(4096, 4096)]
    assert ConnectionLimits.of(Settings(_env_file=None, max_connections=500)).connections == 500
    assert len(asked) == 1


def test_the_defaults_are_finite() -> None:
    settings = Settings(_env_file=None)
    timeouts = (settings.head_timeout, settings.keep_alive_timeout, settings.write_timeout)
    assert all(timedelta(0) < timeout < timedelta(minutes=5) for timeout in timeouts)


POST = b"POST /body HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
REFUSED = [
    (b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n", 501, "method_unknown"),
    (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", 501, "method_unknown"),
    (b"\x16\x03\x01\x02\x00\x01\x00", 400, "request_line_invalid"),
    (b"\x00\xff\xfe\r\n\r\n", 400, "request_line_invalid"),
    (b"GET /hea\x00lth HTTP/1.1\r\nHost: x\r\n\r\n", 400, "request_line_invalid"),
    (b"GET http://[/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "request_line_invalid"),
    (b"GET / health HTTP/1.1\r\nHost: x\r\n\r\n", 400, "request_line_invalid"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "request_invalid"),
    (b"GET /v1/health\r\n\r\n", 505, "http_version_unsupported"),
    (b"GET /v1/health HTTP/0.9\r\nHost: x\r\n\r\n", 505, "http_version_unsupported"),
    (b"GET /v1/health HTTP/2.0\r\nHost: x\r\n\r\n", 505, "http_version_unsupported"),
    (b"GET /v1/health HTTP/3.7\r\nHost: x\r\n\r\n", 505, "http_version_unsupported"),
    (b"GET /v1/health HTTP/1.1\r\n\r\n", 400, "request_invalid"),
    (b"GET /v1/health HTTP/1.1\r\nHost : x\r\n\r\n", 400, "request_invalid"),
    (b"GET /v1/health HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400, "request_invalid"),
    (b"GET /v1/health HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", 400, "request_invalid"),
    (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "target_too_long"),
    (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 9000 + b"\r\n\r\n", 431, "head_too_large"),
    (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a" * 9000 + b": b\r\n\r\n", 431, "head_too_large"),
    (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 65 + b"\r\n", 431, "head_too_large"),
    (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "request_invalid"),
    (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, "request_invalid"),
    (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400, "request_invalid"),
    (POST + b"Content-Length: 5, 5\r\n\r\nhello", 400, "request_invalid"),
    (POST + b"Content-Length: -5\r\n\r\nhello", 400, "request_invalid"),
    (POST + b"Content-Length: +5\r\n\r\nhello", 400, "request_invalid"),
    (POST + b"Content-Length: 99999999999999999999999\r\n\r\nhello", 400, "request_invalid"),
    (POST + b"Transfer-Encoding: identity\r\n\r\n", 400, "request_invalid"),
    (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400, "request_invalid"),
    (POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400, "request_invalid"),
    (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "transfer_coding_unknown"),
    (b"POST /body HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "framing_invalid"),
    (CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n", 400, "request_invalid"),
    (CHUNKED + b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n", 400, "request_invalid"),
    (POST + b"Expect: foo\r\nContent-Length: 2\r\n\r\n{}", 417, "expectation_failed"),
]


@pytest.mark.parametrize(("sent", "status", "code"), REFUSED, ids=[repr(sent)[:60] for sent, _, _ in REFUSED])
async def test_what_is_no_request_is_answered_with_a_problem_and_not_logged(
    sent: bytes, status: int, code: str, loud: Loud
) -> None:
    async with serving(PATIENT) as served:
        (answer,) = await served.answers(sent)
        assert (answer.status, answer.code) == (status, code)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["X-Request-Id"] == json.loads(answer.body)["request_id"]
        assert served.refused(code) == 1
        await until(lambda: served.open() == 0)
    assert loud() == []


async def test_a_refusal_reaches_a_client_that_goes_on_sending() -> None:
    async with serving(PATIENT) as served:
        reader, writer = await served.connect()
        for byte in b"GET / HTTP/1.1\r\nHost : x\r\n\r\n" + b" " * 100:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        (answer,) = _answers(await _rest(reader))
        writer.close()
        assert answer.code == "request_invalid"


async def test_what_was_asked_before_the_nonsense_is_answered_first() -> None:
    async with serving(PATIENT) as served:
        reader, writer = await served.connect()
        writer.write(HEALTH)
        async with asyncio.timeout(WAIT_S):
            first = await reader.readuntil(b"{}")
        writer.write(b"nonsense\r\n\r\n" + HEALTH)
        answers = _answers(first + await _rest(reader))
        writer.close()
        assert [answer.status for answer in answers] == [200, 400]


async def test_a_body_that_breaks_off_in_its_coding_is_not_waited_for() -> None:
    async with serving(PATIENT) as served:
        reader, writer = await served.connect()
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        await until(lambda: served.open() == 1)
        await asyncio.sleep(NEAR_S)  # the handler has begun to read
        writer.write(b"nonsense\r\n" + HEALTH)
        (answer,) = _answers(await _rest(reader))
        writer.close()
        assert (answer.status, answer.code) == (400, "body_unreadable")


async def test_a_body_over_the_cap_is_refused_before_it_ends() -> None:
    async with serving(PATIENT) as served:
        chunk = b"1000\r\n" + b"a" * 4096 + b"\r\n"
        (answer,) = await served.answers(CHUNKED + chunk * (MAX_BODY_BYTES // 4096 + 1))
        assert (answer.status, answer.code, answer.headers["Connection"]) == (413, "body_too_large", "close")


async def test_a_head_in_pieces_may_not_fill_our_memory() -> None:
    async with serving(PATIENT) as served:
        reader, writer = await served.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        for number in range(20):
            writer.write(b"A%d: " % number + b"a" * 4000 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.005)
        (answer,) = _answers(await _rest(reader))
        writer.close()
        assert (answer.status, answer.code) == (431, "head_too_large")


async def test_a_client_that_goes_away_in_mid_body_leaves_no_line_in_the_log(loud: Loud) -> None:
    async with serving(PATIENT) as served:
        _, writer = await served.connect()
        writer.write(POST + b"Content-Length: 50\r\n\r\nhello")
        await until(lambda: served.open() == 1)
        await asyncio.sleep(NEAR_S)
        writer.transport.abort()
        await until(lambda: served.open() == 0)
    assert loud() == []


async def test_five_hundred_slow_clients_keep_nobody_from_being_served(system: System) -> None:
    system.env |= {"OKANE_HEAD_TIMEOUT": "3s"}
    await system.start_api()
    port = int(system.url.rsplit(":", 1)[1])
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(500)]
    for _, writer in slow:
        writer.write(b"POST /v1/payments HTTP/1.1\r\nHost: x\r\nX-")
    answers = await asyncio.gather(*(system.post(f"k-{number}") for number in range(50)))
    assert {status for status, _ in answers} == {202}
    ends: list[Awaitable[bytes]] = [_rest(reader) for reader, _ in slow]
    assert {_answers(received)[0].code for received in await asyncio.gather(*ends)} == {"head_too_slow"}
    for _, writer in slow:
        writer.close()
    assert await system.metric("api", 'okane_http_requests_refused_total{reason="head_too_slow"}') == 500
