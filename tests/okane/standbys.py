"""A Postgres primary and its standbys, embedded, on loopback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from okane.local.ports import free_port
from okane.local.postgres import PostgresServer
from torture.system import standbys

NAMES = ("standby0", "standby1", "standby2")


class ReplicatedPostgres:
    """A primary (the first of `servers`) that waits for one of two standbys. All have one password."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = [free_port() for _ in NAMES]
        self.servers = [self._server(number) for number in range(len(NAMES))]

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
        """Start all; return when both standbys follow, and commits wait for them."""
        self.primary.start()
        standbys.require_standby(self.primary, NAMES, reload=False)
        for number, server in enumerate(self.servers[1:], start=1):
            standbys.back_up(self.primary, self._folder / str(number), name=NAMES[number])
            server.start()
        standbys.wait_for_followers(self.primary, 2)
        standbys.reload(self.primary)

    def promote(self, server: PostgresServer) -> None:
        """Make a standby the primary. The other one follows it, and it waits for that one."""
        standbys.promote(server)
        for name, other in zip(NAMES, self.servers, strict=True):
            if other not in (self.primary, server):
                standbys.follow(other, server, name=name)

    def end(self) -> None:
        for server in reversed(self.servers):
            server.kill()

    def _server(self, number: int) -> PostgresServer:
        log = self._folder / f"{number}.log"
        return PostgresServer(folder=self._folder / str(number), log=log, port=self._ports[number], durable=False)


@contextlib.contextmanager
def replicated_postgres(folder: Path) -> Iterator[ReplicatedPostgres]:
    """A primary and two standbys run inside the block."""
    one = ReplicatedPostgres(folder)
    try:
        one.start()
        yield one
    finally:
        one.end()
