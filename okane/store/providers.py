"""The switch of each provider, and the shared level of its circuit breaker: rows that claims read.

A provider has a row only after an operator or a breaker wrote one. Without a row it is on, and its breaker closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from okane.store import sql_files
from okane.store.session import Session
from okane.store.sql_parameters import milliseconds

SQL = sql_files.load_statements("providers.sql")
WAKE_BATCH = 1000  # payments in one statement

Mode = Literal["on", "drain", "off"]


@dataclass(frozen=True, slots=True)
class ProviderState:
    """One row, in the order of the statement `all`. `open_s`: for how many seconds the breaker is still open for all workers.

    `drain`: no new charge, look-ups only. `off`: no call.
    """

    name: str
    mode: Mode = "on"
    reason: str | None = None
    changed_by: str | None = None
    changed_at: datetime | None = None
    suspected_by: str | None = None
    suspected_at: datetime | None = None
    open_s: float = 0.0
    open_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedBreakerRules:
    """When a breaker that opened in one worker opens for all, and for how long."""

    within: timedelta = timedelta(seconds=10)  # a second worker's breaker has to open
    first: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(seconds=60)
    forget: timedelta = timedelta(minutes=5)  # after an opening the next one is a first one again


class ProviderStore:
    """The statements about providers. Time is the database's."""

    def __init__(
        self, url: str, *, timeout: timedelta = timedelta(seconds=10), rules: SharedBreakerRules | None = None
    ) -> None:
        self._session = Session(url, name="providers", timeout=timeout)
        self._rules = rules or SharedBreakerRules()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.aclose()

    async def read_all(self) -> Sequence[ProviderState]:
        """Return the rows by name. Raises StoreUnavailable."""
        return await read_providers(self._session)

    async def set_mode(
        self, name: str, mode: Mode, *, reason: str, actor: str, seen: ProviderState | None = None
    ) -> bool:
        """Switch a provider, from the next claim of every worker on. `on` also closes the shared level of its breaker.

        With `seen` it is left as it is, and False returned, if it was switched after that state was read.
        """
        async with self._session.transaction() as connection:
            parameters: dict[str, Any] = {"name": name, "mode": mode, "reason": reason, "actor": actor}
            parameters |= {"if_seen": seen is not None, "seen": None if seen is None else seen.changed_at}
            cursor = await connection.execute(SQL["set_mode"], parameters)
            if not await cursor.fetchall():
                return False
            if mode == "on":
                await connection.execute(SQL["end_opening"], {"name": name})
        return True

    async def wake_waiting(self) -> int:
        """Make payments that wait for a provider due at once; return their number. A death in between leaves the rest to
        their own times."""
        woken, size = 0, WAKE_BATCH
        while size == WAKE_BATCH:
            size = len(await self._session.fetch(SQL["wake_waiting"], {"limit": WAKE_BATCH}))
            woken += size
        return woken

    async def suspect(self, name: str, *, worker: str, alone: bool) -> bool:
        """Write that the provider's breaker has opened in this worker; return True if that opened the shared level.

        `alone`: no other worker can confirm it. Nothing is written while the shared level is open.
        """
        rules = self._rules
        parameters = {
            "name": name,
            "worker": worker,
            "alone": alone,
            "within_ms": milliseconds(rules.within),
            "first_ms": milliseconds(rules.first),
            "longest_ms": milliseconds(rules.longest),
            "forget_ms": milliseconds(rules.forget),
        }
        found = await self._session.fetch(SQL["suspect"], parameters)
        return bool(found and found[0][0])

    async def close(self, name: str) -> bool:
        """Close the shared level, after a call that succeeded. Return False if there was nothing to close."""
        return bool(await self._session.fetch(SQL["end_opening"], {"name": name}))


async def read_providers(session: Session) -> Sequence[ProviderState]:
    """Return the rows by name. Raises StoreUnavailable."""
    return [ProviderState(*row) for row in await session.fetch_repeatable(SQL["all"])]
