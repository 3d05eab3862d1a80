"""The HTTP of the servers that benchmarks measure against: one keep-alive connection, and a server until SIGTERM.

It supports the HTTP of its clients only: whole heads, Content-Length. A server of its own costs less than a framework.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import cast

_HEAD_END = b"\r\n\r\n"


class PlainConnection(asyncio.Protocol):
    """One keep-alive connection. A subclass answers in `handle`."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer = buffer = self._buffer + data if self._buffer else data
        while (head_end := buffer.find(_HEAD_END)) >= 0:
            head, start = buffer[:head_end], head_end + len(_HEAD_END)
            end = start + int(header(head, b"content-length") or 0)
            if len(buffer) < end:
                break
            self.handle(head, buffer[start:end])
            self._buffer = buffer = buffer[end:]

    def handle(self, head: bytes, body: bytes) -> None:
        """Answer one request with `write`, now or later."""
        raise NotImplementedError

    def write(self, answer: bytes) -> None:
        """Write a whole answer."""
        assert self._transport is not None
        self._transport.write(answer)


def header(head: bytes, name: bytes) -> bytes:
    """Return the value of a header, whatever the case of its name is; empty without one."""
    at = head.lower().find(b"\r\n" + name + b":")
    if at < 0:
        return b""
    start = at + len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


def json_response(body: bytes, status: bytes = b"200 OK") -> bytes:
    """Return the answer with this JSON."""
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


async def serve(connection: Callable[[], PlainConnection], port: int) -> None:
    """Serve on loopback until SIGTERM."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(connection, "127.0.0.1", port, backlog=1024)
    await stop.wait()
    server.close()
