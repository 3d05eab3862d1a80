"""Two servers, one of them without the fast path: no client can tell them apart, for any bytes in any chunks."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

import pytest
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from okane import logs
from okane.api import error_problems, middleware
from okane.api.access import Access, AnonymousAccess, Caller
from okane.api.answer import Answer
from okane.api.dead_letters import DeadLetterHandlers
from okane.api.disputes import DisputeHandlers
from okane.api.health import HealthHandlers
from okane.api.http.connection import ServerConnection
from okane.api.http.connection_limits import ConnectionLimits, ConnectionMetrics
from okane.api.http.fast_connection import FastConnection
from okane.api.http.fast_path import FastPath, RequestConnection
from okane.api.http.plain_request import PlainRequest
from okane.api.http.server import GuardedRunner, GuardedServer
from okane.api.long_polling import LongPolling
from okane.api.payment_handlers import PaymentHandlers
from okane.api.payment_methods import PaymentMethodHandlers
from okane.api.payment_queries import PaymentQueries
from okane.api.problems import Problem
from okane.api.provider_notices import NoticeHandlers
from okane.api.routes import Handlers, build_api
from okane.api.webhook_services import WebhookServices
from okane.api_key import Scope
from okane.config import Settings
from okane.errors import StoreUnavailable
from okane.http.guard import Guard
from okane.intake.accept import PaymentIntake
from okane.intake.dead_letter_replay import DeadLetterReplay
from okane.lanes import payments_stream
from okane.metrics import OkaneMetrics
from okane.store import DeadLetterStore, PaymentLists, PaymentStore, PaymentWatch
from okane.store.disputes import DisputeLists
from okane.store.payment_methods import PaymentMethodStore
from streams.testing import MemoryQueue
from tests.faults.request_generator import LAST, Generator
from tests.okane.fast_path import HEALTH, Shelf, corpus, no_operations, post, sent

FAR_S = 60.0
NEAR_S = 0.2
WAIT_S = 20.0
PATHS = pytest.mark.parametrize("fast", [True, False], ids=["fast", "ordinary"])


class Counting(FastPath):
    """The fast path, with a count of the requests that took it."""

    taken = 0

    def take(self, connection: RequestConnection, request: PlainRequest) -> None:
        self.taken += 1
        super().take(connection, request)


@dataclass(frozen=True, slots=True)
class Served:
    """A server in this process."""

    runner: GuardedRunner
    fast_path: Counting
    shelf: Shelf
    queue: MemoryQueue
    registry: CollectorRegistry

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.runner.addresses[0][:2])

    async def ask(self, sent: bytes) -> bytes:
        """Return the answer to these bytes, and to a last request if the connection stays open."""
        reader, writer = await self.connect()
        try:
            async with asyncio.timeout(WAIT_S):
                writer.write(sent)
                received = await reader.readuntil(b"\r\n\r\n")
                stays = b"Connection: keep-alive" if received.startswith(b"HTTP/1.0") else b"HTTP/1.1"
                if stays in received and b"Connection: close" not in received:
                    writer.write(LAST)
                return received + await reader.read()
        finally:
            writer.close()

    async def feeding(self) -> tuple[FastConnection, asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection that a test feeds chunk by chunk, and the client's end of it."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        server = cast("GuardedServer", self.runner.server)
        _, made = await loop.connect_accepted_socket(server, ours)
        connection = cast("FastConnection", made)
        await _until(lambda: connection.waiter is not None)
        return connection, *await asyncio.open_connection(sock=theirs)

    def count(self, sample: str, **labels: str) -> float:
        return self.registry.get_sample_value(sample, labels) or 0.0

    def counts(self) -> list[str]:
        """Return all metrics but durations and those of the process."""
        lines = generate_latest(self.registry).decode().splitlines()
        return sorted(line for line in lines if not re.match(r"#|process_|\S+_(bucket|sum|created)\b", line))


@asynccontextmanager
async def serving(
    *,
    fast: bool,
    head_timeout_s: float = FAR_S,
    keep_alive_timeout_s: float = FAR_S,
    drain_s: float = FAR_S,
    access: Access | None = None,
) -> AsyncIterator[Served]:
    registry = CollectorRegistry()
    metrics, shelf, queue = OkaneMetrics(registry), Shelf(), MemoryQueue(payments_stream("test"))
    shelf.open.set()
    store = cast("PaymentStore", shelf)
    intake = PaymentIntake(store=store, producer=queue)
    access = access or AnonymousAccess()
    long_polling = LongPolling(watch=cast("PaymentWatch", shelf))
    settings = Settings(_env_file=None)
    handlers = PaymentHandlers(
        settings=settings, store=store, intake=intake, long_polling=long_polling, metrics=metrics
    )
    fast_path = Counting(handlers.creation, metrics, access)
    routes = Handlers(
        handlers,
        PaymentQueries(store=store, lists=cast("PaymentLists", shelf)),
        DeadLetterHandlers(dead=cast("DeadLetterStore", shelf), replay=cast("DeadLetterReplay", shelf)),
        HealthHandlers(store=store),
        NoticeHandlers(parsers={}, intake=None, metrics=metrics),
        methods=PaymentMethodHandlers(methods=cast("PaymentMethodStore", shelf), providers=()),
        disputes=DisputeHandlers(cast("DisputeLists", shelf)),
        operations=no_operations(store, intake),
        webhooks=WebhookServices.of("postgresql://nowhere", masters=None, guard=Guard()),
    )
    runner = GuardedRunner(
        build_api(routes, metrics, access),
        limits=ConnectionLimits(
            connections=1000,
            head_timeout_s=head_timeout_s,
            keep_alive_timeout_s=keep_alive_timeout_s,
            write_timeout_s=FAR_S,
        ),
        metrics=ConnectionMetrics(registry),
        fast_path=fast_path if fast else None,
        shutdown_timeout=drain_s,
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield Served(runner, fast_path, shelf, queue, registry)
    finally:
        await runner.cleanup()


def plain(received: bytes) -> bytes:
    """Return an answer without its date and random ids."""
    return re.sub(rb"Date: [^\r]+", b"Date: *", re.sub(rb"\b[0-9a-f]{32}\b", b"*", received))


async def test_answers_are_the_same_on_both_paths() -> None:
    async with serving(fast=True) as fast, serving(fast=False) as ordinary:
        for request in corpus():
            assert plain(await fast.ask(request)) == plain(await ordinary.ask(request)), request[:300]
        assert fast.counts() == ordinary.counts()
        assert fast.shelf.by_key == ordinary.shelf.by_key
        assert [one.body for one in fast.queue.published] == [one.body for one in ordinary.queue.published]
        assert fast.fast_path.taken > 30
        assert ordinary.fast_path.taken == 0


async def test_any_bytes_are_answered_the_same_on_both_paths() -> None:
    generator = Generator(seed=3)
    async with serving(fast=True) as fast, serving(fast=False) as ordinary:
        for _ in range(1000):
            request = generator._request().render()
            assert plain(await fast.ask(request)) == plain(await ordinary.ask(request)), request
        assert fast.counts() == ordinary.counts()
        assert fast.shelf.by_key == ordinary.shelf.by_key
        assert fast.fast_path.taken > 30


@PATHS
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StoreUnavailable("away"), 503, "store_unavailable"),
        (TimeoutError(), 503, "store_unavailable"),
        (RuntimeError("a bug"), 500, "internal"),
    ],
)
async def test_an_error_behind_is_a_problem_and_the_connection_stays(
    fast: bool, error: Exception, status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids: list[str] = []
    said = error_problems.problem_for

    def problem(error: BaseException) -> Problem:
        ids.append(logs.REQUEST_ID.get())
        return said(error)

    monkeypatch.setattr(error_problems, "problem_for", problem)
    async with serving(fast=fast) as served:
        served.shelf.error = error
        reader, writer = await served.connect()
        with structlog.testing.capture_logs() as logged:
            first = await _answered(reader, writer, post("a", "X-Request-Id: mine"))
        served.shelf.error = None
        second = await _answered(reader, writer, post("a"))
        writer.close()
        assert (first.status, first.document["code"], first.document["request_id"]) == (status, code, "mine")
        assert first.document["instance"] == "/payments"
        assert ids == ["mine"]  # with what it logs
        assert [line["event"] for line in logged] == (["request_failed"] if status == 500 else [])
        assert second.status == 202
        assert served.count("okane_http_request_seconds_count", route="/payments", method="POST", code=str(status)) == 1
        assert served.fast_path.taken == (2 if fast else 0)


@PATHS
async def test_no_request_waits_for_ever(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "REQUEST_TIMEOUT_S", 0.05)
    async with serving(fast=fast) as served:
        served.shelf.open.clear()
        reader, writer = await served.connect()
        answer = await _answered(reader, writer, post("a"))
        writer.close()
        assert (answer.status, answer.document["code"]) == (503, "store_unavailable")
        assert served.fast_path.taken == fast
        served.shelf.open.set()  # or the end of the server would wait for it


# Where tasks can start eagerly, aiohttp waits for a request as soon as the connection is made.
AT_ONCE = int(sys.version_info >= (3, 12))


@pytest.mark.parametrize(
    ("chunks", "statuses", "taken"),
    [
        ([post("a")], [202], 1),
        ([post("a")[:-1], post("a")[-1:]], [202], 0),
        ([post("a"), post("b")], [202, 202], AT_ONCE),
        ([HEALTH], [200], 0),
        ([b"NO REQUEST\r\n\r\n"], [501], 0),
    ],
    ids=["whole", "in parts", "two", "another", "none"],
)
async def test_a_request_before_aiohttp_waits_for_it_may_still_take_the_fast_path(
    chunks: Sequence[bytes], statuses: Sequence[int], taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a new connection, say, whose first request is there already."""
    made = FastConnection.connection_made

    def made_with_data(connection: FastConnection, transport: asyncio.BaseTransport) -> None:
        made(connection, transport)
        for chunk in chunks:
            connection.data_received(chunk)

    monkeypatch.setattr(FastConnection, "connection_made", made_with_data)
    async with serving(fast=True) as served:
        reader, writer = await served.connect()
        assert [(await _answered(reader, writer)).status for _ in statuses] == statuses
        assert served.fast_path.taken == taken
        writer.close()


