"""One Postgres connection that comes back after it was lost.

A session runs one thing at a time on a long-lived autocommit connection. Whatever ends the connection (a restart, a
failover to a read-only server, silence past the deadline) becomes `StoreUnavailable` for the caller and a fresh connection
for the next one. Nothing is retried here: only the caller knows what may be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import structlog

from okane.errors import StoreBusy, StoreUnavailable
from okane.store.connect import cut, first_line, open_connection
from okane.store.pooler import PoolerRefused
from okane.store.prepared_statements import PreparedStatement, PreparedStatements, Row
from okane.time_slice import TimeSlice

log = structlog.get_logger("okane.store")

STALE_WITHIN_S = 1.0  # a connection that died while idle says so at once; a server that is silent is not asked twice

# Statements on batches go by index whatever the planner thinks of a table that was empty when it first looked: prepared
# then, a sequential scan would stay for the life of the connection (measured 8 to 11 times slower). With one plan left,
# planning anew for every batch would find the same one: for a batch of one it is half of the server's work.
INDEX_ONLY = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "plan_cache_mode": "force_generic_plan",
}

# A list goes by the index that has its order already: to sort would be to read all of it for one page.
IN_ORDER = {**INDEX_ONLY, "enable_sort": "off", "enable_incremental_sort": "off"}

# What a server says that is going away, coming up, or no longer the primary; a new connection may do better.
_LOST = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.CannotConnectNow,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.InvalidSqlStatementName,  # a pooler has changed to transaction mode: a new session finds out
    psycopg.errors.DuplicatePreparedStatement,
)
# The database is not as `okane migrate` leaves it, or not ours to use: nothing of this is in the request.
_UNFIT = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.InsufficientPrivilege,
)
_BUSY = (psycopg.errors.QueryCanceled, psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable)

ROWS_AT_ONCE = 20
IDLE_TIMEOUT_MS = 2000  # a process that is stopped or cut off between two statements must not keep its locks
LOCK_TIMEOUT_MS = 500  # somebody's open psql must not hold up more than the row it holds


class Session:
    """One connection with a name that shows in `pg_stat_activity`."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        timeout: timedelta = timedelta(seconds=10),
        index_only: bool = False,
        in_order: bool = False,
    ) -> None:
        self._url = url
        self._name = name
        self._timeout_s = timeout.total_seconds()
        self._settings = {
            "statement_timeout": str(int(self._timeout_s * 1000)),
            "lock_timeout": str(LOCK_TIMEOUT_MS),
            "idle_in_transaction_session_timeout": str(IDLE_TIMEOUT_MS),
            **(IN_ORDER if in_order else INDEX_ONLY if index_only else {}),
        }
        self._lock = asyncio.Lock()
        self._connection: psycopg.AsyncConnection[Row] | None = None
        self._prepared: PreparedStatements | None = None
        self._down = False
        self._unfit = False

    async def fetch(
        self, statement: LiteralString | PreparedStatement, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Row]:
        """Run one statement in a transaction of its own and return its rows."""
        async with self._held() as connection:
            if isinstance(statement, PreparedStatement):
                assert self._prepared is not None
                return await self._prepared.fetch(statement, parameters or {})
            cursor = await connection.execute(statement, parameters, prepare=True)
            return await _all(cursor) if cursor.description else []

    async def fetch_repeatable(
        self, statement: LiteralString | PreparedStatement, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Row]:
        """`fetch`, for a statement that may run twice: a connection that turns out to be dead costs the caller nothing."""
        started_s = time.monotonic()
        try:
            return await self.fetch(statement, parameters)
        except StoreUnavailable as error:
            if isinstance(error, StoreBusy) or time.monotonic() - started_s > STALE_WITHIN_S:
                raise
        return await self.fetch(statement, parameters)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Row]]:
        """Several statements in one transaction, committed at the end of the block."""
        async with self._held() as connection, connection.transaction():
            yield connection

    @contextlib.asynccontextmanager
    async def _held(self) -> AsyncIterator[psycopg.AsyncConnection[Row]]:
        async with self._lock:
            watchdog: asyncio.TimerHandle | None = None
            try:
                connection = await self._connected()
                # The server's own statement_timeout comes first where the server still lives; a silent one is cut off at
                # the socket, since cancelling the query politely would wait for it, too.
                watchdog = asyncio.get_running_loop().call_later(self._timeout_s + 1, cut, connection)
                yield connection
                self._unfit = False
            except _UNFIT as error:
                if not self._unfit:
                    log.warning("database_unfit", session=self._name, reason=first_line(error))
                self._unfit = True
                await self._drop()
                raise StoreUnavailable(first_line(error)) from error
            except _LOST as error:
                if isinstance(error, _BUSY) and not self._closed():
                    raise StoreBusy(first_line(error)) from error
                await self._drop()
                raise StoreUnavailable(first_line(error)) from error
            finally:
                if watchdog is not None:
                    watchdog.cancel()

    async def _connected(self) -> psycopg.AsyncConnection[Row]:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        try:
            self._connection = await open_connection(self._url, name=self._name, settings=self._settings)
        except (psycopg.Error, PoolerRefused) as error:
            if not self._down:
                log.warning("postgres_lost", session=self._name, reason=first_line(error))
            self._down = True
            raise
        if self._down:
            log.warning("postgres_back", session=self._name)
        self._down = False
        self._prepared = PreparedStatements(self._connection)
        return self._connection

    def _closed(self) -> bool:
        return self._connection is None or self._connection.closed

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def aclose(self) -> None:
        """Close the connection. What is in flight fails with StoreUnavailable."""
        # Whoever waits on the socket has to hear of its end before its number is another's.
        if self._lock.locked() and self._connection is not None:
            cut(self._connection)
        async with self._lock:
            await self._drop()


async def _all(cursor: psycopg.AsyncCursor[Row]) -> Sequence[Row]:
    """Every row. Many with much text take long to load: other tasks have their turn in between."""
    time_slice, found = TimeSlice(), list[Row]()
    while some := await cursor.fetchmany(ROWS_AT_ONCE):
        found += some
        await time_slice.end_if_spent()
    return found
