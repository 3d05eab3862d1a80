"""The HTTP side of the receiver. Each path is an endpoint, with a behaviour of its own.

POST /any/path                      a webhook: journalled, then answered as its path's behaviour says
PUT  /control                       {"/any/path": {"act": "refuse", "chance": 0.9}, "*": {...}}: `*` is for all others
GET  /control  GET /health

It is written on a protocol, not on a framework: a framework neither sends half a head nor tells when the sender hung up.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, cast, get_args

import httptools

from torture.receiver.journal import ReceiverJournal

Act = Literal["accept", "slow", "silent", "refuse", "limit", "hang_up", "redirect", "half_head", "half_body", "gone"]

ALL: Final = "*"
_LATENCY_S = (0.001, 0.02)
_SLOW_S = (0.2, 1.2)
_SILENT_S = 60.0  # longer than any sender waits
_STATUS: Final[Mapping[str, int]] = {"refuse": 500, "limit": 429, "redirect": 302, "gone": 410, "half_body": 200}
_HEADERS: Final[Mapping[str, str]] = {"limit": "Retry-After: 1\r\n", "redirect": "Location: /elsewhere\r\n"}


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The act of a path, and the chance of it for each request. The others are accepted."""

    act: Act = "accept"
    chance: float = 1.0


class Receiver:
    """The behaviours in force, and the journal."""

    def __init__(self, journal: ReceiverJournal, *, dice: random.Random) -> None:
        self.journal = journal
        self.behaviours: dict[str, Behaviour] = {}
        self.accepted = 0
        self._dice = dice

    def draw(self, path: str) -> tuple[Act, float]:
        """Return an act for a request, and the seconds before it."""
        behaviour = self.behaviours.get(path) or self.behaviours.get(ALL) or Behaviour()
        act: Act = behaviour.act if self._dice.random() < behaviour.chance else "accept"
        if act == "silent":
            return act, _SILENT_S
        return act, self._dice.uniform(*(_SLOW_S if act == "slow" else _LATENCY_S))

    def control(self, body: bytes) -> int:
        """Take other behaviours; return the status of the answer."""
        try:
            changes = {path: Behaviour(**about) for path, about in json.loads(body).items()}
        except (ValueError, TypeError, AttributeError):
            return 400
        if any(one.act not in get_args(Act) for one in changes.values()):
            return 400
        self.behaviours |= changes
        return 200

    def state(self) -> bytes:
        """Return the behaviours and the count of accepted requests, as JSON."""
        behaviours = {path: asdict(one) for path, one in self.behaviours.items()}
        return json.dumps({"behaviours": behaviours, "accepted": self.accepted}).encode()


class _Connection(asyncio.Protocol):
    """One connection: requests one after the other. The names of the `on_` methods are httptools'."""

    _transport: asyncio.Transport

    def __init__(self, receiver: Receiver, open_: set[_Connection]) -> None:
        self._receiver = receiver
        self._open = open_
        self._parser = httptools.HttpRequestParser(self)
        self._path = ""
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._began_s = 0.0
        self._number: str | None = None  # of the request in hand
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        self._began_s = self._began_s or time.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        self._open.discard(self)
        if self._answering is not None:
            self._answering.cancel()
        self._end(0)

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    def on_url(self, url: bytes) -> None:
        self._path += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        path, body, method = self._path, bytes(self._body), self._parser.get_method()
        if method == b"POST":
            self._number = self._receiver.journal.begin(
                path=path, headers=self._headers, body=body.decode("utf-8", "replace"), began_s=self._began_s
            )
            self._answering = asyncio.get_running_loop().create_task(self._answer(path))
        elif path == "/control" and method == b"PUT":
            self._send(self._receiver.control(body), self._receiver.state())
        else:
            self._send(200 if path in ("/control", "/health") else 404, self._receiver.state())
        self._path, self._headers, self._body, self._began_s = "", {}, bytearray(), 0.0

    async def _answer(self, path: str) -> None:
        act, after_s = self._receiver.draw(path)
        await asyncio.sleep(after_s)
        if self._transport.is_closing():
            return  # the sender hung up: `connection_lost` writes so
        if act in ("hang_up", "silent", "half_head"):
            self._end(0)
            if act == "half_head":
                self._transport.write(b"HTTP/1.1 200 O")
                self._transport.close()
            else:
                self._transport.abort()
            return
        status = _STATUS.get(act, 200)
        self._end(status)
        if act == "half_body":
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            self._transport.close()
        else:
            self._send(status, b"{}", _HEADERS.get(act, ""))

    def _send(self, status: int, body: bytes, headers: str = "") -> None:
        head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self._transport.write(head.encode() + body)

    def _end(self, status: int) -> None:
        if self._number is not None:
            self._receiver.journal.end(self._number, status=status, at_s=time.time())
            self._receiver.accepted += 200 <= status < 300
            self._number = None


async def serve(*, port: int, journal: Path, seed: int, stop: asyncio.Event) -> None:
    """Serve on the loopback address until `stop` is set."""
    receiver = Receiver(
        ReceiverJournal(journal, life=secrets.token_hex(4), born_s=time.time()), dice=random.Random(seed)
    )
    connections: set[_Connection] = set()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(receiver, connections), "127.0.0.1", port
    )
    try:
        await stop.wait()
    finally:
        server.close()
        for connection in list(connections):
            connection.abort()
        await server.wait_closed()
        await asyncio.sleep(0)  # until the connections have written their ends
        receiver.journal.close()
