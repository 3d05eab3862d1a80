"""A primary with a replica, watched by sentinels, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from okane.local.ports import free_port
from tests.streams.servers import HOST, Server
from torture.system.sentinels import NAME, can_fail_over, configuration, fail_over

PASSWORD = "of-the-sentinels"


class SentinelServer:
    """One sentinel, with a password of its own."""

    def __init__(self, folder: Path, primary: Server) -> None:
        folder.mkdir()
        self.port = free_port()
        self._file = folder / "sentinel.conf"
        self._file.write_text(configuration(port=self.port, primary_port=primary.port, password=PASSWORD))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [Server.binary(), str(self._file), "--sentinel"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def client(self) -> Redis:
        return Redis(host=HOST, port=self.port, password=PASSWORD)


class WatchedServers:
    """A primary (the first of `servers`), its replica, and three sentinels of which two decide."""

    def __init__(self, folder: Path) -> None:
        self.servers = [Server(_made(folder / name)) for name in ("first", "second")]
        self.sentinels = [SentinelServer(folder / f"sentinel-{n}", self.servers[0]) for n in range(3)]

    def url(self, *, password: str = PASSWORD) -> str:
        hosts = ",".join(f"{HOST}:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{hosts}/{NAME}/0?sentinel_password={password}"

    async def start(self) -> None:
        """Start all, and wait until the sentinels know each other and the replica: they can fail over then."""
        first, second = self.servers
        second.options = ("--replicaof", f"{HOST} {first.port}")
        for server in self.servers:
            server.start()
        for sentinel in self.sentinels:
            sentinel.start()
        async with asyncio.timeout(30):
            for sentinel in self.sentinels:
                async with sentinel.client() as client:
                    while not await can_fail_over(client):
                        await asyncio.sleep(0.05)

    async def fail_over(self) -> None:
        """Have the roles swapped, with both servers up."""
        async with self.sentinels[0].client() as sentinel:
            await fail_over(sentinel)

    async def primary_is(self, server: Server) -> None:
        """Wait until `server` is the primary, by its own words."""
        async with asyncio.timeout(30), Redis(port=server.port) as client:
            while True:
                with contextlib.suppress(RedisError):
                    if (await client.role())[0] == b"master":
                        return
                await asyncio.sleep(0.02)

    def end(self) -> None:
        for sentinel in self.sentinels:
            sentinel.kill()
        for server in self.servers:
            server.kill()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
