"""The wait until dispatchers work by the change of an endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

CONFIRM_S = 12.0  # a dispatcher confirms a change within 3 s; the lease of a dead one expires within 10 s
_INTERVAL_S = 0.05


async def is_confirmed_in_time(done: Callable[[], Awaitable[bool]]) -> bool:
    """Wait until the dispatcher that holds an endpoint's queue has confirmed a change, or its lease has expired.

    Return False after `CONFIRM_S`: the change is made, and not confirmed.
    """
    ends_s = time.monotonic() + CONFIRM_S
    while not await done():
        if time.monotonic() >= ends_s:
            return False
        await asyncio.sleep(_INTERVAL_S)
    return True
