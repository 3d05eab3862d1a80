"""Messages that a dead consumer left behind."""

from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio import Redis

from streams import Draft, Message, Metrics, Producer, Stream
from tests.streams.conftest import pretend_idle
from tests.streams.running import GROUP, read_and_die


class Counts(Metrics):
    def __init__(self) -> None:
        self.taken = self.kept = self.gone = 0

    def reclaimed(self, lane: str, count: int) -> None:
        self.taken += count

    def renewed(self, count: int) -> None:
        self.kept += count

    def lost(self, count: int) -> None:
        self.gone += count


async def abandon(client: Redis, stream: Stream, drafts: Sequence[Draft], *, deliveries: int = 1) -> None:
    """Leave messages pending at a consumer that died an hour ago, after so many deliveries. Once per test."""
    await Producer(client, stream).publish_many(drafts)
    taken = await read_and_die(client, stream)
    assert len(taken) == len(drafts)
    for message in taken:
        counted = Message(message.id, message.lane, message.body, deliveries=deliveries)
        await pretend_idle(client, stream, counted, group=GROUP, consumer="dead")
