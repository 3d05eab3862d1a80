"""Publishes messages. Concurrent callers share round trips. A lane at its limit refuses; nothing is ever trimmed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from redis.asyncio import Redis

from streams import scripts
from streams.byte_window import ByteWindow
from streams.coalesce import Coalescer
from streams.connection import checked_client
from streams.draft import Draft, Packed, Packer, fields_size
from streams.errors import StreamFull, StreamUnavailable
from streams.failpoints import failpoint
from streams.keys import Stream
from streams.metrics import Metrics, guarded

AFTER_ADD = failpoint("publish.after_add", "entries added, the reply lost", raises=StreamUnavailable)


class Publisher(Protocol):
    """A `Producer`, or in tests a `streams.testing.MemoryQueue`."""

    async def publish(
        self, body: bytes, *, lane: str | None = None, headers: Mapping[str, str] | None = None
    ) -> str: ...

    async def publish_many(self, drafts: Sequence[Draft]) -> list[str]: ...


class Producer:
    """Publishes to the lanes of one stream. `max_length` bounds every lane; a full one raises `StreamFull`."""

    def __init__(
        self,
        client: Redis,
        stream: Stream,
        *,
        max_length: int | None = None,
        max_batch: int = 256,
        metrics: Metrics | None = None,
    ) -> None:
        self._client = checked_client(client)
        self._stream = stream
        self._packer = Packer(stream)
        self._window = ByteWindow(client)
        self._max_length = max_length
        self._metrics = guarded(metrics)
        self._coalescer: Coalescer[Packed, str | None] = Coalescer(self._flush, max_batch=max_batch)

    async def publish(self, body: bytes, *, lane: str | None = None, headers: Mapping[str, str] | None = None) -> str:
        """Add a message and return its entry id.

        Raises TypeError or ValueError for an invalid message, before anything is sent; `StreamFull` when the lane is at its
        limit; and `StreamUnavailable` when the server is away, full or silent: a silent one may have added the message.
        """
        entry_id = await self._coalescer.submit(self._packer.pack(body, lane, headers))
        if entry_id is None:
            raise StreamFull("message refused: its lane is full")
        return entry_id

    async def publish_many(self, drafts: Sequence[Draft]) -> list[str]:
        """Add all of `drafts`, in order, and return their entry ids. `StreamFull` tells the refused ones from the published.

        Raises as `publish` does; an invalid message keeps all of `drafts` from being sent.
        """
        packed = [self._packer.pack(draft.body, draft.lane, draft.headers) for draft in drafts]
        ids: list[str | None] = []
        for entry_id in await self._coalescer.submit_many(packed):
            if isinstance(entry_id, BaseException):
                raise entry_id
            ids.append(entry_id)
        published = [entry_id for entry_id in ids if entry_id is not None]
        if len(published) < len(ids):
            raise StreamFull(f"{len(ids) - len(published)} of {len(ids)} messages refused: lane full", published=ids)
        return published

    async def check(self) -> None:
        """Raise `StreamError` unless the server takes messages now. Adds none."""
        await scripts.check(self._client, self._stream)

    async def aclose(self) -> None:
        """Refuse further messages, and wait for those under way. The client stays open: it is the caller's."""
        await self._coalescer.aclose()

    async def _flush(self, batch: Sequence[Packed]) -> list[str | BaseException | None]:
        ids: list[str | BaseException | None] = []
        while len(ids) < len(batch):
            part, size = _next_part(batch, len(ids), self._window.max_bytes)
            try:
                sent_s = time.perf_counter()
                added = await scripts.publish(self._client, self._stream, max_length=self._max_length, drafts=part)
                took_s = time.perf_counter() - sent_s
                self._metrics.round_trip("publish", took_s)
                if AFTER_ADD.armed:
                    await AFTER_ADD.hit()
            except Exception as error:  # earlier parts are added; later ones are not sent
                self._window.record_failure()
                return [*ids, *[error] * (len(batch) - len(ids))]
            self._window.record(size, took_s)
            ids += added
            self._count(part, added)
        return ids

    def _count(self, part: Sequence[Packed], added: Sequence[str | None]) -> None:
        self._metrics.batch("publish", len(part))
        counts = Counter([lane for (lane, _), entry_id in zip(part, added, strict=True) if entry_id is not None])
        for lane, count in counts.items():
            self._metrics.published(lane, count)


def _next_part(batch: Sequence[Packed], start: int, max_bytes: int) -> tuple[Sequence[Packed], int]:
    """Return the part of the batch from `start` on that one script call may take, at least one message, and its bytes."""
    arguments = size = 0
    for at in range(start, len(batch)):
        fields = batch[at][1]
        arguments += len(fields) + 2
        more = fields_size(fields)
        if (arguments > scripts.MAX_ARGUMENTS or size + more > max_bytes) and at > start:
            return batch[start:at], size
        size += more
    return batch[start:], size
