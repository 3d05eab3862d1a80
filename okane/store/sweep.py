"""Find payments that have lost their wake-up, or whose wake-up is overdue: the store's part of the sweep.

Rows off the happy path carry `sweep_at`, and a small partial index finds them. Rows on it are covered by a cursor over the
time in their ids: an unsettled row that the cursor passes is marked with `sweep_at` in the same transaction, so no row behind
the cursor is unmarked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg

from okane.errors import StoreUnavailable
from okane.payment import Status
from okane.store import sql_files
from okane.store.due_parts import DueParts
from okane.store.partition_bounds import Part
from okane.store.prepared_statements import Row
from okane.store.session import Session
from okane.store.sql_parameters import first_id, milliseconds

SQL = sql_files.load_statements("sweep.sql", blocks_of="payments.sql")
WINDOW = 2000  # rows read in one statement: some ten milliseconds
LONGEST_QUEUE = timedelta(minutes=5)  # assumed of a lane at most: its oldest entry may be one that no worker can handle
AuthorizationPlace = tuple[str, str, UUID]  # in the index of rare statuses: account, status, payment
_LAST_OF_ACCOUNT = ("unknown", UUID(int=2**128 - 1))  # the last status by name; `authorized` is the first
ALL_LANES = ""  # the cursor of the first scan: no lane has an open payment before it


@dataclass(frozen=True, slots=True)
class WakeUp:
    """A payment to add to its lane's stream. `scheduled`: the first wake-up of a scheduled payment, one for a late look-up,
    or one for an authorization that ends, not a lost wake-up."""

    payment_id: UUID
    lane: str
    scheduled: bool = False

    @property
    def body(self) -> bytes:
        """The body of its entry."""
        return self.payment_id.bytes


@dataclass(frozen=True, slots=True)
class MarkResult:
    """The number of lost payments that were marked; `more` if the cursor has not caught up yet."""

    lost: int
    more: bool


@dataclass(frozen=True, slots=True)
class PlannedPage:
    """A page of the search for authorizations without a look: how many got one, and the place to go on from, None at the
    end."""

    planned: int
    place: AuthorizationPlace | None


class SweepStore:
    """The statements of the sweep."""

    def __init__(self, url: str, *, grace: timedelta, timeout: timedelta = timedelta(seconds=10)) -> None:
        self._session = Session(url, name="sweep", timeout=timeout, index_only=True)
        self._parts = DueParts()
        self._grace = grace

    @property
    def parts(self) -> Sequence[Part]:
        """The table partitions as the sweep has last read them, oldest first; none if payments are in one table."""
        return self._parts.parts

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.aclose()

    async def advance_horizon(self) -> None:
        """Move the horizon to the transactions that have ended: once a round, before `mark_lost`."""
        await self._session.fetch(SQL["sweep_horizon"])

    async def mark_lost(self, lane: str, oldest_entry: timedelta | None) -> MarkResult:
        """Mark payments of `lane` that are older than the grace and than its oldest live entry, and still unsettled.

        `oldest_entry` is that entry's age, None for an empty lane. Reads one window; does nothing while another
        process runs it.
        """
        await self._parts.look(self._session)
        async with self._session.transaction() as connection:
            if await _row(connection, "sweep_lock") != (True,):
                return MarkResult(lost=0, more=False)
            bound = await _row(connection, "sweep_bound", {"grace_s": self._grace.total_seconds()})
            assert bound is not None
            below_s, now_s = bound
            if oldest_entry is not None:
                below_s = min(below_s, now_s - (oldest_entry + self._grace).total_seconds())
            return await _advance_cursor(connection, lane, first_id(below_s), self._parts)

    async def take_due(
        self, lanes: Mapping[str, timedelta | None], *, limit: int, by_retry_at: bool = False
    ) -> Sequence[WakeUp]:
        """Take up to `limit` overdue payments of these lanes, each lane with the age of its oldest live entry (None: empty).

        A payment is due again after the grace and that age: about as long as the lane takes to reach an entry added now. So
        a lane that is behind does not fill with duplicates, and one that has lost its entries is refilled at once.
        With `by_retry_at` a retry is due at its own time, without the grace for a wake-up that will not come.
        """
        again_ms = [milliseconds(self._grace + min(age or timedelta(0), LONGEST_QUEUE)) for age in lanes.values()]
        early_ms = milliseconds(self._grace) if by_retry_at else 0
        parameters = {"lanes": list(lanes), "again_ms": again_ms, "limit": limit, "early_ms": early_ms}
        taken: list[WakeUp] = []
        try:
            for statement in await self._parts.statements(self._session, SQL["sweep_due"]):
                parameters["limit"] = limit - len(taken)
                taken += [WakeUp(*row) for row in await self._session.fetch(statement, parameters)]
                if len(taken) >= limit:
                    break
        except StoreUnavailable:
            self._parts.expire()
            if not taken:
                raise
        return taken

    async def plan_authorizations(self, after: AuthorizationPlace | None) -> PlannedPage:
        """Give the authorizations of one page without a time of their next look such a time. `after` None: the first page."""
        account_id, status, payment_id = after or ("", "", UUID(int=0))
        wanted = {"account_id": account_id, "status": status, "id": payment_id, "limit": WINDOW}
        [(planned, read, *last)] = await self._session.fetch(SQL["sweep_authorizations"], wanted)
        if read < WINDOW:
            return PlannedPage(planned, None)
        account_id, status, payment_id = last
        # Behind its authorizations there is nothing to find in an account.
        rest = (status, payment_id) if status == Status.AUTHORIZED else _LAST_OF_ACCOUNT
        return PlannedPage(planned, (account_id, *rest))

    async def needs_sequencing(self) -> bool:
        """Return True if there may be changes without a position in the log of events: if any account has an endpoint."""
        return bool((await self._session.fetch(SQL["sweep_webhooks"]))[0][0])


async def _advance_cursor(
    connection: psycopg.AsyncConnection[Row], lane: str, below: UUID, parts: DueParts
) -> MarkResult:
    """Move one lane's cursor towards `below` and mark the open rows that it passes; at most one window."""
    found = await _row(connection, "sweep_cursor", {"lane": lane})
    if found is None:
        return await _start_cursor(connection, lane, below, parts)
    if found[0] >= below:
        return MarkResult(lost=0, more=False)
    statement = parts.statement_between(SQL["sweep_lost"], found[0], below)
    wanted = {"lane": lane, "after": found[0], "below": below, "limit": WINDOW}
    window = await (await connection.execute(statement.encode(), wanted, prepare=True)).fetchone()
    assert window is not None
    lost, seen, last = window
    more = seen == WINDOW
    await _write_cursor(connection, lane, last if more else below)
    return MarkResult(lost=lost, more=more)


