"""`streams`, a handler that is handed whole batches; jobs are published one by one, as in the others."""

from __future__ import annotations

from collections.abc import Sequence

from bench.peers.harness import Tally, run
from bench.peers.streams_handler import STREAM, publish, run_until_done
from streams import Consumer, ConsumerOptions, Done, Message, Outcome, connect

OPTIONS = ConsumerOptions(max_batch=500, concurrency=1_000)


async def consume(url: str, tally: Tally) -> None:
    async def handle(messages: Sequence[Message]) -> Sequence[Outcome]:
        tally.executed(len(messages))
        return [Done()] * len(messages)

    async with connect(url) as client:
        consumer = Consumer(client, STREAM, group="bench", name="bench", batch_handler=handle, options=OPTIONS)
        await run_until_done(consumer, tally)


if __name__ == "__main__":
    run("okane", publish, consume)
