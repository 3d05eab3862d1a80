"""Long work in slices: what takes longer than one request may hold the event loop gives other requests their turn."""

from __future__ import annotations

import asyncio
import time

SLICE_S = 0.001  # so that the longest step in between, and what else is in the same turn, stay below five times as much


class TimeSlice:
    """The time since other tasks had their turn. For code that computes for long and awaits nothing else."""

    def __init__(self) -> None:
        self._since_s = time.perf_counter()

    async def end_if_spent(self) -> None:
        """Let other tasks run once the slice is used up; else return at once."""
        if time.perf_counter() - self._since_s >= SLICE_S:
            await asyncio.sleep(0)
            self._since_s = time.perf_counter()
