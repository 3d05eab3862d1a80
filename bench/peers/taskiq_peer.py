"""taskiq-redis on a stream."""

from __future__ import annotations

import asyncio
import contextlib

from taskiq.api import run_receiver_task  # type: ignore[import-not-found]  # of the peers' own environment
from taskiq_redis import RedisStreamBroker  # type: ignore[import-not-found]  # as above

from bench.peers.harness import Tally, by_callers, run


async def publish(url: str, jobs: int) -> None:
    broker = RedisStreamBroker(url, queue_name="bench-taskiq", consumer_id="0")
    task = broker.register_task(lambda: None, task_name="noop")
    await broker.startup()
    await by_callers(jobs, lambda _: task.kiq())
    await broker.shutdown()


async def consume(url: str, tally: Tally) -> None:
    async def noop() -> None:
        tally.executed()

    broker = RedisStreamBroker(url, queue_name="bench-taskiq", consumer_id="0")
    broker.register_task(noop, task_name="noop")
    await broker.startup()
    receiver = asyncio.create_task(run_receiver_task(broker, max_async_tasks=200, validate_params=False))
    await tally.done.wait()
    receiver.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await receiver
    await broker.shutdown()


if __name__ == "__main__":
    run("taskiq-redis", publish, consume)
