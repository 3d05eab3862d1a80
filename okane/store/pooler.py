"""Finds out in which mode a connection pooler between us and Postgres is (PgBouncer, Odyssey, Supavisor, RDS Proxy, ...).

okane depends on what a session keeps: its time-outs, its prepared statements, its advisory lock. In session mode it does;
in transaction and statement mode the next statement may run on another connection of the pooler, and the settings of ours
stay behind on one that others use.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

from okane.errors import StoreUnavailable

TRIES = 5
TIMEOUT_S = 3.0

_PID = "SELECT pg_backend_pid()"

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


_NO_OPTIONS = re.compile(r"unsupported startup parameter(?: in options)?:? (\w{1,40})", re.ASCII)


class PoolerRefused(StoreUnavailable):
    """The pooler is set up in a way that okane cannot work behind; the message says what to change."""


def refused_by_pooler(error: psycopg.Error) -> PoolerRefused | None:
    """Return what to raise for an error that only a pooler answers with, to a connection it will never make."""
    match = _NO_OPTIONS.search(str(error))
    if match is None:
        return None
    return PoolerRefused(
        f"the connection pooler that DATABASE_URL leads to takes no `{match[1]}` from clients: leave it out of DATABASE_URL"
        " and of PGOPTIONS (set it by ALTER ROLE ... SET instead), or allow it (PgBouncer: ignore_startup_parameters)"
    )


async def require_session_mode(connection: Connection, second: Callable[[], Awaitable[Connection]]) -> None:
    """Raise PoolerRefused unless the pooler behind `connection` keeps a session for it.

    `second` opens another connection by the same way. Where the pooler has none left to give, the session counts as kept:
    a pooler that shares its connections would have lent that of `connection`, which is idle.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            mode = await _mode(connection, await second())
    except (TimeoutError, psycopg.OperationalError):
        return
    if mode != "session":
        raise PoolerRefused(
            f"DATABASE_URL leads to a connection pooler in {mode} mode, which keeps no session: connect to Postgres"
            " directly, or to a pool of the pooler in session mode (PgBouncer: pool_mode = session)"
        )


async def _mode(connection: Connection, other: Connection) -> str:
    """A server's connection that both were lent is lent for a transaction. Idle ones are lent the last one first."""
    try:
        first = await _pid(connection)
        for _ in range(TRIES):
            async with other.transaction():
                lent = await _pid(other)
            if lent == first or await _pid(connection) != first:
                return "transaction"
    except (psycopg.errors.ProtocolViolation, psycopg.errors.FeatureNotSupported):
        return "statement"  # it takes no BEGIN
    finally:
        await other.close()
    return "session"


async def _pid(connection: Connection) -> int:
    row = await (await connection.execute(_PID, prepare=False)).fetchone()
    assert row is not None
    return int(row[0])
