"""FastStream, a subscriber that is called for each message."""

from __future__ import annotations

from faststream.redis import RedisBroker, StreamSub  # type: ignore[import-not-found]  # of the peers' own environment
from redis.asyncio import Redis

from bench.peers.harness import Tally, by_callers, run

STREAM, GROUP = "bench-faststream", "bench"


async def publish(url: str, jobs: int) -> None:
    async with RedisBroker(url, logger=None) as broker:
        await by_callers(jobs, lambda number: broker.publish(number, stream=STREAM))


async def consume(url: str, tally: Tally) -> None:
    async def noop(_body: int) -> None:
        tally.executed()

    async with Redis.from_url(url) as client:  # its own group would begin after what is there
        await client.xgroup_create(STREAM, GROUP, id="0")
    broker = RedisBroker(url, logger=None)
    source = StreamSub(STREAM, group=GROUP, consumer="bench", max_records=100)
    broker.subscriber(stream=source)(noop)
    await broker.start()
    await tally.done.wait()
    await broker.stop()


if __name__ == "__main__":
    run("faststream", publish, consume)
