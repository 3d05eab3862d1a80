"""Takes over the messages of dead consumers: those whose lease has run out (XAUTOCLAIM).

Guarantees: a scan keeps its cursor until it is back at the start, else it would never reach the tail of a long pending
list; it takes over no more than there are free slots; a message on its last delivery is taken over by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from streams import scripts
from streams.clock import Clock, milliseconds
from streams.entry import to_message
from streams.errors import StreamError, StreamUnavailable
from streams.failpoints import failpoint
from streams.group import Group
from streams.lost_deliveries import LostDeliveries
from streams.message import Message

log = logging.getLogger("streams")

_START = b"0-0"
_CHUNK = 100  # entries per scan step: some 4 ms of the server's time; ten thousand would block every client for 0.4 s

AFTER_CLAIM = failpoint("reclaim.after_claim", "taken over, its handler not started", raises=StreamUnavailable)


class Reclaimer:
    """Takes over what has been idle for longer than `min_idle`. Scans all lanes once per `every`, with jitter.

    A message on its last delivery, the `max_deliveries`th, is left to `take_last_delivery`.
    """

    def __init__(
        self,
        group: Group,
        *,
        min_idle: timedelta,
        every: timedelta,
        max_deliveries: int,
        lost: LostDeliveries,
        clock: Clock,
        roll: Callable[[], float],
    ) -> None:
        self._group = group
        self._lost = lost
        self._before_last = max_deliveries - 1
        self._last_deliveries = 0
        self._min_idle_ms = milliseconds(min_idle)
        self._every_s = every.total_seconds()
        self._clock = clock
        self._roll = roll
        self._cursors: dict[str, bytes] = {}  # of the lanes that the current scan has not finished
        self._next_scan_s = clock.monotonic()

    @property
    def due_in(self) -> timedelta:
        """The time until the next scan step; zero while a scan is under way."""
        if self._cursors:
            return timedelta(0)
        return timedelta(seconds=max(0.0, self._next_scan_s - self._clock.monotonic()))

    def scan_now(self) -> None:
        """Make the next scan due now."""
        self._next_scan_s = self._clock.monotonic()

    @property
    def has_last_deliveries(self) -> bool:
        """True if the last scan left messages whose next delivery is their last."""
        return self._last_deliveries > 0

    async def run_once(self, limit: int) -> list[Message]:
        """Scan all lanes, or continue the scan, until `limit` messages are taken over; return them."""
        if not self._cursors:
            self._cursors = dict.fromkeys(self._group.stream.lane_names, _START)
            self._last_deliveries = 0
            # Jitter, so that a fleet started together does not scan together.
            self._next_scan_s = self._clock.monotonic() + self._every_s * (0.8 + 0.4 * self._roll())
        taken: list[Message] = []
        try:
            while self._cursors and len(taken) < limit:
                messages, full = await self._step(next(iter(self._cursors)), min(_CHUNK, limit - len(taken)))
                taken += messages
                if full:  # large messages: the leases of those received run while others are read
                    break
        except StreamError:
            if not taken:
                raise
            # These count as delivered, so they are handled now; the error comes again with the next command.
            log.debug("a scan for silent consumers stopped halfway", exc_info=True)
        return taken

    async def take_last_delivery(self) -> Message | None:
        """Take over one message whose delivery is its last, None if there is none. Handle it with nothing else in hand."""
        for lane in self._group.stream.lane_names:
            cursor = None
            while cursor != _START:
                messages, found = await self._claim(lane, cursor or _START, _CHUNK, last=True)
                cursor = found.cursor
                if messages:
                    return messages[0]
        self._last_deliveries = 0
        return None

    async def _step(self, lane: str, count: int) -> tuple[list[Message], bool]:
        """Return the messages taken over, and whether the byte limit ended the step."""
        messages, found = await self._claim(lane, self._cursors[lane], count, last=False)
        self._last_deliveries += found.left
        if found.cursor == _START:
            del self._cursors[lane]
        else:
            self._cursors[lane] = found.cursor
        return messages, found.full

    async def _claim(
        self, lane: str, cursor: bytes, count: int, *, last: bool
    ) -> tuple[list[Message], scripts.Reclaimed]:
        window, sent_s = self._lost.window, self._clock.monotonic()
        with self._lost.receiving():
            found = await scripts.reclaim(
                self._group,
                lane,
                min_idle_ms=self._min_idle_ms,
                cursor=cursor,
                count=count,
                before_last=self._before_last,
                last=last,
                max_bytes=window.max_bytes,
            )
            if found.taken and AFTER_CLAIM.armed:
                await AFTER_CLAIM.hit()
        window.record(found.size, self._clock.monotonic() - sent_s)
        messages = [to_message(entry_id, fields, lane=lane, deliveries=n) for entry_id, n, fields in found.taken]
        return messages, found
