"""A Postgres connection that is opened again after it was lost.

A session runs one statement or transaction at a time on a long-lived autocommit connection. If the connection ends (a
restart, a failover to a read-only server, no answer before the deadline), the caller gets `StoreUnavailable` and the next
caller a new connection. Only `fetch_repeatable` retries: only the caller can decide what may run twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, LiteralString, Protocol

import psycopg
import structlog

from okane.errors import StoreBusy, StoreSlow, StoreUnavailable
from okane.store.connect import SETUP_TIMEOUT_S, application_name, first_line, open_connection, shut_down_socket
from okane.store.pooler import PoolerRefused
from okane.store.prepared_statements import PreparedStatement, PreparedStatements, Row
from okane.time_slice import TimeSlice

log = structlog.get_logger("okane.store")

STALE_WITHIN_S = 1.0  # a connection that died while idle fails at once; no second try on a server that does not answer

# Batched statements use indexes even if the table was empty when the statement was prepared: a sequential scan planned then
# would stay for the life of the connection (measured 8 to 11 times slower). With one possible plan, planning every batch
# again would find the same one, and for a batch of one that is half of the server's work.
INDEX_ONLY = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "plan_cache_mode": "force_generic_plan",
}

# A list uses the index that has its order: sorting would read the whole list for one page.
IN_ORDER = {**INDEX_ONLY, "enable_sort": "off", "enable_incremental_sort": "off"}

# Errors of a server that stops, starts, or is no longer the primary: a new connection may work.
_LOST = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.CannotConnectNow,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.InvalidSqlStatementName,  # a pooler has changed to transaction mode: a new session detects it
    psycopg.errors.DuplicatePreparedStatement,
)
# Errors of a missing schema or missing privileges: the request has no part in them.
_UNFIT = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.InsufficientPrivilege,
)
_BUSY = (psycopg.errors.QueryCanceled, psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable)

# An index of several keys per row, as that on metadata, is read as a bitmap. Any other plan would read the whole table.
BITMAP_ONLY = {
    "enable_seqscan": "off",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "plan_cache_mode": "force_generic_plan",
}

# Rows in a span of time are found by a BRIN index, which is read as a bitmap; each leads to others by their ids. Hash and
# merge joins would read a whole table for a few minutes of it.
BY_TIME = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_custom_plan",
    "jit": "off",
}

ROWS_AT_ONCE = 20
MIN_SETUP_S = 2.0  # to connect: a server that is busy needs longer for that than for a short statement
IDLE_TIMEOUT_MS = 2000  # a process that is stopped or cut off between two statements must not keep its locks
LOCK_TIMEOUT_MS = 500  # an open psql session must not block more than the row that it has locked


class Fetching(Protocol):
    """The part of a session that batched statements use."""

    async def fetch(
        self, statement: LiteralString | PreparedStatement, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Row]: ...
    async def fetch_repeatable(
        self, statement: LiteralString | PreparedStatement, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Row]: ...


class Session:
    """One connection with a name in `pg_stat_activity`."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        timeout: timedelta = timedelta(seconds=10),
        index_only: bool = False,
        in_order: bool = False,
        bitmap_only: bool = False,
        by_time: bool = False,
    ) -> None:
        self._url = url
        self._name = name
        self._timeout_s = timeout.total_seconds()
        self._settings = {
            "statement_timeout": str(int(self._timeout_s * 1000)),
            "lock_timeout": str(LOCK_TIMEOUT_MS),
            "idle_in_transaction_session_timeout": str(IDLE_TIMEOUT_MS),
            **(IN_ORDER if in_order else INDEX_ONLY if index_only else BITMAP_ONLY if bitmap_only else {}),
            **(BY_TIME if by_time else {}),
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
        """`fetch`, for a statement that may run twice: runs it again if the connection turns out to be dead."""
        started_s = time.monotonic()
        try:
            return await self.fetch(statement, parameters)
        except StoreUnavailable as error:
            if isinstance(error, StoreBusy) or time.monotonic() - started_s > STALE_WITHIN_S:
                raise
        return await self.fetch(statement, parameters)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Row]]:
        """Run several statements in one transaction, committed at the end of the block."""
        async with self._held() as connection, connection.transaction():
            yield connection

    @contextlib.asynccontextmanager
    async def prepared_transaction(self) -> AsyncIterator[Callable[[PreparedStatement], Awaitable[Sequence[Row]]]]:
        """Run prepared statements without parameters in one transaction, committed at the end of the block.

        A session that runs these must have no statement prepared by psycopg (`fetch` of a text, `transaction`): after a
        ROLLBACK or DDL psycopg deallocates all that the connection has, and these with them.
        """
        async with self._held() as connection, connection.transaction():
            prepared = self._prepared
            assert prepared is not None
            yield lambda statement: prepared.fetch(statement, {})

    @contextlib.asynccontextmanager
    async def _held(self) -> AsyncIterator[psycopg.AsyncConnection[Row]]:
        async with self._lock:
            watchdog: asyncio.TimerHandle | None = None
            try:
                connection = await self._connected()
                # A live server ends the statement first, by statement_timeout. For one that does not answer the socket is
                # shut down, since cancelling the query would wait for that server, too.
                watchdog = asyncio.get_running_loop().call_later(self._timeout_s + 1, shut_down_socket, connection)
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
                    kind = StoreSlow if isinstance(error, psycopg.errors.QueryCanceled) else StoreBusy
                    raise kind(first_line(error)) from error
                await self._drop()
                raise StoreUnavailable(first_line(error)) from error
            finally:
                if watchdog is not None:
                    watchdog.cancel()

    async def _connected(self) -> psycopg.AsyncConnection[Row]:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        try:
            self._connection = await open_connection(
                self._url,
                name=self._name,
                settings=self._settings,
                timeout_s=min(SETUP_TIMEOUT_S, max(MIN_SETUP_S, self._timeout_s)),
            )
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

    async def rename(self, name: str) -> None:
        """Change the name in `pg_stat_activity`. Raises StoreUnavailable; a connection that is opened later has it anyway."""
        self._name = name
        parameters = {"name": application_name(name)}
        await self.fetch_repeatable("SELECT set_config('application_name', %(name)s, false)", parameters)

    async def aclose(self) -> None:
        """Close the connection. A statement in flight fails with StoreUnavailable."""
        # A wait on the socket must end before the socket's number is reused.
        if self._lock.locked() and self._connection is not None:
            shut_down_socket(self._connection)
        async with self._lock:
            await self._drop()


async def _all(cursor: psycopg.AsyncCursor[Row]) -> Sequence[Row]:
    """Return all rows. Loading many long rows takes long: other tasks run in between."""
    time_slice, found = TimeSlice(), list[Row]()
    while some := await cursor.fetchmany(ROWS_AT_ONCE):
        found += some
        await time_slice.end_if_spent()
    return found
