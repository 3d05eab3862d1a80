"""Time as the loops see it, so that tests can own it. Delays and leases go by the server's clock, never by this one."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Where a loop gets the time, and how it lets time pass."""

    def now(self) -> datetime:
        """The wall clock, with a time zone."""

    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes back."""

    async def sleep(self, delay: timedelta) -> None:
        """Returns when `delay` has passed."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, delay: timedelta) -> None:
        await asyncio.sleep(delay.total_seconds())


async def pause(clock: Clock, delay: timedelta, stop: asyncio.Event) -> None:
    """Waits for `delay`, or until `stop` is set, whichever comes first."""
    if stop.is_set():
        return
    racers = [asyncio.ensure_future(clock.sleep(delay)), asyncio.ensure_future(stop.wait())]
    try:
        await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for racer in racers:
            racer.cancel()
        await asyncio.gather(*racers, return_exceptions=True)


def milliseconds(delay: timedelta) -> int:
    """`delay` in whole milliseconds, never rounded down to nothing."""
    return max(-(-delay // timedelta(milliseconds=1)), 0)
