"""What waits in Postgres, for a scrape and for people. A connection of its own: looking must not hold up working."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from okane.payment import Status
from okane.store import sql_files
from okane.store.session import Session

SQL = sql_files.load_statements("overview.sql")


class Overview:
    """Reads only."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=10)) -> None:
        self._session = Session(url, name="overview", timeout=timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.aclose()

    async def oldest_due(self) -> timedelta:
        """How long the longest waiting payment has been due: the truth behind the alerts."""
        return timedelta(seconds=(await self._session.fetch_repeatable(SQL["oldest_due"]))[0][0])

    async def count_dead(self) -> int:
        """Dead letters: payments given up that nobody has looked after yet."""
        return int((await self._session.fetch_repeatable(SQL["count_dead"]))[0][0])

    async def count_waiting(self) -> Mapping[Status, int]:
        """Payments waiting off the happy path by status; cheap."""
        return {Status(status): count for status, count in await self._session.fetch_repeatable(SQL["count_waiting"])}

    async def count_all(self) -> Mapping[Status, int]:
        """All payments by status. Reads the whole table: for people, not for a scrape."""
        return {Status(status): count for status, count in await self._session.fetch_repeatable(SQL["count_all"])}
