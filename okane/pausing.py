"""The pause of a loop that ends at once when it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib


async def pause(pause_s: float, stop: asyncio.Event) -> None:
    """Return after `pause_s`, or once `stop` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(pause_s):
            await stop.wait()
