"""`python -m bench.textbook.worker --name NAME`: a task for each message: claim, charge, settle, acknowledge.

A claim fences the charge, the result and its event are one transaction, the acknowledgement comes after the commit, and
XAUTOCLAIM takes over what a dead worker held: what okane promises of a payment that goes well, in the plainest way.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import aiohttp
import uvloop
from aiohttp import web
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bench.textbook.wiring import GROUP, PROVIDER_URL, STREAM, Pool, new_pool, new_redis

CONCURRENCY = 64
LEASE_S = 30

_CLAIM = """
UPDATE payments
SET status = 'processing', attempts = attempts + 1, version = version + 1, updated_at = now(), called_at = now(),
    lease_until = now() + %s * interval '1 second'
WHERE id = %s AND (status = 'pending' OR status = 'processing' AND lease_until <= now())
RETURNING attempts, amount_minor, currency, provider_key
"""
_SETTLE = """
UPDATE payments
SET status = %s, version = version + 1, provider_ref = %s, updated_at = now(), lease_until = NULL
WHERE id = %s AND attempts = %s AND status = 'processing'
RETURNING version
"""
_EVENT = """
INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, latency_ms)
VALUES (%s, %s, %s, %s, %s, %s, %s)
"""


class Worker:
    """One consumer of the group."""

    def __init__(self, *, name: str, pool: Pool, redis: Redis, http: aiohttp.ClientSession) -> None:
        self._name = name
        self._pool = pool
        self._redis = redis
        self._http = http
        self._places = asyncio.Semaphore(CONCURRENCY)
        self._tasks: set[asyncio.Task[None]] = set()

    async def make_group(self) -> None:
        with contextlib.suppress(ResponseError):  # another worker has made it
            await self._redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            read: Any = await self._redis.xreadgroup(GROUP, self._name, {STREAM: ">"}, count=10, block=1000)
            for _, entries in read:
                for entry_id, fields in entries:
                    await self._start(entry_id, fields)
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def take_over(self, stop: asyncio.Event) -> None:
        """Every few seconds, what others have held for longer than their lease."""
        while not stop.is_set():
            _, entries, *_ = await self._redis.xautoclaim(STREAM, GROUP, self._name, LEASE_S * 1000, "0", count=10)
            for entry_id, fields in entries:
                await self._start(entry_id, fields)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 5)

    async def _start(self, entry_id: bytes, fields: dict[bytes, bytes]) -> None:
        await self._places.acquire()
        task = asyncio.create_task(self._handle(entry_id, UUID(bytes=fields[b"id"])))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._places.release()

    async def _handle(self, entry_id: bytes, payment_id: UUID) -> None:
        async with self._pool.connection() as connection:
            claimed = await (await connection.execute(_CLAIM, (LEASE_S, payment_id))).fetchone()
        if claimed is not None:
            await self._charge(payment_id, *claimed)
        await self._redis.xack(STREAM, GROUP, entry_id)

    async def _charge(self, payment_id: UUID, attempt: int, amount: int, currency: str, key: str) -> None:
        started_s = time.monotonic()
        body = {"payment_id": str(payment_id), "amount": amount, "currency": currency}
        url = f"{PROVIDER_URL}/charges"
        async with self._http.post(url, json=body, headers={"Idempotency-Key": key}) as response:
            answer: dict[str, Any] = await response.json()
            status = "success" if response.status == 200 else "failed_final"
        latency_ms = round((time.monotonic() - started_s) * 1000)
        async with self._pool.connection() as connection:
            settle = (status, answer.get("provider_ref"), payment_id, attempt)
            settled = await (await connection.execute(_SETTLE, settle)).fetchone()
            if settled is not None:
                event = (payment_id, settled[0], status, status, attempt, self._name, latency_ms)
                await connection.execute(_EVENT, event)


@contextlib.asynccontextmanager
async def _health(port: int) -> AsyncIterator[None]:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/healthz", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield
    await runner.cleanup()


async def work(name: str) -> None:
    """Work until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    redis = new_redis()
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with new_pool() as pool, redis, aiohttp.ClientSession(connector=connector) as http:
        worker = Worker(name=name, pool=pool, redis=redis, http=http)
        await worker.make_group()
        async with _health(int(os.environ["OKANE_METRICS_PORT"])), asyncio.TaskGroup() as running:
            running.create_task(worker.run(stop))
            running.create_task(worker.take_over(stop))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    uvloop.run(work(parser.parse_args().name))


if __name__ == "__main__":
    main()
