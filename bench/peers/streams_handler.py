"""`streams`, a handler for each message."""

from __future__ import annotations

import asyncio

from bench.peers.harness import Tally, by_callers, run
from streams import Consumer, ConsumerOptions, Done, Message, Outcome, Producer, Stream, connect

STREAM = Stream("bench-streams")
OPTIONS = ConsumerOptions(concurrency=512)
BODY = b"0123456789abcdef"


async def publish(url: str, jobs: int) -> None:
    async with connect(url) as client:
        producer = Producer(client, STREAM)
        await by_callers(jobs, lambda _: producer.publish(BODY))


async def consume(url: str, tally: Tally) -> None:
    async def handle(_message: Message) -> Outcome:
        tally.executed()
        return Done()

    async with connect(url) as client:
        consumer = Consumer(client, STREAM, group="bench", name="bench", handler=handle, options=OPTIONS)
        await run_until_done(consumer, tally)


async def run_until_done(consumer: Consumer, tally: Tally) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(consumer.run(stop))
    await tally.done.wait()
    stop.set()
    await running


if __name__ == "__main__":
    run("okane", publish, consume)
