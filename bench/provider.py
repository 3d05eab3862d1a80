"""A provider that costs little: the wire contract of `okane provider` in memory, approving everything.

Run as `python -m bench.provider --port N [--latency-ms MS]`. The mock provider of the product keeps a durable journal and
can misbehave; measured with it, a pipeline that is fast enough would show the mock's limit instead of its own. One key is
charged once here, too: `GET /summary` returns the number of charged keys and of calls.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from typing import cast

import uvloop

_HEAD_END = b"\r\n\r\n"
_NOT_FOUND = b'{"code":"charge_not_found","message":"no charge under this idempotency key"}'


class Till:
    """The charges by idempotency key."""

    def __init__(self) -> None:
        self.calls = 0
        self.charges: dict[bytes, bytes] = {}

    def charge(self, key: bytes, body: bytes) -> bytes:
        """The answer to a charge under `key`; a repeat is answered as the first time."""
        self.calls += 1
        reference = b"ch_%d" % (len(self.charges) + 1)
        if key not in self.charges:
            self.charges[key] = body
        else:
            reference = b"ch_repeated"
        return b'{"provider_ref":"%s","status":"captured"}' % reference

    def look_up(self, key: bytes) -> bytes | None:
        body = self.charges.get(key)
        if body is None:
            return None
        wanted = json.loads(body)
        found = {"provider_ref": "ch_looked_up", "status": "captured"}
        return json.dumps(found | {name: wanted[name] for name in ("amount", "currency")}).encode()

    def summary(self) -> bytes:
        return json.dumps({"charged": len(self.charges), "calls": self.calls}).encode()


class Connection(asyncio.Protocol):
    """One keep-alive connection. Supports the HTTP of its clients only: whole heads, Content-Length."""

    def __init__(self, till: Till, latency_s: float) -> None:
        self._till = till
        self._latency_s = latency_s
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer = buffer = self._buffer + data if self._buffer else data
        while (head_end := buffer.find(_HEAD_END)) >= 0:
            head, start = buffer[:head_end], head_end + len(_HEAD_END)
            end = start + _content_length(head)
            if len(buffer) < end:
                break
            self._handle(head, buffer[start:end])
            self._buffer = buffer = buffer[end:]

    def _handle(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        if method == b"POST":
            answer = _ok(self._till.charge(_header(head, b"idempotency-key"), body))
            if self._latency_s:
                asyncio.get_running_loop().call_later(self._latency_s, self._write, answer)
                return
        elif path.startswith(b"/charges/"):
            found = self._till.look_up(path.removeprefix(b"/charges/"))
            answer = _response(b"404 Not Found", _NOT_FOUND) if found is None else _ok(found)
        else:
            answer = _ok(self._till.summary())
        self._write(answer)

    def _write(self, answer: bytes) -> None:
        assert self._transport is not None
        self._transport.write(answer)


def _content_length(head: bytes) -> int:
    return int(_header(head, b"content-length") or 0)


def _header(head: bytes, name: bytes) -> bytes:
    at = head.lower().find(b"\r\n" + name + b":")
    if at < 0:
        return b""
    start = at + len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


def _ok(body: bytes) -> bytes:
    return _response(b"200 OK", body)


def _response(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


async def serve(port: int, latency_s: float) -> None:
    """Serve until SIGTERM."""
    loop, till, stop = asyncio.get_running_loop(), Till(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: Connection(till, latency_s), "127.0.0.1", port, backlog=1024)
    await stop.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.latency_ms / 1000))


if __name__ == "__main__":
    main()
