"""Deliveries whose reply was lost: releases them as soon as the server answers again, uncounted.

So a slow link makes no message poison.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

from streams import scripts
from streams.byte_window import ByteWindow
from streams.clock import Clock, milliseconds
from streams.errors import StreamError
from streams.group import Group


class LostDeliveries:
    """The lost deliveries to one consumer, and the `window` of bytes that one delivery may have."""

    def __init__(self, group: Group, *, lease: timedelta, clock: Clock) -> None:
        self.window = ByteWindow(group.client)
        self._group = group
        self._lease_ms = milliseconds(lease)
        self._clock = clock
        self._lost_since_s: float | None = None  # the time of the first request whose reply may be lost

    @property
    def is_suspected(self) -> bool:
        """True if a reply may have been lost since the last `release`."""
        return self._lost_since_s is not None

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Surround a request that delivers messages: an error or a cancellation may mean that its reply is lost."""
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
        """Release the entries delivered since a reply was lost, except the ids `in_hand` (by lane); return how many. They are
        idle for longer than the lease then, so that a consumer takes them over at once."""
        if self._lost_since_s is None:
            return 0
        now_ms = await scripts.server_time_ms(self._group.client, self._group.stream.lane_keys[0])
        # The server's clock, early by the duration of the answer: what the server sent during that time has arrived.
        passed_ms = (self._clock.monotonic() - self._lost_since_s) * 1000
        released = await scripts.release_lost(
            self._group,
            since_ms=int(now_ms - passed_ms),
            lease_ms=self._lease_ms,
            in_hand=in_hand,
        )
        self._lost_since_s = None
        return released
