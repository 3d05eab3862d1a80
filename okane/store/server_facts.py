"""The version and configuration of a Postgres server, for the start checks and `okane doctor`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from okane.errors import StoreUnavailable
from okane.store import schema
from okane.store.connect import first_line, open_connection
from okane.store.hosts import hosts_of
from okane.store.pooler import require_own_session
from okane.store.session import INDEX_ONLY

OLDEST_MAJOR = 15
PATIENCE_S = 10.0  # a server that accepts connections without answering must not block a start
SESSIONS_PATIENCE_S = 4.0  # with a pooler that has no connection left

# Messages of the server and libpq for permanent errors: a failed connection has no SQLSTATE.
_REFUSED = re.compile(
    r"password authentication failed|no password supplied|no pg_hba.conf entry|pg_hba.conf rejects"
    r"|(?:role|database) \".*\" does not exist|is not permitted to log in|permission denied"
    r"|certificate verify failed|root certificate file|does not match host name|server does not support SSL"
)


_ROLE = """SELECT pg_is_in_recovery(), current_setting('synchronous_standby_names'), s.application_name, s.sync_state,
           s.pid IS NOT NULL AND s.state IS NULL
    FROM (SELECT) one LEFT JOIN pg_stat_replication s ON s.state = 'streaming' OR s.state IS NULL"""


class LoginRefused(StoreUnavailable):
    """Postgres refuses the login: credentials, privileges, certificates, or a database that does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresFacts:
    """`schema_version` is None for a database without the schema; `now` is the server's clock; `pooled`: the connection goes
    through a pooler that keeps sessions."""

    version: str
    major: int
    standby: bool
    fsync: bool
    full_page_writes: bool
    synchronous_commit: str
    synchronous_standbys: str
    now: datetime
    schema_version: int | None
    pooled: bool = False


async def read_postgres_facts(url: str, *, tries_sessions: bool = False) -> PostgresFacts:
    """Read the facts in a session like those of the processes. Raises StoreUnavailable if the server does not answer in time,
    and its subclasses LoginRefused, and PoolerRefused for a pooler that keeps no session.

    Behind a pooler, and with `tries_sessions` behind whatever is there, sessions are opened and used as by a worker.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            facts = await _read(url)
            if facts.pooled or tries_sessions:
                await _try_sessions(url, needs_answer=tries_sessions)
            return facts
    except TimeoutError as error:
        raise StoreUnavailable(f"no answer within {PATIENCE_S:g} s") from error
    except psycopg.Error as error:
        message = str(error).strip()
        raise (LoginRefused(message) if _REFUSED.search(message) else StoreUnavailable(message)) from error


async def _try_sessions(url: str, *, needs_answer: bool) -> None:
    """Open and use sessions as a worker does. Unless it `needs_answer`, a pooler that has too few connections left for this
    counts as one that keeps sessions: other processes hold them, and this one has more to check."""
    try:
        async with asyncio.timeout(SESSIONS_PATIENCE_S):
            await require_own_session(lambda: open_connection(url, name="pooler check", settings=INDEX_ONLY))
    except (psycopg.OperationalError, TimeoutError):
        if needs_answer:
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRole:
    """One of several servers in DATABASE_URL: `primary`, `standby`, or `away` with the reason. `standbys` are those that
    follow a primary now, by name, and whether it waits for them (`sync`, `quorum`, `async`)."""

    host: str
    role: Literal["primary", "standby", "away"]
    reason: str = ""
    synchronous: str = ""
    hidden: bool = False  # this login may not see the standbys
    standbys: Mapping[str, str] = field(default_factory=dict)


async def read_host_roles(url: str) -> Sequence[HostRole]:
    """Return the role of each server, if `url` names several; otherwise nothing."""
    found = hosts_of(url)
    return await asyncio.gather(*(_read_role(one) for one in found)) if len(found) > 1 else ()


async def _read_role(url: str) -> HostRole:
    known = conninfo_to_dict(url, target_session_attrs="any")
    name = f"{known.get('host') or known.get('hostaddr')}:{known.get('port') or 5432}"
    try:
        async with (
            asyncio.timeout(PATIENCE_S),
            await open_connection(make_conninfo("", **known), name="role") as connection,
        ):
            rows = await (await connection.execute(_ROLE)).fetchall()
    except TimeoutError:
        return HostRole(host=name, role="away", reason=f"no answer within {PATIENCE_S:g} s")
    except (psycopg.Error, StoreUnavailable) as error:
        return HostRole(host=name, role="away", reason=first_line(error))
    return HostRole(
        host=name,
        role="standby" if rows[0][0] else "primary",
        synchronous=rows[0][1],
        standbys={row[2]: row[3] for row in rows if row[3] is not None},
        hidden=any(row[4] for row in rows),
    )


async def _read(url: str) -> PostgresFacts:
    async with await open_connection(url, name="facts") as connection:
        cursor = await connection.execute(
            "SELECT current_setting('server_version'), current_setting('server_version_num')::integer / 10000,"
            " pg_is_in_recovery(), current_setting('fsync')::boolean,"
            " current_setting('full_page_writes')::boolean, current_setting('synchronous_commit'),"
            " current_setting('synchronous_standby_names'),"
            " clock_timestamp(), pg_backend_pid()"
        )
        row = await cursor.fetchone()
        assert row is not None
        schema_version = await schema.read_version_on(connection)
        pooled = connection.info.backend_pid != row[8]
    version, major, standby, fsync, full_page_writes, synchronous_commit, synchronous_standbys, now, _ = row
    return PostgresFacts(
        version=version,
        major=major,
        standby=standby,
        fsync=fsync,
        full_page_writes=full_page_writes,
        synchronous_commit=synchronous_commit,
        synchronous_standbys=synchronous_standbys,
        now=now,
        schema_version=schema_version,
        pooled=pooled,
    )
