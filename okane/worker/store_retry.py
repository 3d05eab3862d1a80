"""Repetition of store calls until Postgres answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from okane.errors import StoreUnavailable

PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # between tries while Postgres is away

T = TypeVar("T")
P = ParamSpec("P")


class StoreRetry:
    """A caller of store methods that outlasts an outage. `roll` in [0, 1) is the jitter that spreads many callers."""

    def __init__(self, roll: Callable[[], float]) -> None:
        self._roll = roll

    async def __call__(self, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Repeat `call` with growing pauses until Postgres answers or the task is cancelled. Only for calls that may run
        twice.

        The message stays in hand meanwhile, so that no more is read than fits. Returning it to Redis would turn the whole
        backlog over for as long as Postgres is away. A claim whose reply was lost is refused here, too, until its lease runs
        out.
        """
        tries = 0
        while True:
            try:
                return await call(*args, **kwargs)
            except StoreUnavailable:
                pause_s = PAUSES_S[min(tries, len(PAUSES_S) - 1)]
                tries += 1
                await asyncio.sleep(pause_s * (0.5 + self._roll()))