@PATHS
async def test_a_request_before_the_end_and_before_aiohttp_waits_for_it_is_answered(
    fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ServerConnection.connection_made

    def made_with_data(connection: ServerConnection, transport: asyncio.BaseTransport) -> None:
        made(connection, transport)
        connection.data_received(post("a"))
        connection.close()  # as a server that stops does with all of them

    monkeypatch.setattr(ServerConnection, "connection_made", made_with_data)
    async with serving(fast=fast, drain_s=NEAR_S) as served:
        reader, writer = await served.connect()
        received = await _rest(reader)
        writer.close()
        assert received.startswith(b"HTTP/1.1 202")
        assert b"Connection: close" in received


async def test_a_request_behind_a_silent_store_is_answered_in_time_and_never_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(middleware, "REQUEST_TIMEOUT_S", 0.05)
    async with serving(fast=True) as served:
        served.shelf.open.clear()
        clients = [await served.connect() for _ in range(3)]
        for number, (_, writer) in enumerate(clients, 1):  # the store is stuck with the first, the rest waits
            writer.write(post(str(number)))
            await _until(lambda: served.fast_path.taken == number and served.shelf.asked == 1)  # noqa: B023 - awaited in this turn of the loop
        for reader, writer in clients:
            assert (await _answered(reader, writer)).status == 503
        served.shelf.open.set()
        reader, writer = clients[0]
        assert (await _answered(reader, writer, post("again"))).status == 202
        assert [*served.shelf.by_key] == ["1", "again"]
        for _, writer in clients:
            writer.close()


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    headers: dict[str, str]
    document: dict[str, Any]


async def _answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes = b"") -> Answered:
    """Return the next answer on a connection, to this request or an earlier one."""
    writer.write(request)
    async with asyncio.timeout(WAIT_S):
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
        headers = dict(one.split(": ", 1) for one in lines)
        body = await reader.readexactly(int(headers["Content-Length"]))
    return Answered(int(line.split()[1]), headers, json.loads(body))


