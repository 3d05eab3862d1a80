"""Detect the mode of a connection pooler in front of Postgres (PgBouncer, Odyssey, Supavisor, RDS Proxy, ...).

okane depends on session state: time-outs, prepared statements, the advisory lock. Session mode keeps it. In transaction and
statement mode the next statement may run on another server connection, and our settings stay on one that other clients use.
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

    `second` opens another connection to the same pooler. If the pooler has none left, the session counts as kept: a pooler
    that shares server connections would have lent the one of `connection`, which is idle.
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


async def _mode(connection: PooledConnection, other: PooledConnection) -> str:
    """Return `transaction` if both get the same server connection (poolers lend the one used last first), `statement` if
    the pooler refuses BEGIN, else `session`."""
    try:
        first = await _pid(connection)
        for _ in range(TRIES):
            async with other.transaction():
                lent = await _pid(other)
            if lent == first or await _pid(connection) != first:
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
