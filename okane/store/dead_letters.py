"""The dead letters in Postgres: payments that were given up, until an operator retries, decides or dismisses them.

The dead-letter stream in Redis is a copy for its readers and may be lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from okane.payment import Payment, Status
from okane.store import columns, sql_files
from okane.store.fair_sessions import FairSessions
from okane.store.prepared_statements import Row
from okane.store.session import Session
from okane.store.sql_parameters import milliseconds

SQL = sql_files.load_statements("dead_letters.sql")
_NEWEST_FIRST = SQL["page"].replace("{order}", "DESC").replace("{beyond}", "<").replace("{within}", ">=")
_OLDEST_FIRST = SQL["page"].replace("{order}", "ASC").replace("{beyond}", ">").replace("{within}", "<")
# Of the letters of a bulk action their metadata, which may be megabytes, is left out.
_WITHOUT_METADATA = _OLDEST_FIRST.replace(columns.METADATA, "'{}'")
OLDEST = SQL["oldest"].replace(columns.METADATA, "'{}'")
_CHOSEN = SQL["chosen"].replace(columns.METADATA, "'{}'")

CONNECTIONS = 2  # of one process; one account uses one of them
WINDOW = 2_000  # dead letters that one page may look at
TALLIED = 10_000  # read for a count: some ten milliseconds

Place = tuple[datetime, UUID]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """A filter of dead letters; the default is all. `from` is inclusive, `before` exclusive.

    A page begins with the newest, or with `ascending` with the oldest.
    """

    ascending: bool = False
    account_id: str | None = None
    statuses: frozenset[Status] = frozenset()
    ids: Sequence[UUID] | None = None
    currency: str | None = None
    lane: str | None = None
    dead_from: datetime | None = None
    dead_before: datetime | None = None


EVERY = DeadLetterFilter()
_FIRST, _LAST = UUID(int=0), UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class DeadPayment:
    """A payment that was given up, and the time of that."""

    payment: Payment
    dead_at: datetime

    @property
    def place(self) -> Place:
        """The position in the list."""
        return self.dead_at, self.payment.id


@dataclass(frozen=True, slots=True)
class DeadPage:
    """A page of dead letters. `after` is the position where the next page begins, None after the last page."""

    letters: Sequence[DeadPayment]
    after: Place | None


@dataclass(frozen=True, slots=True)
class DeadTally:
    """A count of dead letters, and since when the oldest is dead. `is_cut`: there are more than were counted."""

    count: int
    oldest: datetime | None
    is_cut: bool


class DeadLetterStore:
    """Read and dismiss dead letters. (`PaymentStore.retry` dismisses the one that it retries.)"""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=10)) -> None:
        sessions = [Session(url, name="dead letters", timeout=timeout, in_order=True) for _ in range(CONNECTIONS)]
        self._sessions = FairSessions(sessions)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sessions.aclose()

    async def page(self, limit: int, *, before: Place | None = None) -> Sequence[DeadPayment]:
        """Return dead letters of all accounts, newest first, from the position `before` on."""
        return (await self.search(EVERY, limit=limit, after=before)).letters

    async def search(self, wanted: DeadLetterFilter, *, limit: int, after: Place | None = None) -> DeadPage:
        """Return up to `limit` dead letters from the position `after` on, in the order of the filter."""
        return await self._page(_OLDEST_FIRST if wanted.ascending else _NEWEST_FIRST, wanted, limit, after)

    async def tally(self, wanted: DeadLetterFilter) -> DeadTally:
        """Return how many match, among the `TALLIED` oldest of all accounts."""
        parameters = _parameters(wanted) | {"window": TALLIED + 1}
        [(count, oldest, is_cut)] = await self._rows(SQL["tally"], parameters, wanted.account_id)
        return DeadTally(min(count, TALLIED), oldest, is_cut)

    async def look(self, wanted: DeadLetterFilter, *, limit: int, after: Place | None = None) -> DeadPage:
        """Return what `search` does, the oldest first and without metadata: one of the windows of a bulk action."""
        return await self._page(_WITHOUT_METADATA, replace(wanted, ascending=True), limit, after)

    async def _page(
        self, statement: LiteralString, wanted: DeadLetterFilter, limit: int, after: Place | None
    ) -> DeadPage:
        earliest, latest = wanted.dead_from or "-infinity", wanted.dead_before or "infinity"
        if wanted.ascending:
            start: tuple[object, UUID] = (earliest, _FIRST)
        else:
            start = (latest, _LAST if wanted.dead_before is None else _FIRST)
        dead_at, payment_id = after or start
        place = {
            "place_dead_at": dead_at,
            "place_id": payment_id,
            "end_dead_at": latest if wanted.ascending else earliest,
        }
        parameters = _parameters(wanted) | place | {"limit": limit + 1, "window": max(WINDOW, limit + 1)}
        found = await self._rows(statement, parameters, wanted.account_id)
        letters = await _read([row for row in found if row[0] is not None])
        if len(letters) > limit:
            return DeadPage(letters[:limit], letters[limit - 1].place)
        _, reached_at, reached_id = found[0][columns.WIDTH :]
        return DeadPage(letters, None if reached_id is None else (reached_at, reached_id))

    async def oldest(self, limit: int | None, wanted: DeadLetterFilter = EVERY) -> Sequence[DeadPayment]:
        """Return the oldest first, all of them without a limit, and without their metadata.

        Those with `ids` are found by these; others are looked for from the oldest one on.
        """
        if wanted.ids is not None:
            return sorted(await self._chosen(wanted), key=_age)[:limit]
        parameters = _parameters(wanted) | {"limit": limit}
        return await _read(await self._rows(OLDEST, parameters, wanted.account_id))

    async def _chosen(self, wanted: DeadLetterFilter) -> Sequence[DeadPayment]:
        return await _read(await self._rows(_CHOSEN, _parameters(wanted), wanted.account_id))

    async def find_many(self, ids: Sequence[UUID]) -> Sequence[DeadPayment]:
        """Return those of these payments that are dead letters, in no order."""
        return await _read(await self._rows(SQL["some"], {"ids": list(ids)}))

    async def dismiss(
        self, *, ids: Sequence[UUID] | None = None, older_than: timedelta | None = None
    ) -> Sequence[UUID]:
        """Dismiss these (None: all) that are older than `older_than` (None: of any age); return their ids."""
        older_than_ms = None if older_than is None else milliseconds(older_than)
        wanted = {"ids": None if ids is None else list(ids), "versions": None, "older_than_ms": older_than_ms}
        return [row[0] for row in await self._rows(SQL["dismiss"], wanted)]

    async def dismiss_unchanged(self, letters: Sequence[DeadPayment]) -> Sequence[UUID]:
        """Dismiss those of these that still are in the version that was read; return their ids."""
        ids = [letter.payment.id for letter in letters]
        versions = [letter.payment.version for letter in letters]
        wanted = {"ids": ids, "versions": versions, "older_than_ms": None}
        return [row[0] for row in await self._rows(SQL["dismiss"], wanted)]

    async def _rows(
        self, statement: LiteralString, parameters: Mapping[str, Any], account_id: str | None = None
    ) -> Sequence[Row]:
        """Fetch for one account, or for all (an operator). Raises AccountBusy."""
        async with self._sessions.lend(account_id or "") as session:
            return await session.fetch_repeatable(statement, parameters)


def _age(letter: DeadPayment) -> tuple[datetime, int]:
    return letter.dead_at, letter.payment.id.int


def _parameters(wanted: DeadLetterFilter) -> dict[str, Any]:
    return {
        "account_id": wanted.account_id,
        "statuses": sorted(wanted.statuses) or None,
        "ids": None if wanted.ids is None else list(wanted.ids),
        "currency": wanted.currency,
        "lane": wanted.lane,
        "dead_from": wanted.dead_from,
        "dead_before": wanted.dead_before,
    }


async def _read(found: Sequence[Row]) -> Sequence[DeadPayment]:
    payments = await columns.read_payments(found)
    return [DeadPayment(payment, row[columns.WIDTH]) for row, payment in zip(found, payments, strict=True)]
