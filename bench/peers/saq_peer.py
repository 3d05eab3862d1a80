"""saq."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from saq import Queue, Worker  # type: ignore[import-not-found]  # of the peers' own environment

from bench.peers.harness import Tally, by_callers, run


async def publish(url: str, jobs: int) -> None:
    queue = Queue.from_url(url, name="bench-saq")
    await queue.connect()
    await by_callers(jobs, lambda _: queue.enqueue("noop", ttl=-1))
    await queue.disconnect()


async def consume(url: str, tally: Tally) -> None:
    async def noop(_context: dict[str, Any]) -> None:
        tally.executed()

    queue = Queue.from_url(url, name="bench-saq")
    await queue.connect()
    worker = Worker(queue, functions=[("noop", noop)], concurrency=100)
    running = asyncio.create_task(worker.start())
    await tally.done.wait()
    await worker.stop()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await queue.disconnect()


if __name__ == "__main__":
    run("saq", publish, consume)