async def _rest(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(WAIT_S):
        return await reader.read()


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.001)


async def test_a_request_in_parts_is_read_the_same_wherever_it_is_cut() -> None:
    whole = post("a", path="/v1/payments")
    async with serving(fast=True) as served:
        for end in range(1, len(whole)):
            connection, reader, writer = await served.feeding()
            connection.data_received(whole[:end])
            connection.data_received(whole[end:])
            answer = await _answered(reader, writer)
            assert answer.document["payment"]["idempotency_key"] == "a", end
            writer.close()
        assert served.fast_path.taken == 0  # what comes in parts is aiohttp's to wait for


async def test_requests_that_come_one_by_one_stay_on_the_fast_path_whatever_is_between_them() -> None:
    async with serving(fast=True) as served:
        reader, writer = await served.connect()
        for number in range(50):  # more than aiohttp parses ahead
            assert (await _answered(reader, writer, post(f"k-{number}"))).status == 202
            assert (await _answered(reader, writer, HEALTH)).status == 200
            assert (await _answered(reader, writer, sent("{}"))).status == 422
        writer.write(A + B)
        assert [(await _answered(reader, writer)).status for _ in range(2)] == [202] * 2
        writer.close()
        assert served.fast_path.taken == 100


UNUSUAL = post("u", "Content-Type: application/json; charset=utf8")


