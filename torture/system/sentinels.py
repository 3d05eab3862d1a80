"""Redis behind Sentinel: a primary, its replica, and three sentinels of which two decide.

Sentinels hand out the addresses of the servers, so a process has no link of its own to Redis: each server announces one
proxy, through which all reach it, processes, sentinels and the other server. A fault of such a link strikes the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from okane.local.ports import LOOPBACK
from okane.local.processes import Child, Stage, server_environment, spawn
from okane.local.redis_server import answers_ping, find_binary
from okane.local.server import Server
from streams import connect
from streams.connection import replies
from torture.system.links import Links
from torture.system.program_factory import ProgramFactory
from torture.system.shape import SENTINEL_LINKS, SENTINELS

NAME: Final = "main"
DOWN_AFTER_MS: Final = 500
QUORUM: Final = 2
_TIMEOUT: Final = timedelta(seconds=0.5)
_SETTLED_S = 30.0  # sentinels take some ten seconds to make a replica of a primary that comes back
_POLL_S = 0.1


def configuration(*, port: int, primary_port: int, password: str, primary_password: str = "") -> str:
    """Return the file of a sentinel. `password` is that of the sentinels, which ask each other."""
    lines = [
        f"port {port}",
        f"bind {LOOPBACK}",
        f"requirepass {password}",
        f"sentinel sentinel-pass {password}",
        f"sentinel monitor {NAME} {LOOPBACK} {primary_port} {QUORUM}",
        *([f"sentinel auth-pass {NAME} {primary_password}"] if primary_password else []),
        f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}",
        f"sentinel failover-timeout {NAME} 3000",
    ]
    return "\n".join(lines) + "\n"


async def can_fail_over(sentinel: Redis) -> bool:
    """Return True if this sentinel knows the two others, and a replica that follows the primary."""
    with contextlib.suppress(RedisError, OSError):
        state: Any = await sentinel.sentinel_master(NAME)
        found: Any = await sentinel.sentinel_slaves(NAME)
        following = [one for one in found if one["master-link-status"] == "ok"]
        return bool(state["num-other-sentinels"] == len(SENTINELS) - 1 and len(following) == len(found) == 1)
    return False


async def fail_over(sentinel: Redis) -> None:
    """Have the roles swapped, with both servers up. Raises redis-py's errors."""
    command = ("SENTINEL", "FAILOVER", NAME)
    # Valkey 9 can make the old primary a replica at once; otherwise that takes some ten seconds.
    [reply] = await replies(sentinel, [(*command, "COORDINATED")])
    if isinstance(reply, ResponseError):
        [reply] = await replies(sentinel, [command])
    if isinstance(reply, Exception):
        raise reply


class SentinelServer(Server):
    """One sentinel. It keeps what it learns in its file, which is written once."""

    def __init__(self, *, name: str, folder: Path, log: Path, port: int, password: str, text: str) -> None:
        super().__init__()
        self.name = name
        self._file = folder / f"{name}.conf"
        self._log = log
        self._port = port
        self._password = password
        self._text = text

    def prepare(self) -> None:
        self._file.touch(mode=0o600)
        self._file.write_text(self._text)

    def _spawn(self) -> Child:
        return spawn(
            name=self.name,
            command=[find_binary().path, self._file, "--sentinel"],
            log=self._log,
            stages=(Stage(signal.SIGTERM, 10),),
            env=server_environment(),
        )

    def ready(self) -> bool:
        """Return True if PING answers PONG."""
        return answers_ping(self._port, self._password)


class Sentinels:
    """The sentinels of the two servers, and what they say. `aclose` closes the connections to them."""

    def __init__(self, factory: ProgramFactory, links: Links) -> None:
        self._factory = factory
        self._ports = [links[link].port for link in SENTINEL_LINKS]  # of the servers, by number
        self._clients = [connect(self._address(name), timeout=_TIMEOUT) for name in SENTINELS]

    @property
    def url(self) -> str:
        """The address of the primary, for every process."""
        hosts = ",".join(f"{LOOPBACK}:{self._factory.port(name)}" for name in SENTINELS)
        password = self._factory.redis_password
        return f"redis+sentinel://:{password}@{hosts}/{NAME}/0?sentinel_password={password}"

    def settings(self, number: int) -> Mapping[str, str]:
        """Return the settings of a server: it announces its proxy; the second one begins as the replica of the first."""
        return {
            "replica-announce-ip": LOOPBACK,
            "replica-announce-port": str(self._ports[number]),
            "masterauth": self._factory.redis_password,
            "repl-diskless-sync-delay": "0",
            **({"replicaof": f"{LOOPBACK} {self._ports[0]}"} if number else {}),
        }

    def server(self, name: str) -> SentinelServer:
        """Return the sentinel of this name."""
        port, password = self._factory.port(name), self._factory.redis_password
        return SentinelServer(
            name=name,
            folder=self._factory.folder,
            log=self._factory.log(name),
            port=port,
            password=password,
            text=configuration(port=port, primary_port=self._ports[0], password=password, primary_password=password),
        )

    async def primary(self) -> int | None:
        """Return the number of the server that most of the sentinels name; None if there is none."""
        named = Counter(await asyncio.gather(*(self._named_by(client) for client in self._clients)))
        for port, count in named.items():
            if count >= QUORUM and port in self._ports:
                return self._ports.index(port)
        return None

    async def settled(self) -> None:
        """Wait until every sentinel knows a replica that follows the primary. Raises TimeoutError."""
        async with asyncio.timeout(_SETTLED_S):
            while not all([await can_fail_over(client) for client in self._clients]):  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(_POLL_S)

    async def fail_over(self) -> None:
        """Have one sentinel swap the roles. Raises redis-py's errors."""
        await fail_over(self._clients[0])

    def follow_command(self, primary: int) -> tuple[str, ...]:
        """Return the command that makes a server the replica of another one."""
        return ("REPLICAOF", LOOPBACK, str(self._ports[primary]))

    async def aclose(self) -> None:
        await asyncio.gather(*(client.aclose() for client in self._clients))

    async def _named_by(self, client: Redis) -> int:
        with contextlib.suppress(RedisError, OSError):
            state: Any = await client.sentinel_master(NAME)
            return int(state["port"])
        return 0

    def _address(self, name: str) -> str:
        return self._factory.redis_url(self._factory.port(name))
