"""The limit of bytes in one round trip, so that large messages do not time out together where each alone would pass."""

from __future__ import annotations

from typing import Final

from redis.asyncio import Redis

FIRST: Final = 128 * 1024
SMALLEST: Final = 16 * 1024
_LARGEST: Final = 1024 * 1024  # more gain nothing, and block the server and all its clients for a millisecond
_TIMEOUT_S: Final = 5.0  # for a client without one


class ByteWindow:
    """The limit `max_bytes`, adapted to the link. One message may always travel, however large.

    Like TCP's congestion window, it doubles after a quick full trip and halves after a slow or failed one. Slow is a
    quarter of the client's time-out, so that trips shrink on a slowing link before any is lost.
    """

    def __init__(self, client: Redis) -> None:
        timeout_s = client.connection_pool.connection_kwargs.get("socket_timeout") or _TIMEOUT_S
        self._slow_s = timeout_s / 4
        self._quick_s = timeout_s / 10
        self.max_bytes = FIRST

    def record(self, size: int, took_s: float) -> None:
        """Record an answered trip of `size` bytes."""
        if 2 * size <= self.max_bytes:
            return  # a small trip shows nothing about the link, and may have waited for another one
        if took_s > self._slow_s:
            self._shrink()
        elif took_s < self._quick_s:
            self.max_bytes = min(_LARGEST, 2 * self.max_bytes)

    def record_failure(self) -> None:
        """Record a trip without an answer."""
        self._shrink()

    def _shrink(self) -> None:
        self.max_bytes = max(SMALLEST, self.max_bytes // 2)