@pytest.mark.parametrize(
    ("before", "taken"),
    [
        (HEALTH, True),
        (UNUSUAL, True),
        (b"POST /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", True),
        (b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", True),
        (b"POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False),
        (b"\r\n" + HEALTH, True),
        (HEALTH + HEALTH[:1], False),
        (UNUSUAL + b"\r\n", False),
    ],
)
async def test_after_one_whole_request_of_aiohttps_the_next_may_take_the_fast_path(before: bytes, taken: bool) -> None:
    async with serving(fast=True) as served:
        connection, reader, writer = await served.feeding()
        connection.data_received(before)
        await _answered(reader, writer)
        await _until(lambda: connection.waiter is not None)
        connection.data_received(post("a") if before[-1:] == b"\n" or taken else HEALTH[1:])
        await _answered(reader, writer)
        assert served.fast_path.taken == taken
        writer.close()


A, B, C = post("a"), post("b"), post("c")


@pytest.mark.parametrize(
    "chunks",
    [[A + B + C], [A, B + C], [A, B, C], [A, B[:50], B[50:] + C], [A, B + C[:-1], C[-1:]], [A + B[:1], B[1:] + C]],
)
async def test_pipelined_requests_are_answered_one_after_the_other(chunks: list[bytes]) -> None:
    async with serving(fast=True) as served:
        connection, reader, writer = await served.feeding()
        served.shelf.open.clear()
        for chunk in chunks:
            connection.data_received(chunk)
        await _until(lambda: served.shelf.asked > 0)
        assert served.shelf.asked == 1
        served.shelf.open.set()
        keys = [(await _answered(reader, writer)).document["payment"]["idempotency_key"] for _ in range(3)]
        assert keys == ["a", "b", "c"]
        assert served.fast_path.taken == (chunks[0] == A)
        writer.close()


async def test_a_client_that_does_not_wait_for_its_answer_is_read_no_further() -> None:
    many = [post(f"k-{number}") for number in range(50)]
    async with serving(fast=True) as served:
        served.shelf.open.clear()
        connection, reader, writer = await served.feeding()
        transport = cast("asyncio.Transport", connection.transport)
        connection.data_received(A)
        assert transport.is_reading()
        for one in many:
            connection.data_received(one)
        assert not transport.is_reading()
        served.shelf.open.set()
        assert [(await _answered(reader, writer)).status for _ in range(1 + len(many))] == [202] * (1 + len(many))
        assert (await _answered(reader, writer, B)).status == 202
        writer.close()


@pytest.mark.parametrize("before", [HEALTH, post("a", "Content-Type: application/json; charset=utf8")])
async def test_a_request_behind_one_of_aiohttps_waits_for_it(before: bytes) -> None:
    async with serving(fast=True) as served:
        connection, reader, writer = await served.feeding()
        connection.data_received(before)
        connection.data_received(B)
        first, second = await _answered(reader, writer), await _answered(reader, writer)
        assert first.document.get("payment", {}).get("idempotency_key") != "b"
        assert second.document["payment"]["idempotency_key"] == "b"
        assert served.fast_path.taken == 0
        writer.close()


async def test_a_request_that_comes_while_aiohttp_answers_waits() -> None:
    async with serving(fast=True) as served:
        served.shelf.open.clear()
        connection, reader, writer = await served.feeding()
        connection.data_received(post("a", "Content-Type: application/json; charset=utf8"))
        await _until(lambda: served.shelf.asked == 1)
        connection.data_received(B)
        served.shelf.open.set()
        keys = [(await _answered(reader, writer)).document["payment"]["idempotency_key"] for _ in range(2)]
        assert (keys, served.fast_path.taken) == (["a", "b"], 0)
        writer.close()


@pytest.mark.parametrize("before", [b"", HEALTH, post("first")])
@pytest.mark.parametrize("method", [b"POST", b"GET"])
async def test_a_request_inside_of_a_body_is_a_body(method: bytes, before: bytes) -> None:
    """The bytes of a payment's request, alone in a chunk, may be the body of another request."""
    inner = post("smuggled")
    outer = method + b" /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(inner)
    async with serving(fast=True) as served:
        for cut in range(len(outer) + 1):
            connection, reader, writer = await served.feeding()
            if before:
                connection.data_received(before)
            connection.data_received(outer[:cut])
            connection.data_received(outer[cut:])
            connection.data_received(inner)
            statuses = [(await _answered(reader, writer)).status for _ in range(2 if before else 1)]
            assert statuses[-1] == 404, (cut, statuses)
            connection.data_received(LAST)
            assert (await _answered(reader, writer)).document == {"status": "ok"}
            assert await _rest(reader) == b""
            writer.close()
        assert "smuggled" not in served.shelf.by_key


async def test_a_client_that_goes_away_leaves_its_payment_and_no_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(fast=True) as served:
        served.shelf.open.clear()
        with structlog.testing.capture_logs() as logged:
            _, writer = await served.connect()
            writer.write(post("a"))
            await _until(lambda: served.fast_path.taken == 1)
            writer.transport.abort()
            await _until(lambda: served.count("okane_http_connections") == 0)
            served.shelf.open.set()
            await _until(lambda: served.count("okane_payments_accepted_total", result="created") == 1)
            await served.fast_path.drain(None)
        assert logged == []
        assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []
        assert "a" in served.shelf.by_key


@pytest.mark.parametrize("behind", [b"", B])
async def test_a_client_that_goes_away_just_before_its_answer_leaves_no_line_in_the_log(
    behind: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is closing then, and aiohttp is called next for its end."""
    replied = FastConnection.reply

    def reply(connection: FastConnection, answer: Answer, request_id: str) -> None:
        cast("asyncio.Transport", connection.transport).abort()
        replied(connection, answer, request_id)

    monkeypatch.setattr(FastConnection, "reply", reply)
    async with serving(fast=True) as served:
        connection, _, writer = await served.feeding()
        connection.data_received(A)
        if behind:
            connection.data_received(behind)
        del connection
        await _until(lambda: served.count("okane_http_connections") == 0)
        await asyncio.sleep(0.01)
        writer.close()
        gc.collect()  # the error of a lost task is reported then
        assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []
        assert [*served.shelf.by_key] == ["a"]


@PATHS
async def test_a_server_that_stops_finishes_its_requests_and_closes_connections(fast: bool) -> None:
    async with serving(fast=fast) as served:
        served.shelf.open.clear()
        reader, writer = await served.connect()
        writer.write(post("a"))
        await _until(lambda: served.shelf.asked == 1)
        stopping = asyncio.create_task(served.runner.cleanup())
        await asyncio.sleep(NEAR_S)
        assert not stopping.done()
        served.shelf.open.set()
        answer = await _answered(reader, writer)
        assert (answer.status, answer.headers["Connection"]) == (202, "close")
        assert await _rest(reader) == b""
        async with asyncio.timeout(WAIT_S):
            await stopping
        writer.close()
        assert served.fast_path.taken == fast


async def test_a_server_that_stops_waits_for_a_payment_whose_client_is_gone() -> None:
    async with serving(fast=True) as served:
        served.shelf.open.clear()
        _, writer = await served.connect()
        writer.write(post("a"))
        await _until(lambda: served.fast_path.taken == 1)
        writer.transport.abort()
        await _until(lambda: served.count("okane_http_connections") == 0)
        stopping = asyncio.create_task(served.runner.cleanup())
        await asyncio.sleep(NEAR_S)
        assert not stopping.done()
        served.shelf.open.set()
        async with asyncio.timeout(WAIT_S):
            await stopping
        assert "a" in served.shelf.by_key


@PATHS
async def test_a_server_that_stops_does_not_wait_for_ever(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "REQUEST_TIMEOUT_S", FAR_S)
    async with serving(fast=fast, drain_s=NEAR_S) as served:
        served.shelf.open.clear()
        reader, writer = await served.connect()
        writer.write(post("a"))
        await _until(lambda: served.shelf.asked == 1)
        async with asyncio.timeout(WAIT_S):
            await served.runner.cleanup()
        assert await _rest(reader) == b""
        writer.close()
        async with asyncio.timeout(WAIT_S):
            await served.fast_path.drain(None)  # nothing goes on behind the back of who has stopped


@PATHS
async def test_a_server_that_stops_closes_answered_connections(fast: bool) -> None:
    async with serving(fast=fast) as served:
        served.shelf.open.clear()
        (reader, writer), (late_reader, late_writer) = await served.connect(), await served.connect()
        writer.write(A)
        await _until(lambda: served.shelf.asked == 1)
        late_writer.write(post("late"))
        await _until(lambda: served.fast_path.taken == 2 or served.shelf.asked == 2)
        stopping = asyncio.create_task(served.runner.cleanup())
        await _until(lambda: not served.runner.sites)
        served.shelf.open.set()
        assert (await _answered(reader, writer)).status == 202
        assert await _rest(reader) == b""
        assert not stopping.done()
        served.shelf.late.set()
        assert (await _answered(late_reader, late_writer)).status == 202
        async with asyncio.timeout(WAIT_S):
            await stopping
        writer.close()
        late_writer.close()


async def test_a_bug_on_the_fast_path_closes_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_problems, "problem_for", None)
    async with serving(fast=True) as served:
        served.shelf.error = RuntimeError("a bug")
        reader, writer = await served.connect()
        writer.write(A)
        assert await _rest(reader) == b""
        writer.close()


@PATHS
async def test_a_connection_in_use_outlives_the_time_for_a_head(fast: bool) -> None:
    async with serving(fast=fast, head_timeout_s=NEAR_S) as served:
        reader, writer = await served.connect()
        assert (await _answered(reader, writer, A)).status == 202
        await asyncio.sleep(2 * NEAR_S)
        assert (await _answered(reader, writer, B)).status == 202
        writer.write(C[:20])
        answer = await _answered(reader, writer)
        assert (answer.status, answer.document["code"]) == (408, "head_too_slow")
        writer.close()
        assert served.fast_path.taken == 2 * fast


@PATHS
async def test_an_answer_that_takes_long_is_no_idleness_and_what_follows_it_is(fast: bool) -> None:
    async with serving(fast=fast, keep_alive_timeout_s=NEAR_S) as served:
        served.shelf.open.clear()
        reader, writer = await served.connect()
        writer.write(post("a"))
        await _until(lambda: served.shelf.asked == 1)
        await asyncio.sleep(3 * NEAR_S)
        served.shelf.open.set()
        assert (await _answered(reader, writer)).status == 202
        assert (await _answered(reader, writer, post("b"))).status == 202
        assert await _rest(reader) == b""
        writer.close()
        assert served.fast_path.taken == 2 * fast


async def test_a_client_that_does_not_read_its_answers_leaves_the_fast_path() -> None:
    async with serving(fast=True) as served:
        connection, reader, writer = await served.feeding()
        connection.pause_writing()
        connection.data_received(post("a"))
        connection.resume_writing()
        assert (await _answered(reader, writer)).status == 202
        assert served.fast_path.taken == 0
        writer.close()


class SlowAccess(AnonymousAccess):
    """Looks up every caller, which a test may hold up."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.asked = False

    def admit_cached(self, _credentials: Sequence[str], _scope: Scope) -> None:
        return None

    async def admit(self, credentials: Sequence[str], scope: Scope) -> Caller:
        self.asked = True
        await self.open.wait()
        if not credentials:
            raise Problem(HTTPStatus.UNAUTHORIZED, "key_missing", "who is that?")
        return await super().admit(credentials, scope)


@PATHS
async def test_a_caller_that_is_looked_up_waits_and_delays_no_other(fast: bool) -> None:
    access = SlowAccess()
    async with serving(fast=fast, access=access) as served:
        asking = [asyncio.create_task(served.ask(post(f"a{n}", "Authorization: x"))) for n in range(3)]
        refused = asyncio.create_task(served.ask(post("b")))
        await asyncio.sleep(0.05)
        assert not served.shelf.by_key
        access.open.set()
        assert all(answer.startswith(b"HTTP/1.1 202") for answer in await asyncio.gather(*asking))
        assert (await refused).startswith(b"HTTP/1.1 401")
        assert sorted(served.shelf.by_key) == ["a0", "a1", "a2"]


@PATHS
@pytest.mark.parametrize("opens", [True, False])
async def test_the_end_waits_for_callers_that_are_looked_up_and_gives_up_in_time(fast: bool, opens: bool) -> None:
    access = SlowAccess()
    async with serving(fast=fast, access=access, drain_s=FAR_S if opens else NEAR_S) as served:
        reader, writer = await served.connect()
        writer.write(post("a", "Authorization: x"))
        await _until(lambda: access.asked)
        if opens:
            asyncio.get_running_loop().call_later(NEAR_S, access.open.set)
    async with asyncio.timeout(WAIT_S):
        received = await reader.read()
    writer.close()
    assert received.startswith(b"HTTP/1.1 202") if opens else not received
