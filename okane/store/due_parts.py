"""The table partitions that the sweep looks into: a look through the partitioned table opens all of them, each second.

The one of now is always looked into, and each that had a payment with a `sweep_at` at the last look at all. So a payment of
an old part that becomes due is found `ALL_S` later than in one table, the first time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from okane.store.partition_bounds import Part
from okane.store.payment_layout import PaymentLayout, on_part
from okane.store.session import Fetching

ALL_S = 10.0  # between two looks at all parts
NEAR = timedelta(hours=1)  # of clocks that differ

_HAS_DUE = "SELECT '{part}' WHERE EXISTS (SELECT FROM payments_{part} WHERE sweep_at IS NOT NULL)"


class DueParts:
    """The parts of one sweep. They take turns in being the first: none waits behind the backlog of another for ever."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._layout = PaymentLayout(clock=clock)
        self._clock = clock
        self._all_at_s = float("-inf")
        self._with_due: frozenset[str] = frozenset()
        self._turn = 0

    @property
    def parts(self) -> Sequence[Part]:
        """The parts as last read, oldest first; none if payments are in one table."""
        return self._layout.parts

    async def statements(self, session: Fetching, text: str) -> Sequence[str]:
        """Return a statement on payments for each of the parts, or the statement as it is for one table. Raises
        StoreUnavailable."""
        await self._layout.look(session)
        parts = self._layout.parts
        if not parts:
            return [text]
        if self._clock() >= self._all_at_s:
            asked = " UNION ALL ".join(_HAS_DUE.format(part=part.suffix) for part in parts)
            self._with_due = frozenset(row[0] for row in await session.fetch(asked))
            self._all_at_s = self._clock() + ALL_S
        chosen = [part.suffix for part in parts if part.suffix in self._with_due or _is_near(part)]
        self._turn += 1
        first = self._turn % max(1, len(chosen))
        return [on_part(text, suffix) for suffix in (*chosen[first:], *chosen[:first])]

    async def look(self, session: Fetching) -> None:
        """Read the parts if that is due. Raises StoreUnavailable."""
        await self._layout.look(session)

    def statement_between(self, text: str, after: UUID, below: UUID) -> str:
        """Return a statement on the payments from `after` to below `below`: on one part, if it has all of them."""
        suffix = self._layout.part_of(after.int, below.int - 1)
        return text if suffix is None else on_part(text, suffix)

    def expire(self) -> None:
        """Read the parts anew: a table was gone."""
        self._layout.expire()
        self._all_at_s = float("-inf")


def _is_near(part: Part) -> bool:
    now = datetime.now(UTC)
    return (part.begin is None or part.begin <= now + NEAR) and part.end > now - NEAR
