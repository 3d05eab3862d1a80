"""A search that no index answers, read window by window for a second at most."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from okane.console.search_turns import BUDGET_S
from okane.errors import StoreBusy

Row = TypeVar("Row")
Place = TypeVar("Place")


@dataclass(frozen=True, slots=True)
class Windows(Generic[Row, Place]):
    """The rows of a search, and where the next windows begin (None at the end).

    `looked_through`: how many windows it has read where it was stopped before it had found enough, else None.
    """

    rows: Sequence[Row]
    after: Place | None
    looked_through: int | None = None


async def read_windows(
    read: Callable[[int, Place | None], Awaitable[tuple[Sequence[Row], Place | None]]],
    *,
    limit: int,
    after: Place | None,
    clock: Callable[[], float],
) -> Windows[Row, Place]:
    """Read windows until there are `limit` rows, the second is over, or there is nothing more.

    `read` returns the rows of the window behind a place, at most so many, and the place behind it. A window after the first
    one that raises StoreBusy ends the search.
    """
    began_s = clock()
    found: list[Row] = []
    windows = 0
    while True:
        window_began_s = clock()
        try:
            rows, after = await read(limit - len(found), after)
        except StoreBusy:
            if not windows:
                raise
            break  # this window took too long: the ones before it count
        found += rows
        if after is None or len(found) >= limit:
            return Windows(found, after)
        windows += 1
        now_s = clock()
        if now_s - began_s + (now_s - window_began_s) > BUDGET_S:  # the next one takes about as long as this one
            break
    return Windows(found, after, looked_through=windows)
