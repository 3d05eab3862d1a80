"""The log of events as one account reads it: by page, by id, and whether there is more.

Guarantee: reads of one account do not delay those of others.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from okane.store import sql_files
from okane.store.fair_sessions import FairSessions
from okane.store.session import Session
from okane.store.webhook_events import EventRow, WebhookEventStore

CONNECTIONS = 3  # of one process; one account uses two of them

SQL = sql_files.prepare_statements("account_events.sql", "last", "with_events")


class EventWatch:
    """Look for new events of many accounts at once, for requests that wait for them."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=5)) -> None:
        self._session = Session(url, name="event watch", timeout=timeout, index_only=True)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.aclose()

    async def last_position(self) -> int:
        """Return the end of the log. Raises StoreUnavailable."""
        return int((await self._session.fetch_repeatable(SQL["last"]))[0][0])

    async def with_events(self, account_ids: Collection[str], *, after: int) -> Sequence[str]:
        """Return those of these accounts that have events after a position. Raises StoreUnavailable."""
        parameters = {"account_ids": list(account_ids), "after": after}
        return [row[0] for row in await self._session.fetch_repeatable(SQL["with_events"], parameters)]


@dataclass(frozen=True, slots=True)
class AccountPage:
    """Events of one account. `after`: the position where the next page begins; `has_more`: it has come that far already."""

    rows: Sequence[EventRow]
    after: int
    has_more: bool


class AccountEvents:
    """Read events. Each method raises StoreUnavailable, or AccountBusy while too many reads of the account wait."""

    def __init__(self, url: str, *, watch: EventWatch, timeout: timedelta = timedelta(seconds=5)) -> None:
        self._stores = FairSessions([WebhookEventStore(url, timeout=timeout) for _ in range(CONNECTIONS)])
        self._watch = watch

    async def aclose(self) -> None:
        """Close the connections."""
        await self._stores.aclose()

    async def page(
        self,
        account_id: str,
        *,
        after: int,
        limit: int,
        types: Sequence[str] | None = None,
        payment_id: UUID | None = None,
    ) -> AccountPage:
        """Return events after a position, oldest first. A page may be short or empty although there are more."""
        async with self._stores.lend(account_id) as store:
            # Before the page: an event that is written meanwhile is no reason to go on.
            last = await self._watch.last_position()
            page = await store.page(account_id, after, limit + 1, types, payment_id)
        if len(page.rows) > limit:
            return AccountPage(page.rows[:limit], page.rows[limit - 1].event.position, has_more=True)
        return AccountPage(page.rows, page.reached, has_more=page.reached < last)

    async def get(self, account_id: str, event_id: str) -> EventRow | None:
        """Return an event by its id, None if the account has no such event, or no more."""
        async with self._stores.lend(account_id) as store:
            return await store.get(account_id, event_id)

    async def get_many(self, account_id: str, positions: Sequence[int]) -> Sequence[EventRow]:
        """Return the account's events at these positions."""
        async with self._stores.lend(account_id) as store:
            return [row for row in await store.get_whole(positions) if row.event.account_id == account_id]
