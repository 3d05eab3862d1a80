"""Settles messages: what is done leaves its lane, what is tried again goes to the delayed set, the rest to the dead.

Promise: each in one step with the removal of its entry, and many messages per round trip.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import assert_never

from redis.asyncio import Redis

from streams import scripts
from streams.clock import milliseconds
from streams.coalesce import Answer, Coalescer
from streams.connection import Outage
from streams.entry import to_dead_fields, to_fields
from streams.errors import StreamUnavailable
from streams.failpoints import failpoint
from streams.keys import Stream
from streams.message import Message
from streams.metrics import Metrics
from streams.outcome import Dead, Done, Outcome, Retry

log = logging.getLogger("streams")

_Settlement = tuple[Message, Outcome]

BEFORE_ACK = failpoint("settle.before_ack", "outcomes known, Redis not told", raises=StreamUnavailable)
AFTER_ACK = failpoint("settle.after_ack", "entries acknowledged, the reply not heard", raises=StreamUnavailable)


class Settler:
    """Settles for one consumer. While the server is away it keeps trying; the entries are pending meanwhile, so that
    giving up loses nothing: they are delivered again."""

    def __init__(self, client: Redis, stream: Stream, *, group: str, outage: Outage, metrics: Metrics) -> None:
        self._client = client
        self._stream = stream
        self._group = group
        self._outage = outage
        self._metrics = metrics
        self._giving_up = asyncio.Event()
        self._coalescer: Coalescer[_Settlement, None] = Coalescer(self._flush)

    def settle(self, message: Message, outcome: Outcome, answer: Answer[None]) -> None:
        """Settles `message`; a `Retry` must say when. `answer` is told when it is done, or the error why it is not."""
        self._coalescer.submit_to(answer, (message, outcome))

    async def give_up(self) -> None:
        """Ends the trying: what the server does not take at once stays pending. Returns when nothing is under way."""
        self._giving_up.set()
        try:
            await self._coalescer.idle()
        finally:
            self._giving_up.clear()

    async def _flush(self, batch: Sequence[_Settlement]) -> list[BaseException | None]:
        results: list[BaseException | None] = []
        for part in _cut(batch):
            try:
                await self._persist(part)
            except Exception as error:
                results += [error] * len(part)
            else:
                results += [None] * len(part)
        return results

    async def _persist(self, part: Sequence[_Settlement]) -> None:
        while True:
            try:
                await self._send(part)
                break
            except StreamUnavailable as error:
                if self._giving_up.is_set():
                    raise
                await self._outage.endure(error, self._giving_up)
        self._metrics.batch("settle", len(part))
        counts = Counter((message.lane, type(outcome).__name__.lower()) for message, outcome in part)
        for (lane, outcome), count in counts.items():
            self._metrics.settled(lane, outcome, count)

    async def _send(self, part: Sequence[_Settlement]) -> None:
        entries: dict[str, list[str]] = defaultdict(list)
        retries: list[tuple[int, str, str, list[scripts.Argument]]] = []
        dead: list[list[scripts.Argument]] = []
        for message, outcome in part:
            entries[message.lane].append(message.id)
            match outcome:
                case Done():
                    pass
                case Retry(after=after):
                    assert after is not None, "resolved before it is settled"
                    fields = to_fields(message.body, message.headers, attempt=message.attempt + 1)
                    retries.append((milliseconds(after), message.id, message.lane, fields))
                case Dead(reason=reason):
                    dead.append(to_dead_fields(message, reason))
                case _:
                    assert_never(outcome)
        if BEFORE_ACK.armed:
            await BEFORE_ACK.hit()
        await scripts.settle(self._client, self._stream, group=self._group, entries=entries, retries=retries, dead=dead)
        if AFTER_ACK.armed:
            await AFTER_ACK.hit()


def _cut(batch: Sequence[_Settlement]) -> Iterator[Sequence[_Settlement]]:
    """Parts that one script call may take: nearly always the whole batch, as only retries and dead letters are long."""
    start = size = 0
    for at, (message, outcome) in enumerate(batch):
        cost = 1 if isinstance(outcome, Done) else 18 + 2 * len(message.headers)
        if size + cost > scripts.MAX_ARGUMENTS and at > start:
            yield batch[start:at]
            start, size = at, 0
        size += cost
    if start < len(batch):
        yield batch[start:]
