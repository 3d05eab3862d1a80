"""A receiver of webhooks that costs little: `python -m bench.receiver --port N` answers 204 and keeps a journal in memory.

A request to a path that ends with `/silent` is never answered. `GET /journal` returns the requests, `GET /count` their
number, and `DELETE /journal` begins a new one. It verifies nothing: signatures are the business of tests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from dataclasses import dataclass
from datetime import datetime
from typing import cast
from urllib.request import Request, urlopen

import uvloop

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
_ID = b"webhook-id:"
_TIMESTAMP = b'"timestamp":"'
_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: its path and id, when the change was made, and when its request arrived, in seconds since 1970."""

    path: str
    id: str
    changed_s: float
    arrived_s: float

    @property
    def age_ms(self) -> float:
        return (self.arrived_s - self.changed_s) * 1000


class Journal:
    """The requests as they arrived, unparsed."""

    def __init__(self) -> None:
        self.entries: list[tuple[bytes, bytes, bytes, float]] = []

    def add(self, path: bytes, head: bytes, body: bytes) -> None:
        at = body.find(_TIMESTAMP) + len(_TIMESTAMP)
        self.entries.append((path, _header(head, _ID), body[at : body.find(b'"', at)], time.time()))

    def as_json(self) -> bytes:
        return json.dumps(
            [
                [path.decode(), id_.decode(), datetime.fromisoformat(changed.decode()).timestamp(), arrived_s]
                for path, id_, changed, arrived_s in self.entries
            ]
        ).encode()


class Connection(asyncio.Protocol):
    """One keep-alive connection. Supports the HTTP of its clients only: whole heads, Content-Length."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer = buffer = self._buffer + data if self._buffer else data
        while (head_end := buffer.find(_HEAD_END)) >= 0:
            head, start = buffer[:head_end], head_end + len(_HEAD_END)
            end = start + int(_header(head, _LENGTH) or 0)
            if len(buffer) < end:
                break
            self._handle(head, buffer[start:end])
            self._buffer = buffer = buffer[end:]

    def _handle(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        if method == b"POST":
            self._journal.add(path, head, body)
            if not path.endswith(b"/silent"):
                self._write(_ANSWER)
        elif method == b"DELETE":
            self._journal.entries.clear()
            self._write(_ANSWER)
        elif path == b"/journal":
            self._write(_ok(self._journal.as_json()))
        else:
            self._write(_ok(b"%d" % len(self._journal.entries)))

    def _write(self, answer: bytes) -> None:
        assert self._transport is not None
        self._transport.write(answer)


def _header(head: bytes, name: bytes) -> bytes:
    """Return the value of a header, whatever the case of its name is."""
    at = head.lower().find(b"\r\n" + name)
    if at < 0:
        return b""
    start = at + len(name) + 2
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


def _ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def count(url: str) -> int:
    """Return the number of requests that the receiver at `url` has in its journal."""
    return int(_fetch(f"{url}/count"))


def arrivals(url: str) -> list[Arrival]:
    """Return the journal of the receiver at `url`."""
    return [Arrival(*entry) for entry in json.loads(_fetch(f"{url}/journal"))]


def clear(url: str) -> None:
    """Begin a new journal."""
    _fetch(f"{url}/journal", method="DELETE")


def _fetch(url: str, *, method: str = "GET") -> bytes:
    with urlopen(Request(url, method=method), timeout=60) as answer:  # noqa: S310 - a process of ours, on loopback
        body: bytes = answer.read()
        return body


async def serve(port: int) -> None:
    """Serve until SIGTERM."""
    loop, journal, stop = asyncio.get_running_loop(), Journal(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: Connection(journal), "127.0.0.1", port, backlog=1024)
    await stop.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
