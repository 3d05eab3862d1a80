"""Check that payments can be accepted now, for the frequent probes of load balancers."""

from __future__ import annotations

import asyncio
import math
import time

from okane.errors import StoreUnavailable
from okane.store import schema, sql_files
from okane.store.session import Session

SQL = sql_files.load_statements("readiness.sql")
VALID_S = 1.0


class Readiness:
    """The result of the last check, valid for a second. One check at a time: probes must not pile up on a slow database."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._checking = asyncio.Lock()
        self._checked_s = -math.inf
        self._obstacle: str | None = None

    async def check(self) -> None:
        """Raise StoreUnavailable unless Postgres is there, has the tables of this version, and takes writes to them."""
        async with self._checking:
            if time.monotonic() - self._checked_s > VALID_S:
                self._obstacle = await self._check()
                self._checked_s = time.monotonic()
        if self._obstacle is not None:
            raise StoreUnavailable(self._obstacle)

    async def _check(self) -> str | None:
        try:
            [(read_only, version, granted)] = await self._session.fetch_repeatable(SQL["writable"])
        except StoreUnavailable as error:
            return str(error)
        if read_only:
            return "the session is read-only: a standby, or default_transaction_read_only"
        if version is None or version < schema.VERSION:
            return f"the schema has version {version or 'none'}, not {schema.VERSION}: run `okane migrate`"
        return None if granted else "this user may not write to the tables"
