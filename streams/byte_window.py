"""How many bytes one round trip may carry, so that large messages do not time out together where each would get through."""

from __future__ import annotations

from typing import Final

from redis.asyncio import Redis

FIRST: Final = 128 * 1024
SMALLEST: Final = 16 * 1024
_LARGEST: Final = 1024 * 1024  # more gain nothing, and hold the server and all others for a millisecond
_TIMEOUT_S: Final = 5.0  # for a client without one


class ByteWindow:
    """The bytes of one round trip, as the link has borne them so far. One message may always travel, however large.

    As TCP's congestion window: it doubles when a full trip was quick, and halves when one was slow or failed. Slow is a
    quarter of the client's time-out, so that a link that grows slower is met by smaller trips before any is lost.
    """

    def __init__(self, client: Redis) -> None:
        timeout_s = client.connection_pool.connection_kwargs.get("socket_timeout") or _TIMEOUT_S
        self._slow_s = timeout_s / 4
        self._quick_s = timeout_s / 10
        self.max_bytes = FIRST

    def record(self, size: int, took_s: float) -> None:
        """Note a trip of `size` bytes that was answered."""
        if 2 * size <= self.max_bytes:
            return  # little was sent: its time says nothing about the link, or it was that of another trip
        if took_s > self._slow_s:
            self._shrink()
        elif took_s < self._quick_s:
            self.max_bytes = min(_LARGEST, 2 * self.max_bytes)

    def record_failure(self) -> None:
        """Note a trip that was not answered."""
        self._shrink()

    def _shrink(self) -> None:
        self.max_bytes = max(SMALLEST, self.max_bytes // 2)
