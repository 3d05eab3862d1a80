"""Part e: this process's CPU for one signed request on a kept connection, beside aiohttp's client.

Both sign the same body with the same secret and wait for a 204 of the same receiver, with as many requests in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from ipaddress import ip_network
from uuid import uuid4

import aiohttp
import uvloop

from bench.progress import say
from bench.report import Collector, Part
from bench.system import System, receiver
from bench.webhook.endpoints import SETTINGS
from bench.webhook.options import PARTS, WebhookBenchOptions
from okane.http.guard import Guard
from okane.store.webhook_endpoints import Endpoint
from okane.webhooks import signing
from okane.webhooks.keys import Masters
from okane.webhooks.sender import Sender
from okane.webhooks.types import API_VERSION

VS_AIOHTTP = "CPU of a request, of aiohttp's client"
OURS, AIOHTTP = "okane's sender", "aiohttp's client"
_IN_FLIGHT = 8  # of an endpoint by default
_REQUESTS = 8_000
_SECRET = bytes(range(32))
_EVENT_ID = "evt_01a2b3c4d5e6708090a0b0c0d0e0f001_2"
_BODY = (
    b'{"id":"evt_01a2b3c4d5e6708090a0b0c0d0e0f001_2","type":"payment.succeeded","timestamp":"2026-11-22T01:19:52.796174Z",'
    b'"api_version":"2026-12-01","account":"default","data":{"payment":{"id":"01a2b3c4-d5e6-7080-90a0-b0c0d0e0f001",'
    b'"version":2,"status":"success","amount":440,"currency":"USD","attempts":1,"idempotency_key":"order-1001",'
    b'"metadata":{},"created_at":"2026-11-22T01:19:52.1Z","updated_at":"2026-11-22T01:19:52.796174Z"}}}'
)

Send = Callable[[], Awaitable[int | None]]  # answers the status


def measure(system: System, options: WebhookBenchOptions) -> Part:
    """Both clients by turns, in one process and on one loop."""
    found = Collector("e", PARTS["e"])
    requests = 160 if options.quick else _REQUESTS
    with receiver(system) as target, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for number, one in enumerate(runner.run(_rounds(f"{target.url}/hook", options.rounds, requests))):
            say(f"e: round {number + 1} of {options.rounds}: {one[OURS]:.0f} us, aiohttp {one[AIOHTTP]:.0f} us")
            for name, cpu_us in one.items():
                found.add(name, "us CPU", cpu_us)
    found.ratio(VS_AIOHTTP, of=OURS, to=AIOHTTP)
    return found.part()


async def _rounds(url: str, rounds: int, requests: int) -> list[Mapping[str, float]]:
    measured: list[Mapping[str, float]] = []
    async with _sender(url) as ours, _aiohttp_client(url) as theirs:
        clients = {OURS: ours, AIOHTTP: theirs}
        for send in clients.values():  # connections open, caches warm
            await _cpu_us(send, requests)
        for number in range(rounds):
            measured.append(
                {name: await _cpu_us(clients[name], requests) for name in list(clients)[:: 1 if number % 2 else -1]}
            )
    return measured


async def _cpu_us(send: Send, requests: int) -> float:
    """Return the CPU microseconds of this process for a request."""

    async def caller() -> None:
        for _ in range(requests // _IN_FLIGHT):
            assert await send() == 204

    started_s = time.process_time()
    async with asyncio.TaskGroup() as callers:
        for _ in range(_IN_FLIGHT):
            callers.create_task(caller())
    return (time.process_time() - started_s) / (requests // _IN_FLIGHT * _IN_FLIGHT) * 1e6


@contextlib.asynccontextmanager
async def _sender(url: str) -> AsyncIterator[Send]:
    sender = Sender(Guard(allow=[ip_network(SETTINGS["OKANE_WEBHOOK_ALLOW"])]), Masters((_SECRET,)))
    endpoint = Endpoint(
        id=uuid4(),
        account_id="bench",
        url=url,
        types=["payment.*"],
        api_version=API_VERSION,
        created_at=datetime.now(UTC),
        starts_after=0,
    )

    async def send() -> int | None:
        return (await sender.send(endpoint, _EVENT_ID, _BODY, now=datetime.now(UTC))).status

    try:
        yield send
    finally:
        await sender.aclose()


@contextlib.asynccontextmanager
async def _aiohttp_client(url: str) -> AsyncIterator[Send]:
    """As aiohttp's documents advise for many small requests: one session, no cookies, no redirects."""
    session = aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=15, connect=5), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    )

    async def send() -> int:
        timestamp_s = int(datetime.now(UTC).timestamp())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "okane",
            "webhook-id": _EVENT_ID,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signing.sign([_SECRET], _EVENT_ID, timestamp_s, _BODY),
        }
        async with session.post(url, data=_BODY, headers=headers, allow_redirects=False) as answer:
            await answer.read()
            return answer.status

    async with session:
        yield send
