"""The optional index on the metadata of payments: built and dropped on request, and used by searches while it is there.

It is no part of the schema: every new payment pays for it, and only the console's searches gain.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import psycopg

from okane.errors import SetupError, StoreBusy
from okane.payment import Payment
from okane.store import columns
from okane.store.connect import open_blocking_connection, open_connection
from okane.store.lists import PaymentFilter, metadata_statement
from okane.store.migration_lock import take_lock
from okane.store.prepared_statements import Row
from okane.store.session import Session

MATCHES = 2_000  # of all accounts: a pair that more payments have is found sooner by reading the newest ones
CHECK_S = 60.0  # between two looks whether the index is there

_VALID = "SELECT i.indisvalid FROM pg_index i WHERE i.indexrelid = to_regclass('payments_metadata')"
_CREATE = "CREATE INDEX CONCURRENTLY payments_metadata ON payments USING gin (metadata jsonb_path_ops)"
_DROP = "DROP INDEX CONCURRENTLY IF EXISTS payments_metadata"


@dataclass(frozen=True, slots=True)
class MetadataPage:
    """A page of payments, newest first. `after` is the id behind which the next page begins, None after the last one."""

    payments: Sequence[Payment]
    after: UUID | None


class MetadataSearch:
    """Finds payments by the index."""

    def __init__(self, url: str, *, timeout: timedelta, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = Session(url, name="metadata search", timeout=timeout, bitmap_only=True)
        self._clock = clock
        self._is_there = False
        self._checked_until_s = 0.0

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.aclose()

    async def page(
        self, wanted: PaymentFilter, *, account_id: str, limit: int, after: UUID | None
    ) -> MetadataPage | None:
        """Return a page of the account's payments that match, or None where the index does not help: there is none, or too
        many payments have this pair. Raises StoreUnavailable."""
        if not wanted.metadata or not await self._has_index():
            return None
        statement, parameters = metadata_statement(wanted, account_id, before=after)
        try:
            found = await self._session.fetch_repeatable(
                statement, parameters | {"limit": limit + 1, "window": MATCHES + 1}
            )
        except StoreBusy:
            return None
        if found[0][columns.WIDTH]:
            return None
        payments = await columns.read_payments([row for row in found if row[0] is not None])
        more = len(payments) > limit
        return MetadataPage(payments[:limit], payments[limit - 1].id if more else None)

    async def _has_index(self) -> bool:
        if self._clock() >= self._checked_until_s:
            found = await self._session.fetch_repeatable(_VALID)
            self._is_there = bool(found and found[0][0])
            self._checked_until_s = self._clock() + CHECK_S
        return self._is_there


async def set_metadata_index(
    url: str, *, wanted: bool, wait: timedelta, report: Callable[[str], None] = lambda _line: None
) -> bool:
    """Build the index, or drop it. Return False if there was nothing to do. Payments are accepted and settled meanwhile.

    Safe to repeat: an index whose building was interrupted is dropped, and built anew. Raises SetupError.
    """
    try:
        await (await open_connection(url, name="migrate")).close()  # raises for a pooler that would strand the lock
        # It waits for every transaction that is older, and blocks none that is younger.
        settings = {"lock_timeout": "0", "statement_timeout": "0"}
        connection = await asyncio.to_thread(open_blocking_connection, url, name="migrate", settings=settings)
        try:
            await take_lock(connection, wait=wait, report=report)
            return await asyncio.to_thread(_set, connection, wanted=wanted)
        finally:
            connection.close()
    except psycopg.Error as error:
        raise SetupError(
            f"the index on metadata cannot be {'built' if wanted else 'dropped'}: {str(error).strip()}"
        ) from error


def _set(connection: psycopg.Connection[Row], *, wanted: bool) -> bool:
    row = connection.execute(_VALID).fetchone()
    if row is not None and (not wanted or not row[0]):
        connection.execute(_DROP)
        row = None
        if not wanted:
            return True
    if row is None and wanted:
        connection.execute(_CREATE)
        return True
    return False
