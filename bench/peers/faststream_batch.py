"""FastStream, a subscriber that is handed whole batches; jobs are published one by one, as in the others."""

from __future__ import annotations

from faststream.redis import RedisBroker, StreamSub  # type: ignore[import-not-found]  # of the peers' own environment
from redis.asyncio import Redis

from bench.peers.faststream_peer import GROUP, STREAM, publish
from bench.peers.harness import Tally, run


async def consume(url: str, tally: Tally) -> None:
    async def noop(bodies: list[int]) -> None:
        tally.executed(len(bodies))

    async with Redis.from_url(url) as client:
        await client.xgroup_create(STREAM, GROUP, id="0")
    broker = RedisBroker(url, logger=None)
    source = StreamSub(STREAM, group=GROUP, consumer="bench", max_records=500, batch=True)
    broker.subscriber(stream=source)(noop)
    await broker.start()
    await tally.done.wait()
    await broker.stop()


if __name__ == "__main__":
    run("faststream", publish, consume)
