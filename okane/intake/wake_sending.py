"""Sending wake-ups from the side of requests: what cannot be sent now is left to the sweep.

While Redis is known to be away requests do not wait for it: one wake-up at a time tries it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import structlog

from okane.deadline import Deadline
from streams import Draft, Publisher, StreamError, StreamFull
from streams.failpoints import Failpoint

log = structlog.get_logger("okane.accept")

WAKE_TIMEOUT_S = 1.0  # how long a client waits for Redis at most: its payment or operation is safe already
AWAY_S = 1.0  # how long Redis is left alone after it did not answer


class WakeSender:
    """Sends the wake-ups of rows that are committed. `before_send` is the failpoint between the two."""

    def __init__(self, producer: Publisher, *, before_send: Failpoint) -> None:
        self._producer = producer
        self._before_send = before_send
        self._away_until_s = 0.0

    def count_sendable(self, count: int) -> int:
        """Return how many of so many wake-ups are worth a try now: all, or while Redis is away one now and then."""
        if not self._away_until_s:
            return count
        return min(count, 1) if time.monotonic() >= self._away_until_s else 0

    async def send(self, wake_ups: Sequence[Draft]) -> Sequence[bool]:
        """Send wake-ups; return for each whether Redis took it."""
        if self._away_until_s:  # this wake-up is the one that tries Redis
            self._away_for(WAKE_TIMEOUT_S + AWAY_S)
        taken = [True] * len(wake_ups)
        try:
            if self._before_send.armed:
                await self._before_send.hit()
            with Deadline(WAKE_TIMEOUT_S):
                await self._producer.publish_many(wake_ups)
        except StreamFull as error:
            taken = [entry_id is not None for entry_id in error.published]
        except (StreamError, TimeoutError) as error:
            reason = str(error) or f"no answer in {WAKE_TIMEOUT_S:g} s"
            log.debug("wake_ups_not_sent", count=len(wake_ups), reason=reason)
            if not self._away_until_s:
                log.error("redis_lost", reason=reason)  # noqa: TRY400 - an outage, not a bug
            self._away_for(AWAY_S)
            return [False] * len(wake_ups)
        if self._away_until_s:
            log.error("redis_back")
        self._away_until_s = 0.0
        return taken

    def _away_for(self, duration_s: float) -> None:
        self._away_until_s = time.monotonic() + duration_s
