"""arq."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from arq import create_pool, func  # type: ignore[import-not-found]  # of the peers' own environment
from arq.connections import RedisSettings  # type: ignore[import-not-found]  # as above
from arq.worker import Worker  # type: ignore[import-not-found]  # as above

from bench.peers.harness import Tally, by_callers, run


async def publish(url: str, jobs: int) -> None:
    pool = await create_pool(RedisSettings.from_dsn(url))
    await by_callers(jobs, lambda _: pool.enqueue_job("noop"))
    await pool.aclose()


async def consume(url: str, tally: Tally) -> None:
    async def noop(_context: dict[str, Any]) -> None:
        tally.executed()

    worker = Worker(
        functions=[func(noop, name="noop", keep_result=0)],
        redis_settings=RedisSettings.from_dsn(url),
        max_jobs=200,
        poll_delay=0.01,
        handle_signals=False,
    )
    running = asyncio.create_task(worker.async_run())
    await tally.done.wait()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    with contextlib.suppress(asyncio.CancelledError):  # its last jobs have run, their bookkeeping is cut short
        await worker.close()


if __name__ == "__main__":
    run("arq", publish, consume)
