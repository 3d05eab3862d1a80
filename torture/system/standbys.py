"""A Postgres primary and its standbys: base backup, promotion, and a server that follows another one.

The servers are Postgres' own; nothing of okane is needed. All functions block; all raise psycopg.Error and TimeoutError.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence, Set
from pathlib import Path

import psycopg
from psycopg import sql

from okane.local.ownership import hand_over, postgres_account
from okane.local.postgres import PostgresServer
from okane.local.postgres_binaries import find_programs
from okane.local.processes import server_environment
from okane.local.server import StartError

_BACKUP_S = 120.0
_WAIT_S = 30.0
_FOLLOWED_S = 10.0  # a standby looks for its primary every 0.2 to 5 seconds
_POLL_S = 0.02
_PASSWORDS = "passwords"  # in the data folder, where Postgres runs


def back_up(primary: PostgresServer, folder: Path, *, name: str) -> None:
    """Replace the cluster in `folder` by a copy of the primary's, which follows it under this application name.

    The server of `folder` must not be running, and is prepared and started again by the caller. Raises StartError.
    """
    cluster, draft = folder / "cluster", folder / "draft-standby"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (cluster, draft):
        shutil.rmtree(path, ignore_errors=True)
    password = folder / "password"
    password.touch(mode=0o600)
    password.write_text(primary.url.partition("@")[0].rpartition(":")[2])
    options = ["--checkpoint=fast", "--wal-method=stream", "--no-sync"]
    # Under the name of a standby its copy of the log would count as one that has a commit.
    done = subprocess.run(  # noqa: S603 - a program of Postgres
        [find_programs(None) / "pg_basebackup", f"--dbname={primary.url}", f"--pgdata={draft}", *options],
        env=server_environment(),
        capture_output=True,
        text=True,
        timeout=_BACKUP_S,
        check=False,
    )
    if done.returncode != 0:
        raise StartError(f"pg_basebackup exited with {done.returncode}.\n{done.stderr}")
    (draft / "standby.signal").touch(mode=0o600)
    with (draft / "postgresql.auto.conf").open("a") as file:
        file.write(f"primary_conninfo = '{_followed(primary, name)}'\n")
    (draft / _PASSWORDS).touch(mode=0o600)
    (draft / _PASSWORDS).write_text(f"*:*:*:*:{password.read_text()}\n")
    if os.geteuid() == 0:  # then Postgres runs as a user of its own
        hand_over(draft, postgres_account(lambda _line: None))
    draft.replace(cluster)


def require_standby(primary: PostgresServer, names: Sequence[str], *, reload: bool = True) -> None:
    """Make every commit of this primary wait for one of these standbys; without `reload`, from its next start on."""
    quoted = ", ".join(f'"{name}"' for name in names)
    with psycopg.connect(primary.url, autocommit=True) as connection:
        _set(connection, "synchronous_standby_names", f"ANY 1 ({quoted})", reload=reload)


def reload(server: PostgresServer) -> None:
    """Have a server read its settings again."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("SELECT pg_reload_conf()")


def furthest(standbys: Sequence[PostgresServer]) -> PostgresServer:
    """Return the standby that has received most: with a quorum of one, the others may lack acknowledged commits.

    They follow no primary from then on, so that none of them gets ahead of the one that is returned.
    """
    for standby in standbys:
        with psycopg.connect(standby.url, autocommit=True) as connection:
            _set(connection, "primary_conninfo", "")
            _wait(connection, "SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)")
    return max(standbys, key=_received)


def promote(standby: PostgresServer) -> None:
    """Make a standby a primary, and return once it takes writes."""
    with psycopg.connect(standby.url, autocommit=True) as connection:
        connection.execute("SELECT pg_promote(wait => true)")


def follow(standby: PostgresServer, primary: PostgresServer, *, name: str) -> None:
    """Have a standby that is running follow another primary."""
    with psycopg.connect(standby.url, autocommit=True) as connection:
        _set(connection, "primary_conninfo", _followed(primary, name))


def wait_for_followers(primary: PostgresServer, count: int) -> Set[str]:
    """Return the names of the standbys that stream from this primary, once they are so many, or after a while."""
    deadline_s = time.monotonic() + _FOLLOWED_S
    statement = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'"
    with psycopg.connect(primary.url, autocommit=True) as connection:
        while True:
            names = {str(name) for (name,) in connection.execute(statement)}
            if len(names) >= count or time.monotonic() > deadline_s:
                return names
            time.sleep(_POLL_S)


def takes_writes(server: PostgresServer) -> bool:
    """Return True for a primary."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)


def _received(standby: PostgresServer) -> int:
    with psycopg.connect(standby.url, autocommit=True) as connection:
        # A standby that was started again may have received nothing since.
        row = connection.execute(
            "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'"
        ).fetchone()
        assert row is not None
        return int(row[0] or 0)


def _followed(primary: PostgresServer, name: str) -> str:
    """Return the address of the primary for this standby. It is logged, so it has no password."""
    account, _, place = primary.url.partition("@")
    return f"{account.rpartition(':')[0]}@{place}?application_name={name}&passfile={_PASSWORDS}"


def _set(connection: psycopg.Connection, name: str, value: str, *, reload: bool = True) -> None:
    statement = sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
    connection.execute(statement)
    if reload:
        connection.execute("SELECT pg_reload_conf()")


def _wait(connection: psycopg.Connection, condition: str) -> None:
    deadline_s = time.monotonic() + _WAIT_S
    while connection.execute(condition.encode()).fetchone() != (True,):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not true within {_WAIT_S:g} s: {condition}")
        time.sleep(_POLL_S)
