"""Consumers with settings for tests, and a consumer that runs inside a block."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from datetime import timedelta
from typing import Any

from redis.asyncio import Redis

from streams import Consumer, ConsumerOptions, Done, Message, Outcome, Stream, scripts
from streams.entry import to_message
from streams.group import Group
from streams.testing import Dice

GROUP = "workers"
TUNING = {each.name for each in fields(ConsumerOptions)}


def consumer(client: Redis, stream: Stream, handler: Any, **options: Any) -> Consumer:
    """Return a consumer; `options` are those of `Consumer` and of `ConsumerOptions`."""
    usual: dict[str, Any] = {"group": GROUP, "name": "c1", "block": timedelta(milliseconds=50), "roll": Dice(0.5)}
    given = usual | options
    tuning = {name: given.pop(name) for name in TUNING & given.keys()}
    return Consumer(client, stream, handler=handler, options=ConsumerOptions(**tuning), **given)


def batch_consumer(client: Redis, stream: Stream, handler: Any, **options: Any) -> Consumer:
    return consumer(client, stream, None, batch_handler=handler, **options)


async def done(message: Message) -> Outcome:
    return Done()


async def read_and_die(client: Redis, stream: Stream, *, name: str = "dead") -> list[Message]:
    """Read everything for a consumer that never acks it; return the messages."""
    group = Group(client, stream, GROUP, name)
    await scripts.create_group(group)
    shares = [10_000] * len(stream.lanes)
    _, taken, _, _ = await scripts.read(
        group,
        stream.lane_keys,
        limit=sum(shares),
        max_bytes=1 << 30,
        entry_bytes=1,
        shares=shares,
    )
    lanes = zip(stream.lane_names, taken, strict=True)
    return [to_message(entry_id, fields, lane=lane) for lane, entries in lanes for entry_id, fields in entries]


class Running:
    """Runs a consumer inside the block; at the end of it the consumer has drained."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.stop = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Running:
        self.task = asyncio.create_task(self.consumer.run(self.stop))
        return self

    async def __aexit__(self, failed: object, *_: object) -> None:
        self.stop.set()
        assert self.task is not None
        if failed is None:
            await self.task
        else:  # the handler may wait for the failed test
            self.task.cancel()
            await asyncio.wait([self.task])
