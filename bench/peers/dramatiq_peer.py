"""dramatiq. It has threads and no callers that wait: jobs are sent one after the other."""

from __future__ import annotations

import asyncio

import dramatiq  # type: ignore[import-not-found]  # of the peers' own environment
from dramatiq.brokers.redis import RedisBroker  # type: ignore[import-not-found]  # as above

from bench.peers.harness import Tally, run

THREADS = 8


async def publish(url: str, jobs: int) -> None:
    broker = RedisBroker(url=url)
    actor = dramatiq.actor(lambda: None, broker=broker, actor_name="noop", queue_name="bench")
    for _ in range(jobs):
        actor.send()
    broker.close()


async def consume(url: str, tally: Tally) -> None:
    loop = asyncio.get_running_loop()

    def noop() -> None:
        loop.call_soon_threadsafe(tally.executed)

    broker = RedisBroker(url=url)
    dramatiq.actor(noop, broker=broker, actor_name="noop", queue_name="bench")
    worker = dramatiq.Worker(broker, worker_threads=THREADS)
    worker.start()
    await tally.done.wait()
    await asyncio.to_thread(worker.stop)
    broker.close()


if __name__ == "__main__":
    run("dramatiq", publish, consume)
