"""Open connections to okane's database, the same way for processes and commands.

Guarantee: libpq's variables (`PGOPTIONS`, `PGPASSWORD`, `PGSSLMODE`, ...) fill in what DATABASE_URL leaves out. The settings
that okane depends on are set after connecting, where no variable and no pooler can undo them. A pooler that does not keep the
settings of a session is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
from collections.abc import Mapping
from typing import Any

import psycopg

from okane.store import hosts, pooler
from okane.store.prepared_statements import Row

SETUP_TIMEOUT_S = 5.0

_PARAMETERS: Mapping[str, Any] = {
    "client_encoding": "utf8",  # as `binary_encoding` writes
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
# A pooler takes a client before it has a server connection for it.
_SILENT = (
    "connected, but no answer within {:g} s. If this is a connection pooler, its clients may hold all its connections to the"
    " server (PgBouncer: default_pool_size, max_db_connections)"
)
# By a statement rather than as startup options: those would replace the user's, and poolers refuse or drop them.
_SET = """SELECT pg_backend_pid(), (
    SELECT count(set_config(name, value, false)) FROM unnest(%(names)s::text[], %(values)s::text[]) s (name, value)
    WHERE pg_backend_pid() = %(pid)s OR %(behind_pooler)s)"""


async def open_connection(
    url: str, *, name: str, settings: Mapping[str, str] | None = None, timeout_s: float = SETUP_TIMEOUT_S
) -> psycopg.AsyncConnection[Row]:
    """Open an autocommit connection with these settings; `name` shows in `pg_stat_activity`.

    `timeout_s` is for the connection, and once more for its settings; libpq takes whole seconds from two on. Raise psycopg's
    errors, or PoolerRefused.
    """
    limited = _named(name) | {"connect_timeout": hosts.timeout_s(url, max(2, math.ceil(timeout_s)))}
    try:
        connection = await psycopg.AsyncConnection.connect(hosts.in_order(url), autocommit=True, **limited)
    except psycopg.OperationalError as error:
        raise pooler.refused_by_pooler(error) or error from None
    loop = asyncio.get_running_loop()
    watchdog, ends_s = loop.call_later(timeout_s, shut_down_socket, connection), loop.time() + timeout_s
    try:
        parameters = _parameters(connection.info.backend_pid, settings)
        cursor = await connection.execute(_SET, parameters, prepare=False)
        row = await cursor.fetchone()
        assert row is not None
        if row[0] != connection.info.backend_pid:
            # A pooler reports a process id of its own. Check its mode before setting anything on a shared server connection.
            await pooler.require_session_mode(connection, lambda: _second(url, connection))
            await connection.execute(_SET, {**parameters, "behind_pooler": True}, prepare=False)
    except BaseException as error:
        await connection.close()
        if isinstance(error, psycopg.OperationalError) and loop.time() >= ends_s:
            raise psycopg.OperationalError(_SILENT.format(timeout_s)) from error
        raise
    finally:
        watchdog.cancel()
    hosts.worked(url, connection)
    return connection


async def _second(url: str, first: psycopg.AsyncConnection[Row]) -> psycopg.AsyncConnection[Row]:
    """Open a connection to the same host, which is shut down soon. (Cancelling its statement would wait for a pooler that has
    none to lend.)"""
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + pooler.TIMEOUT_S
    try:
        async with asyncio.timeout_at(ends_s):
            connection = await psycopg.AsyncConnection.connect(
                hosts.of_connection(url, first), autocommit=True, **_named("pooler check")
            )
    except TimeoutError as error:
        raise psycopg.OperationalError(f"no second connection within {pooler.TIMEOUT_S:g} s") from error
    loop.call_at(ends_s, shut_down_socket, connection)
    return connection


def open_blocking_connection(
    url: str, *, name: str, settings: Mapping[str, str] | None = None
) -> psycopg.Connection[Row]:
    """Open the same for blocking code. Only after `open_connection` has succeeded: the pooler is not checked again."""
    connection = psycopg.connect(hosts.in_order(url), autocommit=True, **_named(name))
    parameters = _parameters(connection.info.backend_pid, settings)
    connection.execute(_SET, {**parameters, "behind_pooler": True}, prepare=False)
    return connection


def application_name(name: str) -> str:
    """Return the name of a session as `pg_stat_activity` has it."""
    return f"okane {name}"


def _named(name: str) -> dict[str, Any]:
    return {**_PARAMETERS, "application_name": application_name(name)}


def _parameters(pid: int, settings: Mapping[str, str] | None) -> dict[str, Any]:
    wanted = {"timezone": "UTC", **(settings or {})}
    return {"names": list(wanted), "values": list(wanted.values()), "pid": pid, "behind_pooler": False}


def shut_down_socket(connection: psycopg.AsyncConnection[Row]) -> None:
    """Shut the socket down, so that a wait on it ends. (After a close it would not.)"""
    if not connection.closed:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)


def first_line(error: BaseException) -> str:
    """Return the first line of libpq's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
