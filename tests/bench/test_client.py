"""The load generator counts what was answered, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine

import pytest
from aiohttp import web

from bench.client import Drip, Flood
from bench.http_client import post

Answer = Callable[[web.Request], Coroutine[None, None, web.Response]]
Serve = Callable[[Answer], Coroutine[None, None, int]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves POSTs with a handler and answers the port."""
    runners: list[web.AppRunner] = []

    async def start(answer: Answer) -> int:
        app = web.Application()
        app.router.add_post("/v1/payments", answer)
        runners.append(web.AppRunner(app, access_log=None))
        await runners[-1].setup()
        await web.TCPSite(runners[-1], "127.0.0.1", 0).start()
        port = runners[-1].addresses[0][1]
        assert isinstance(port, int)
        return port

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_only_a_202_is_an_acceptance(serve: Serve) -> None:
    statuses = [202, 200, 503]
    served: list[int] = []

    async def answer(_request: web.Request) -> web.Response:
        served.append(statuses[len(served) % 3])
        return web.Response(status=served[-1], body=b"x" * 100)

    flood = Flood(make=post, prefix="t", seconds=0.3, connections=3)
    elapsed_s = await flood.run(await serve(answer))
    said = flood.tally.result(elapsed_s)
    assert said["accepted"] > 0
    assert said["other"] > 0
    # What was under way at the end is answered, and not counted.
    assert abs(said["accepted"] - served.count(202)) <= 3
    assert said["broken"] == 0


async def test_every_request_has_a_key_of_its_own(serve: Serve) -> None:
    keys: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        keys.append(json.loads(await request.read())["idempotency_key"])
        return web.Response(status=202)

    drip = Drip(make=post, prefix="t", seconds=0.5, connections=4, rate=100)
    said = drip.tally.result(await drip.run(await serve(answer)))
    assert said["accepted"] == len(keys) == len(set(keys)) == 50


async def test_a_drip_counts_the_wait_for_a_free_connection(serve: Serve) -> None:
    async def answer(_request: web.Request) -> web.Response:
        await asyncio.sleep(0.05)
        return web.Response(status=202)

    drip = Drip(
        make=post, prefix="t", seconds=0.1, connections=1, rate=100
    )  # ten that are due before the second answer
    said = drip.tally.result(await drip.run(await serve(answer)))
    assert said["accepted"] == 10
    assert said["p99_ms"] > 300  # the last one waits for nine others


async def test_a_server_that_hangs_up_breaks_requests(serve: Serve) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    flood = Flood(make=post, prefix="t", seconds=0.2, connections=2)
    said = flood.tally.result(await flood.run(await serve(answer)))
    assert (said["accepted"], said["broken"]) == (0, 2)
