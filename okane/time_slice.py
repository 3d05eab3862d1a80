"""Long computations in slices of time, so that other requests run in between."""

from __future__ import annotations

import asyncio
import time

SLICE_S = 0.001  # the longest step in between, with the rest of its turn of the loop, stays below five times this


class TimeSlice:
    """The time since other tasks could run. For code that computes for long and awaits nothing else."""

    def __init__(self) -> None:
        self._since_s = time.perf_counter()

    async def end_if_spent(self) -> None:
        """Let other tasks run once the slice is used up; else return at once."""
        if time.perf_counter() - self._since_s >= SLICE_S:
            await asyncio.sleep(0)
            self._since_s = time.perf_counter()
