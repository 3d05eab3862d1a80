"""The way from the server to one consumer: how much may come at once, and what was sent and did not arrive.

Promise: a delivery whose reply was lost is handed back as soon as the server can be reached, and is not counted. So a slow
link makes no message poison.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

from redis.asyncio import Redis

from streams import scripts
from streams.byte_window import ByteWindow
from streams.clock import Clock, milliseconds
from streams.connection import redis_errors
from streams.errors import StreamError
from streams.keys import Stream


class LostDeliveries:
    """The deliveries to one consumer of the group."""

    def __init__(
        self, client: Redis, stream: Stream, *, group: str, consumer: str, lease: timedelta, clock: Clock
    ) -> None:
        self.window = ByteWindow(client)
        self._client = client
        self._stream = stream
        self._group = group
        self._consumer = consumer
        self._lease_ms = milliseconds(lease)
        self._clock = clock
        self._lost_since_s: float | None = None  # when the first request was sent whose reply may be lost

    @property
    def is_suspected(self) -> bool:
        """Tell whether there may be something to hand back."""
        return self._lost_since_s is not None

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """For a request that delivers messages: what it raises may have kept them from us, and so may its cancellation."""
        sent_s = self._clock.monotonic()
        try:
            yield
        except (StreamError, asyncio.CancelledError) as error:
            if self._lost_since_s is None:
                self._lost_since_s = sent_s
            if isinstance(error, StreamError):
                self.window.record_failure()
            raise

    async def release(self, in_hand: Mapping[str, Sequence[str]]) -> int:
        """Hand back what was delivered since a reply was lost, but for the ids `in_hand` (by lane); how many. Idle for longer
        than the lease then, it is taken over at once."""
        if self._lost_since_s is None:
            return 0
        with redis_errors():
            seconds, microseconds = await self._client.time()
        # By the server's clock. A little early, by the time that the answer took: what it sent then has arrived.
        passed_ms = (self._clock.monotonic() - self._lost_since_s) * 1000
        handed_back = await scripts.release_lost(
            self._client,
            self._stream,
            group=self._group,
            consumer=self._consumer,
            since_ms=int(seconds * 1000 + microseconds / 1000 - passed_ms),
            lease_ms=self._lease_ms,
            in_hand=in_hand,
        )
        self._lost_since_s = None
        return handed_back
