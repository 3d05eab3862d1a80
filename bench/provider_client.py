"""Measure the CPU time of a provider call: `python -m bench.provider_client`.

A: aiohttp's client, set up as the provider client once was. B: `OkaneHttpProvider`. Both with 64 calls in flight against the
same server, a few lines over a socket in another process. Rounds alternate, because the machine's speed drifts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection as Pipe
from uuid import uuid4

import aiohttp
import uvloop

from okane.http.connection import HttpResponse
from okane.payment import Payment, Status
from okane.providers.base import Approved, ChargeResult
from okane.providers.okane_http.answer_parser import parse_charge_answer
from okane.providers.okane_http.provider import OkaneHttpProvider

IN_FLIGHT = 64
TIMEOUT = timedelta(seconds=10)
ANSWER_BODY = b'{"provider_ref": "ch_0123456789abcdef", "status": "captured"}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n"
    b"Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nServer: bench\r\n\r\n%s" % (len(ANSWER_BODY), ANSWER_BODY)
)

Charge = Callable[[Payment], Awaitable[ChargeResult]]


def main() -> None:
    """Print the CPU microseconds per call of both clients, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=6_400, help="per client and round")
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    arguments = parser.parse_args()
    factory = uvloop.new_event_loop if arguments.loop == "uvloop" else asyncio.new_event_loop
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,), daemon=True)
    server.start()
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            pairs = runner.run(_rounds(f"http://127.0.0.1:{here.recv()}", arguments.rounds, arguments.calls))
    finally:
        server.terminate()
        server.join()
    _report(pairs, arguments.loop)


async def _rounds(base_url: str, rounds: int, calls: int) -> list[tuple[float, float]]:
    pairs = []
    payment = processing_payment()
    async with _aiohttp_client(base_url) as old, OkaneHttpProvider(base_url, timeout=TIMEOUT) as new:
        for charge in (old, new.charge):  # connections open, caches warm
            await cpu_us_per_call(charge, payment, calls)
        for number in range(rounds):
            if number % 2:
                new_us = await cpu_us_per_call(new.charge, payment, calls)
                old_us = await cpu_us_per_call(old, payment, calls)
            else:
                old_us = await cpu_us_per_call(old, payment, calls)
                new_us = await cpu_us_per_call(new.charge, payment, calls)
            pairs.append((old_us, new_us))
    return pairs


async def cpu_us_per_call(charge: Charge, payment: Payment, calls: int, *, result: type = Approved) -> float:
    """Return the CPU microseconds of this process per charge. Each must end in `result`."""

    async def caller() -> None:
        for _ in range(calls // IN_FLIGHT):
            assert isinstance(await charge(payment), result)

    started_s = time.process_time()
    async with asyncio.TaskGroup() as callers:
        for _ in range(IN_FLIGHT):
            callers.create_task(caller())
    return (time.process_time() - started_s) / (calls // IN_FLIGHT * IN_FLIGHT) * 1e6


@contextlib.asynccontextmanager
async def _aiohttp_client(base_url: str) -> AsyncIterator[Charge]:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=256),
        timeout=aiohttp.ClientTimeout(total=None, connect=TIMEOUT.total_seconds() / 2),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "okane"},
    )

    async def charge(payment: Payment) -> ChargeResult:
        said = {"payment_id": str(payment.id), "amount": payment.amount_minor, "currency": payment.currency}
        headers = {"Idempotency-Key": payment.provider_key, "Content-Type": "application/json"}
        async with (
            asyncio.timeout(TIMEOUT.total_seconds()),
            session.post(
                f"{base_url}/charges", headers=headers, data=json.dumps(said).encode(), allow_redirects=False
            ) as response,
        ):
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
            answer = HttpResponse(response.status, bytes(body), response.headers.get("Retry-After"))
        return parse_charge_answer(answer, payment, now=datetime.now(UTC))

    async with session:
        yield charge


def _serve(pipe: Pipe) -> None:
    asyncio.run(_serve_for_ever(pipe))


async def _serve_for_ever(pipe: Pipe) -> None:
    server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0, backlog=512)
    pipe.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


class _Server(asyncio.Protocol):
    """Answers every request alike. A request arrives in one piece or in two: head and body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"}"):
            self._received = b""
            self._transport.write(ANSWER)


def processing_payment() -> Payment:
    """Return a payment that a worker has claimed."""
    now = datetime.now(UTC)
    return Payment(
        id=uuid4(),
        account_id="default",
        idempotency_key="bench",
        amount_minor=440,
        currency="USD",
        lane="low",
        status=Status.PROCESSING,
        attempts=1,
        retries=0,
        version=2,
        provider_key=str(uuid4()),
        created_at=now,
        updated_at=now,
        metadata={},
    )


def _report(pairs: list[tuple[float, float]], loop: str) -> None:
    old_us, new_us = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(old / new for old, new in pairs)
    print(f"{loop}, {IN_FLIGHT} in flight, CPU us per call: aiohttp {old_us:.0f}, OkaneHttpProvider {new_us:.1f}")
    print(f"ratio {ratio:.1f} (median of {len(pairs)} rounds)")


if __name__ == "__main__":
    main()
