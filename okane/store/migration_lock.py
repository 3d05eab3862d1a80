"""The migration lock: an advisory lock that one session holds until it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

import psycopg

from okane.errors import SetupError
from okane.store.prepared_statements import Row

_POLL_S = 0.2
_QUIET_S = 2.0  # most migrations are over by then
_REPORT_S = 15.0

# Polled: a waiting statement would hold a snapshot, and CREATE INDEX CONCURRENTLY waits for all snapshots.
_TRY = "SELECT pg_try_advisory_lock(hashtext('okane.migrate'))"
# pg_locks stores the key as two halves. pg_stat_activity hides other users' sessions from all but monitoring roles.
_HOLDER = """
SELECT l.pid, a.application_name, a.backend_start::timestamp(0)::text, a.state
FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32 | l.objid::bigint) = hashtext('okane.migrate')::bigint
"""


async def take_lock(connection: psycopg.Connection[Row], *, wait: timedelta, report: Callable[[str], None]) -> None:
    """Take the lock, waiting for another session to release it. Raise SetupError, which names the holder, after `wait`."""
    started_s = time.monotonic()
    report_s = _QUIET_S
    while not await asyncio.to_thread(_try, connection):
        waited_s = time.monotonic() - started_s
        if waited_s >= wait.total_seconds():
            holder = await asyncio.to_thread(_holder, connection)
            raise SetupError(f"another migration has not ended within {wait}: {holder}")
        if waited_s >= report_s:
            report(f"waiting for another migration: {await asyncio.to_thread(_holder, connection)}")
            report_s = waited_s + _REPORT_S
        await asyncio.sleep(_POLL_S)


def _try(connection: psycopg.Connection[Row]) -> bool:
    row = connection.execute(_TRY).fetchone()
    return row is not None and bool(row[0])


def _holder(connection: psycopg.Connection[Row]) -> str:
    row = connection.execute(_HOLDER).fetchone()
    if row is None:
        return "it has just ended"
    pid, name, since, state = row
    known = f", application_name {name!r}, connected since {since} UTC, {state}" if since is not None else ""
    return (
        f"its lock is held by pid {pid}{known}. If that is no migration that runs (a pooler may have kept its connection),"
        f" end it: SELECT pg_terminate_backend({pid})"
    )
