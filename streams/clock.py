"""The clock of the loops, which tests replace. Delays and leases use the server's clock, never this one."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """The source of time for a loop, and its way to wait."""

    def now(self) -> datetime:
        """Return the wall-clock time, with a time zone."""

    def monotonic(self) -> float:
        """Return the seconds since some fixed point. They never go back."""

    async def sleep(self, delay: timedelta) -> None:
        """Return when `delay` has passed."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, delay: timedelta) -> None:
        await asyncio.sleep(delay.total_seconds())


async def pause(clock: Clock, delay: timedelta, stop: asyncio.Event) -> None:
    """Wait for `delay`, or until `stop` is set, whichever comes first."""
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
    """Return `delay` in whole milliseconds, rounded up."""
    return max(-(-delay // timedelta(milliseconds=1)), 0)
