"""Long metadata, read at the moment of sending: no queue holds it. The events that are begun together share a statement.

Guarantee: a statement reads `AT_ONCE` events at most, some two megabytes, one statement at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from okane.errors import StoreUnavailable
from okane.store.webhook_events import EventRow
from streams.coalesce import Coalescer

AT_ONCE = 16  # events of a statement, of up to 110 kB each
AWAY_S = 0.5  # between two tries while Postgres is away


class WholeEvents(Protocol):
    """The store of events, with their long metadata."""

    async def get_whole(self, positions: Sequence[int]) -> Sequence[EventRow]: ...


class LongMetadata:
    """The reads of events whose metadata was left out."""

    def __init__(self, events: WholeEvents, *, away_s: float = AWAY_S) -> None:
        self._events = events
        self._away_s = away_s
        self._reads: Coalescer[int, EventRow] = Coalescer(self._read, max_batch=AT_ONCE)

    async def whole(self, row: EventRow) -> EventRow:
        """Return the event with its metadata. Raises StoreUnavailable; LookupError if it was dropped from the log."""
        return await self._reads.submit(row.event.position)

    async def _read(self, positions: Sequence[int]) -> Sequence[EventRow | BaseException]:
        try:
            rows = await self._events.get_whole(sorted(set(positions)))
        except StoreUnavailable:  # the events are begun again at once
            await asyncio.sleep(self._away_s)
            raise
        found = {row.event.position: row for row in rows}
        return [found.get(one) or LookupError(f"there is no event {one} any more") for one in positions]
