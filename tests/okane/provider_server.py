"""A provider over raw TCP, byte by byte."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from okane.providers.okane_http.provider import OkaneHttpProvider

CAPTURED = b'{"provider_ref": "ch_1", "status": "captured"}'


FOUND = b'{"provider_ref": "ch_1", "status": "captured", "amount": 440, "currency": "USD"}'


Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class RawServer:
    """Read whole requests and run `acts` on the connection, in turn, the last one for all further requests."""

    acts: list[Act]
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    base_url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while not writer.is_closing():
                self.requests.append(await _read_request(reader))
                await (self.acts.pop(0) if len(self.acts) > 1 else self.acts[0])(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    return head + await reader.readexactly(length)


def answer(status: int, body: bytes = b"", *headers: str, length: int | None = None) -> Act:
    """Answer and keep the connection. `length` is a wrong Content-Length."""

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body) if length is None else length}", *headers]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()

    return act


async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()  # until the client gives up


def then_close(act: Act) -> Act:
    async def both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await act(reader, writer)
        writer.close()

    return both


@asynccontextmanager
async def raw_server(*acts: Act) -> AsyncIterator[RawServer]:
    raw = RawServer(list(acts))
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0, backlog=512)
    raw.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield raw


def client(
    base_url: str, *, timeout_s: float = 5.0, connect_s: float | None = None, connections: int = 8
) -> OkaneHttpProvider:
    return OkaneHttpProvider(
        base_url,
        timeout=timedelta(seconds=timeout_s),
        connect_timeout=None if connect_s is None else timedelta(seconds=connect_s),
        connections=connections,
    )
