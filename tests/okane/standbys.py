"""A Postgres primary and its standbys, embedded, on loopback."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg

from okane.local.ports import free_port
from okane.local.postgres import PostgresServer

SYNCHRONOUS = "ANY 1 (standby1, standby2)"


class ReplicatedPostgres:
    """A primary (the first of `servers`) that waits for one of two standbys. All have one password."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = [free_port() for _ in range(3)]
        self.servers = [self._server(0, {"synchronous_standby_names": SYNCHRONOUS})]

    @property
    def primary(self) -> PostgresServer:
        return self.servers[0]

    @property
    def url(self) -> str:
        """The address of all of them: of the one that takes writes."""
        before, _, after = self.primary.url.partition("@")
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        return f"{before}@{hosts}/{after.partition('/')[2]}?target_session_attrs=read-write"

    def start(self) -> None:
        """Copy a stopped primary to two standbys, and start all; return when both follow."""
        alone = self._server(0, {})
        alone.start()
        alone.stop()
        for number in (1, 2):
            shutil.copytree(self._folder / "0", self._folder / str(number))
            cluster = self._folder / str(number) / "cluster"
            (cluster / "standby.signal").touch()
            with (cluster / "postgresql.auto.conf").open("a") as file:
                file.write(f"primary_conninfo = '{_followed(self.primary, number)}'\n")
            self.servers.append(self._server(number, {}))
        for server in self.servers:
            server.start()
        self._wait("SELECT count(*) = 2 FROM pg_stat_replication WHERE state = 'streaming'", self.primary)

    def promote(self, server: PostgresServer) -> None:
        """Make a standby the primary. The other one follows it, and it waits for that one."""
        [(other_number, other)] = [
            (number, one) for number, one in enumerate(self.servers) if number and one is not server
        ]
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = 'standby{other_number}'")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("SELECT pg_promote(wait => true)")
        with psycopg.connect(other.url, autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET primary_conninfo = '{_followed(server, other_number)}'")
            connection.execute("SELECT pg_reload_conf()")

    def end(self) -> None:
        for server in reversed(self.servers):
            server.kill()

    def furthest(self, standbys: Sequence[PostgresServer]) -> PostgresServer:
        """Return the standby that has received most: with a quorum of one, the other may lack acknowledged commits."""
        received: list[tuple[int, int]] = []
        for number, server in enumerate(standbys):
            with psycopg.connect(server.url, autocommit=True) as connection:
                row = connection.execute("SELECT pg_last_wal_receive_lsn() - '0/0'").fetchone()
                assert row is not None
                received.append((int(row[0]), number))
        return standbys[max(received)[1]]

    def _server(self, number: int, settings: dict[str, str]) -> PostgresServer:
        folder = self._folder / str(number)
        log = self._folder / f"{number}.log"
        return PostgresServer(folder=folder, log=log, port=self._ports[number], durable=False, settings=settings)

    def _wait(self, condition: str, server: PostgresServer) -> None:
        deadline_s = time.monotonic() + 30
        with psycopg.connect(server.url, autocommit=True) as connection:
            while connection.execute(condition).fetchone() != (True,):
                assert time.monotonic() < deadline_s, condition
                time.sleep(0.05)


def _followed(server: PostgresServer, number: int) -> str:
    return f"{server.url}?application_name=standby{number}"
