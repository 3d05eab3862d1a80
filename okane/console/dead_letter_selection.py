"""The dead letters of a dry run: the oldest that match, looked for within a second, and how far the look came."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from okane.console.search_turns import SearchTurns
from okane.console.search_windows import read_windows
from okane.store import DeadLetterFilter, DeadLetterStore, DeadPayment
from okane.store.dead_letters import WINDOW, Place


@dataclass(frozen=True, slots=True)
class Selection:
    """The letters, oldest first.

    `after`: the place behind which others may match, None at the end of the list. `stopped`: the look ended before it had as
    many as it wanted; `looked_through` is how many letters of all accounts it has seen.
    """

    letters: Sequence[DeadPayment]
    after: Place | None = None
    stopped: bool = False
    looked_through: int = 0


class DeadLetterSelector:
    """Selects dead letters for actions on many."""

    def __init__(
        self, dead: DeadLetterStore, turns: SearchTurns, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._dead = dead
        self._turns = turns
        self._clock = clock

    async def select(
        self, wanted: DeadLetterFilter, limit: int, *, session_id: str, after: Place | None = None
    ) -> Selection | None:
        """Return up to `limit` letters from a place on, or None while too many searches run. Raises StoreUnavailable.

        Those with ids are found by these, without a turn.
        """
        if wanted.ids is not None:
            return Selection(await self._dead.oldest(limit, wanted))
        with self._turns.take(session_id) as is_mine:
            return await self._look(wanted, limit, after) if is_mine else None

    async def _look(self, wanted: DeadLetterFilter, limit: int, after: Place | None) -> Selection:
        async def read(most: int, place: Place | None) -> tuple[Sequence[DeadPayment], Place | None]:
            page = await self._dead.look(wanted, limit=most, after=place)
            return page.letters, page.after

        found = await read_windows(read, limit=limit, after=after, clock=self._clock)
        if found.looked_through is None:
            return Selection(found.rows, found.after)
        return Selection(found.rows, found.after, stopped=True, looked_through=found.looked_through * WINDOW)
