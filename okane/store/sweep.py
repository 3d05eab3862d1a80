"""The store's side of the sweep: which payments have lost their wake-up, or are overdue for it.

Rows off the happy path carry `sweep_at`, and a small partial index finds them. Rows on it are covered by a cursor over the
time in their ids: what the cursor passes unsettled is marked with `sweep_at` in the same transaction, so nothing is ever
behind the cursor and unmarked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg

from okane.payment import Status
from okane.store import statements
from okane.store.session import Row, Session

SQL = statements.load("sweep.sql")
WINDOW = 1000  # rows looked at in one statement: a few milliseconds


@dataclass(frozen=True, slots=True)
class WakeUp:
    """A payment to be put on its lane's stream again."""

    payment_id: UUID
    lane: str


@dataclass(frozen=True, slots=True)
class Marked:
    """How many lost payments were marked; `more` if the cursor has not caught up yet."""

    lost: int
    more: bool


class SweepStore:
    """What the sweep and the views of an operator ask of Postgres."""

    def __init__(self, url: str, *, grace: timedelta, timeout: timedelta = timedelta(seconds=10)) -> None:
        self._session = Session(url, name="sweep", timeout=timeout)
        self._grace = grace

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.aclose()

    async def mark_lost(self, oldest_entries: Mapping[str, timedelta | None]) -> Marked:
        """Mark what is older than the grace and than its lane's oldest live stream entry, and still unsettled.

        `oldest_entries`: each lane's age of the oldest entry, None for an empty stream. Looks at one window a lane; does
        nothing while another process is at it.
        """
        async with self._session.transaction() as connection:
            if not await _value(connection, "sweep_lock"):
                return Marked(lost=0, more=False)
            bound = await _row(connection, "sweep_bound", {"grace_s": self._grace.total_seconds()})
            assert bound is not None
            below_s, now_s = bound
            lost, more = 0, False
            for lane, age in oldest_entries.items():
                lane_below_s = below_s
                if age is not None:
                    lane_below_s = min(below_s, now_s - (age + self._grace).total_seconds())
                marked = await _pass(connection, lane, _first_id(lane_below_s))
                lost, more = lost + marked.lost, more or marked.more
            return Marked(lost=lost, more=more)

    async def take_due(self, *, limit: int) -> Sequence[WakeUp]:
        """Up to `limit` overdue payments, each pushed back so that the next look comes later than the last."""
        grace_ms = round(self._grace.total_seconds() * 1000)
        found = await self._session.rows(SQL["sweep_due"], {"limit": limit, "grace_ms": grace_ms})
        return [WakeUp(*row) for row in found]

    async def oldest_due(self) -> timedelta:
        """How long the longest waiting payment has been due: the truth behind the alerts."""
        return timedelta(seconds=(await self._session.rows(SQL["oldest_due"]))[0][0])

    async def counts(self) -> Mapping[Status, int]:
        """All payments by status. Reads the whole table: for people, not for a scrape."""
        return {Status(status): count for status, count in await self._session.rows(SQL["counts"])}

    async def off_path(self) -> Mapping[Status, int]:
        """Payments waiting off the happy path by status; cheap."""
        return {Status(status): count for status, count in await self._session.rows(SQL["off_path"])}


async def _pass(connection: psycopg.AsyncConnection[Row], lane: str, below: UUID) -> Marked:
    """Move one lane's cursor towards `below`, marking what it passes; at most one window."""
    found = await _row(connection, "sweep_cursor", {"lane": lane}) or await _row(connection, "sweep_oldest", {})
    if found is None or found[0] >= below:
        return Marked(lost=0, more=False)
    window = await _row(connection, "sweep_lost", {"lane": lane, "after": found[0], "below": below, "limit": WINDOW})
    assert window is not None
    lost, seen, last = window
    more = seen == WINDOW
    passed = {"lane": lane, "passed": last if more else below}
    await connection.execute(SQL["sweep_pass"], passed, prepare=True)
    return Marked(lost=lost, more=more)


async def _row(connection: psycopg.AsyncConnection[Row], name: str, parameters: Mapping[str, Any]) -> Row | None:
    return await (await connection.execute(SQL[name], parameters, prepare=True)).fetchone()


async def _value(connection: psycopg.AsyncConnection[Row], name: str) -> Any:
    row = await _row(connection, name, {})
    return row[0] if row else None


def _first_id(seconds: float) -> UUID:
    """The smallest uuid v7 of that moment (RFC 9562: 48 bits of milliseconds come first)."""
    return UUID(int=max(0, int(seconds * 1000)) << 80)
