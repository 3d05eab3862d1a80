"""Patience: repeats what is asked of Postgres until it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from okane.errors import StoreUnavailable

PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # between tries while Postgres is away

T = TypeVar("T")
P = ParamSpec("P")


class StoreRetry:
    """`roll` in [0, 1) is the dice that keeps many callers from asking at the same moment."""

    def __init__(self, roll: Callable[[], float]) -> None:
        self._roll = roll

    async def __call__(self, ask: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Ask until Postgres answers, or the task is cancelled. For what may be asked twice.

        Holding the message is the brake: no more is read than fits in hand. Putting it back would turn the whole backlog
        over again and again for as long as Postgres is away. A claim that was granted without our hearing of it is refused
        to us, too, until its lease runs out.
        """
        tries = 0
        while True:
            try:
                return await ask(*args, **kwargs)
            except StoreUnavailable:
                pause_s = PAUSES_S[min(tries, len(PAUSES_S) - 1)]
                tries += 1
                await asyncio.sleep(pause_s * (0.5 + self._roll()))
