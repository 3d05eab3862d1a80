"""A keep-alive connection that costs little: requests are bytes made before, of an answer the status is all that counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from okane.local.ports import LOOPBACK

_AMOUNTS = (440, 5_000, 20_000)  # one for each lane


class Connection(asyncio.Protocol):
    """Calls `on_answer(status)` for each answer, `on_lost` when the server has closed the connection."""

    def __init__(self, on_answer: Callable[[int], None], on_lost: Callable[[], None]) -> None:
        self._on_answer = on_answer
        self._on_lost = on_lost
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, port: int, on_answer: Callable[[int], None], on_lost: Callable[[], None]) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(on_answer, on_lost), LOOPBACK, port)
        return connection

    def send(self, request: bytes) -> None:
        """One request at a time: the next after `on_answer`."""
        assert self._transport is not None
        self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer = buffer = self._buffer + data if self._buffer else data
        head_end = buffer.find(b"\r\n\r\n")
        if head_end < 0 or len(buffer) < head_end + 4 + _content_length(buffer, head_end):
            return
        self._buffer = b""
        self._on_answer(int(buffer[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        self._on_lost()


def _content_length(buffer: bytes, head_end: int) -> int:
    head = buffer[:head_end].lower()
    at = head.find(b"content-length:")
    return 0 if at < 0 else int(head[at + 15 :].split(b"\r\n", 1)[0])


def charge(prefix: str, number: int) -> bytes:
    """A charge at a provider, under a key made of both."""
    key = b"%s-%09d" % (prefix.encode(), number)
    body = b'{"payment_id":"%s","amount":5000,"currency":"USD"}' % key
    head = b"POST /charges HTTP/1.1\r\nHost: 127.0.0.1\r\nIdempotency-Key: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (key, len(body)) + body


def post(prefix: str, number: int) -> bytes:
    """A new payment whose key is made of both; the lanes take turns."""
    amount = _AMOUNTS[number % len(_AMOUNTS)]
    body = b'{"amount":%d,"currency":"USD","idempotency_key":"%s-%09d"}' % (amount, prefix.encode(), number)
    head = (
        b"POST /v1/payments HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )
    return head % len(body) + body
