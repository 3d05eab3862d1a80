"""The deliveries of one endpoint queue that wait in Postgres and hold back later events of their payments. Pure.

A delivery holds back the next ones of its payment until `hold_s` after its first failure. One that was held back itself, and
so has never been sent, holds them back for as long as it waits.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from uuid import UUID

NEVER_SENT_S = math.inf


class Holds:
    """The waiting deliveries by payment. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._by_payment: dict[UUID, dict[int, float]] = {}  # by position: until when it holds back
        self._ends: list[tuple[float, int, UUID]] = []  # a heap; some entries are outdated
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, payment_id: UUID, position: int, *, until_s: float) -> None:
        """Hold back what is behind `position` of this payment, `until_s`. The first time that is given stays."""
        waiting = self._by_payment.setdefault(payment_id, {})
        before_s = waiting.get(position)
        if before_s is not None and before_s != NEVER_SENT_S:
            return
        self._count += before_s is None
        waiting[position] = until_s
        if until_s != NEVER_SENT_S:
            heapq.heappush(self._ends, (until_s, position, payment_id))

    def end(self, payment_id: UUID, position: int) -> None:
        """End one: it was delivered or given up."""
        waiting = self._by_payment.get(payment_id)
        if waiting is None or waiting.pop(position, None) is None:
            return
        self._count -= 1
        if not waiting:
            del self._by_payment[payment_id]

    def expire(self, now_s: float) -> None:
        """Forget those that hold nothing back any more."""
        while self._ends and self._ends[0][0] <= now_s:
            until_s, position, payment_id = heapq.heappop(self._ends)
            if self._by_payment.get(payment_id, {}).get(position) == until_s:
                self.end(payment_id, position)

    def held_until_s(self, payment_id: UUID, position: int, now_s: float) -> float | None:
        """Return the time until which this event is held back, `NEVER_SENT_S` if it is open; None if it may go."""
        if payment_id not in self._by_payment:  # as nearly always
            return None
        until_s = max((end_s for _, end_s in self._before(payment_id, position)), default=-math.inf)
        return until_s if until_s > now_s else None

    def next_held(self, payment_id: UUID, now_s: float) -> int | None:
        """Return the position of the first delivery of the payment that was never sent, if it may go now."""
        waiting = self._by_payment.get(payment_id)
        if waiting is None:  # as for nearly all
            return None
        position = min((one for one, end_s in waiting.items() if end_s == NEVER_SENT_S), default=None)
        return None if position is None or self.held_until_s(payment_id, position, now_s) is not None else position

    def _before(self, payment_id: UUID, position: int) -> Iterator[tuple[int, float]]:
        return ((one, end_s) for one, end_s in self._by_payment.get(payment_id, {}).items() if one < position)
