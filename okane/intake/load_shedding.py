"""Load shedding: refuse new payments while the oldest due payment is too old.

It goes by Postgres, never by Redis, which may be full or away while all is well.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from okane.errors import StoreUnavailable
from okane.pausing import pause
from okane.store import Overview

log = structlog.get_logger("okane.accept")

CHECK_INTERVAL_S = 1.0


class LoadShedding:
    """A periodic check of the oldest due payment; `is_shedding` is its last result."""

    def __init__(self, overview: Overview, *, max_due_age: timedelta) -> None:
        self._overview = overview
        self._max_due_age = max_due_age
        self.is_shedding = False

    async def run(self, stop: asyncio.Event) -> None:
        """Check every second until `stop`."""
        while not stop.is_set():
            await self.run_once()
            await pause(CHECK_INTERVAL_S, stop)

    async def run_once(self) -> int:
        """Check once; return 1 if new payments are refused now, else 0. A Postgres outage changes nothing: writes fail by
        themselves."""
        try:
            age = await self._overview.oldest_due()
        except StoreUnavailable:
            return int(self.is_shedding)
        before, self.is_shedding = self.is_shedding, age > self._max_due_age
        if self.is_shedding != before:
            age_s = round(age.total_seconds(), 1)
            if self.is_shedding:
                log.warning("overloaded", oldest_due_s=age_s)
            else:
                log.warning("overload_over", oldest_due_s=age_s)
        return int(self.is_shedding)
