"""A bare redis-py loop: XADD one by one; XREADGROUP by the hundred, then XACK and XDEL in a pipeline. No user code."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from bench.peers.harness import Tally, by_callers, run

STREAM, GROUP, COUNT = "bench-loop", "bench", 500
BODY = b"0123456789abcdef"


async def publish(url: str, jobs: int) -> None:
    async with Redis.from_url(url) as client:
        await by_callers(jobs, lambda _: client.xadd(STREAM, {"b": BODY}))


async def consume(url: str, tally: Tally) -> None:
    async with Redis.from_url(url) as client:
        await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        while not tally.done.is_set():
            read: Any = await client.xreadgroup(GROUP, "bench", {STREAM: ">"}, count=COUNT, block=1000)
            for _, entries in read:
                ids = [entry_id for entry_id, _ in entries]
                async with client.pipeline(transaction=False) as pipe:
                    pipe.xack(STREAM, GROUP, *ids)
                    pipe.xdel(STREAM, *ids)
                    await pipe.execute()
                tally.executed(len(entries))


if __name__ == "__main__":
    run("redis", publish, consume)
