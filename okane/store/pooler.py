"""Detect the mode of a connection pooler in front of Postgres (PgBouncer, Odyssey, Supavisor, RDS Proxy, ...).

okane depends on session state: time-outs, prepared statements, the advisory lock. Session mode keeps it. In transaction and
statement mode the next statement may run on another server connection, and our settings stay on one that other clients use.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

from okane.errors import StoreUnavailable

TRIES = 5
TIMEOUT_S = 1.5  # less than any session has to connect: afterwards the connection that is checked would be shut down

_PID = "SELECT pg_backend_pid()"
_NAME = "okane_pooler_check"

PooledConnection = psycopg.AsyncConnection[tuple[Any, ...]]


_NO_OPTIONS = re.compile(r"unsupported startup parameter(?: in options)?:? (\w{1,40})", re.ASCII)


class PoolerRefused(StoreUnavailable):
    """The pooler's configuration does not support okane; the message says what to change."""


def refused_by_pooler(error: psycopg.Error) -> PoolerRefused | None:
    """Return the error to raise for a startup parameter that the pooler refuses, or None for any other error."""
    match = _NO_OPTIONS.search(str(error))
    if match is None:
        return None
    return PoolerRefused(
        f"the connection pooler that DATABASE_URL leads to takes no `{match[1]}` from clients: leave it out of DATABASE_URL"
        " and of PGOPTIONS (set it by ALTER ROLE ... SET instead), or allow it (PgBouncer: ignore_startup_parameters)"
    )


async def require_session_mode(connection: PooledConnection, second: Callable[[], Awaitable[PooledConnection]]) -> None:
    """Raise PoolerRefused unless the pooler behind `connection` keeps its session.

    `second` opens another connection to the same pooler, for `TIMEOUT_S`. If the pooler has none left, the session counts as
    kept: a pooler that shares server connections would have lent the one of `connection`, which is idle.
    """
    try:
        mode = await _mode(connection, await second())
    except psycopg.OperationalError:
        return
    if mode != "session":
        raise PoolerRefused(
            f"DATABASE_URL leads to a connection pooler in {mode} mode, which keeps no session: connect to Postgres"
            " directly, or to a pool of the pooler in session mode (PgBouncer: pool_mode = session)"
        )


async def require_own_session(open_session: Callable[[], Awaitable[PooledConnection]]) -> None:
    """Raise PoolerRefused unless each client has a session of its own, and the next one gets it as new.

    `open_session` opens one as a worker does, with `enable_seqscan` off. This also finds a pooler that hides its mode by
    reporting the process ids of the server. Raise psycopg's errors as well.
    """
    first = await open_session()
    try:
        await _prepare(first)
        async with await open_session() as other, other.transaction():
            await other.execute(_PID, prepare=False)  # holds the server connection of `first`, if they are shared
            is_kept = await _has_kept(first)
    finally:
        await first.close()
    if not is_kept:
        raise PoolerRefused(
            "DATABASE_URL leads to a connection pooler that keeps neither settings nor prepared statements of a session:"
            " connect to Postgres directly, or to a pool of the pooler in session mode (PgBouncer: pool_mode = session)"
        )
    async with await open_session() as again:
        await _prepare(again)


async def _prepare(connection: PooledConnection) -> None:
    try:
        await connection.execute(f"PREPARE {_NAME} AS SELECT 1", prepare=False)
    except psycopg.errors.DuplicatePreparedStatement:
        raise PoolerRefused(
            "DATABASE_URL leads to a connection pooler that hands on a session with the prepared statements of its last"
            " client: have it reset sessions (PgBouncer: server_reset_query = DISCARD ALL)"
        ) from None


async def _has_kept(connection: PooledConnection) -> bool:
    try:
        row = await (await connection.execute("SHOW enable_seqscan", prepare=False)).fetchone()
        await connection.execute(f"EXECUTE {_NAME}", prepare=False)
    except psycopg.errors.InvalidSqlStatementName:
        return False
    return row == ("off",)


async def _mode(connection: PooledConnection, other: PooledConnection) -> str:
    """Return `transaction` if both get the same server connection (poolers lend the one used last first), `statement` if
    the pooler refuses BEGIN, else `session`."""
    try:
        first = await _pid(connection)
        for _ in range(TRIES):
            async with other.transaction():
                lent = await _pid(other)
            # Also if `lent` is the same: a session that has just ended was lent as it ought to be. That raises here.
            answering = await _pid(connection)
            if lent == first or answering != first:
                return "transaction"
    except (psycopg.errors.ProtocolViolation, psycopg.errors.FeatureNotSupported):
        return "statement"
    finally:
        await other.close()
    return "session"


async def _pid(connection: PooledConnection) -> int:
    row = await (await connection.execute(_PID, prepare=False)).fetchone()
    assert row is not None
    return int(row[0])
