"""An API that is about to end: it reports so, and goes on answering until its load balancer has turned away."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
import structlog
from aiohttp import web

from okane.api.http.server import serving
from okane.errors import StoreUnavailable
from tests.okane.served_api import LIMITS, Api

READY = b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n"
FOREVER = replace(LIMITS, keep_alive_timeout_s=3600.0)


@dataclass(slots=True)
class Served:
    """Return a small served application, and the event that makes it leave."""

    port: int
    leaving: asyncio.Event
    stack: contextlib.AsyncExitStack

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async def ready(_request: web.Request) -> web.Response:
        return web.Response(text="yes")

    app, leaving = web.Application(), asyncio.Event()
    app.router.add_get("/ready", ready)
    async with contextlib.AsyncExitStack() as stack:
        drain = timedelta(seconds=1)
        url = await stack.enter_async_context(
            serving(app, "127.0.0.1", 0, limits=FOREVER, drain=drain, leaving=leaving)
        )
        yield Served(int(url.rsplit(":", 1)[1]), leaving, stack)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Send one request on a connection; return the head of its answer."""
    writer.write(READY)
    head = await reader.readuntil(b"\r\n\r\n")
    return head + await reader.readexactly(3)


async def test_idle_connections_stay_open_and_the_next_answer_closes_them(served: Served) -> None:
    reader, writer = await served.connect()
    assert b"Connection: close" not in await ask(reader, writer)
    served.leaving.set()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)  # nothing comes, and no end
    answer = await ask(reader, writer)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Connection: close" in answer
    assert await reader.read() == b""
    writer.close()


async def test_new_connections_are_taken_until_the_end(served: Served) -> None:
    served.leaving.set()
    reader, writer = await served.connect()
    assert b"Connection: close" in await ask(reader, writer)
    writer.close()


async def test_a_request_that_waits_to_be_accepted_when_listening_ends_is_answered(served: Served) -> None:
    served.leaving.set()
    client = socket.create_connection(
        ("127.0.0.1", served.port)
    )  # by the kernel: the event loop has not accepted it yet
    client.sendall(READY)
    await served.stack.aclose()
    with client:
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", served.port))


async def test_a_connection_without_a_request_yet_has_a_moment_for_one(served: Served) -> None:
    reader, writer = await served.connect()
    served.leaving.set()
    ending = asyncio.create_task(served.stack.aclose())
    await asyncio.sleep(0.05)
    assert b"Connection: close" in await ask(reader, writer)
    await ending
    writer.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel cannot be told to drop a beginning")
async def test_no_connection_is_made_while_listening_ends_that_the_end_would_reset(served: Served) -> None:
    served.leaving.set()
    ending = asyncio.create_task(served.stack.aclose())
    await asyncio.sleep(0.005)
    with socket.socket() as late:
        late.setblocking(False)
        where = ("127.0.0.1", served.port)
        assert late.connect_ex(where) == errno.EINPROGRESS
        await ending
        assert late.connect_ex(where) == errno.EALREADY  # not made: a request would have been sent on it
        with pytest.raises(ConnectionRefusedError):  # when the kernel has asked a second time
            await asyncio.get_running_loop().sock_connect(late, where)


async def test_without_notice_a_server_ends_at_once(served: Served) -> None:
    reader, writer = await served.connect()
    async with asyncio.timeout(0.9):  # no moment for a first request
        await served.stack.aclose()
    assert await reader.read() == b""
    writer.close()


@pytest.fixture
def leaving_api(api: Api) -> Api:
    """The API while it is about to end."""
    api.leaving.set()
    return api


@pytest.mark.parametrize("more", [{}, {"Prefer": "respond-async"}], ids=["fast", "ordinary"])
async def test_an_api_that_leaves_is_not_ready_and_takes_payments(leaving_api: Api, more: dict[str, str]) -> None:
    async with leaving_api.client.get("/readyz") as answer:
        assert (answer.status, (await answer.json())["code"]) == (503, "not_ready")
        assert answer.headers["Connection"] == "close"
    body = json.dumps({"amount": 440, "idempotency_key": "late-1"})
    headers = {"Content-Type": "application/json", **more}
    async with leaving_api.client.post("/v1/payments", data=body, headers=headers) as answer:
        assert answer.status == 202
        assert answer.headers["Connection"] == "close"


async def test_readyz_tells_no_address(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer names no user, port or database, since the route needs no key. The log has the reason, once."""

    async def away() -> None:
        raise StoreUnavailable("connection to server at 10.1.2.3, port 5432 failed for user okane")

    with structlog.testing.capture_logs() as logged:
        with monkeypatch.context() as patched:
            patched.setattr(api.store, "check_writable", away)
            for _ in range(2):
                async with api.client.get("/readyz") as answer:
                    assert answer.status == 503
                    assert (await answer.json())["detail"] == "Postgres takes no writes"
        async with api.client.get("/readyz") as answer:
            assert answer.status == 200
    assert [line["event"] for line in logged if "ready" in line["event"]] == ["not_ready", "ready_again"]
    assert "10.1.2.3" in logged[0]["reason"]