async def _start_cursor(
    connection: psycopg.AsyncConnection[Row], lane: str, below: UUID, parts: DueParts
) -> MarkResult:
    """Start a new cursor at the first open payment of any lane, which one scan finds for all lanes."""
    found = await _row(connection, "sweep_cursor", {"lane": ALL_LANES})
    # Before the cursor of all lanes nothing was open: newer rows belong to the lane's own cursor.
    if found is not None and found[0] >= below:
        await _write_cursor(connection, lane, found[0])
        return MarkResult(lost=0, more=False)
    found = found or await _row(connection, "sweep_oldest")
    if found is None or found[0] >= below:
        return MarkResult(lost=0, more=False)
    window = await _row(connection, "sweep_open", {"after": found[0], "below": below, "limit": WINDOW})
    assert window is not None
    first_open, seen, last = window
    more = first_open is None and seen == WINDOW
    start = first_open or (last if more else below)
    await _write_cursor(connection, ALL_LANES, start)
    if more:
        return MarkResult(lost=0, more=True)
    await _write_cursor(connection, lane, start)
    return await _advance_cursor(connection, lane, below, parts)


async def _write_cursor(connection: psycopg.AsyncConnection[Row], lane: str, passed: UUID) -> None:
    await connection.execute(SQL["sweep_pass"], {"lane": lane, "passed": passed}, prepare=True)


async def _row(
    connection: psycopg.AsyncConnection[Row], name: str, parameters: Mapping[str, Any] | None = None
) -> Row | None:
    return await (await connection.execute(SQL[name], parameters, prepare=True)).fetchone()
