"""The time for which a request holds the event loop, and a raw client beside the loop that sends one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from okane.app import process


@dataclass(slots=True)
class Hold:
    """The longest turn of the event loop so far, in seconds of its thread's CPU time: other processes do not count."""

    longest_s: float = 0.0


@contextlib.contextmanager
def watching_the_loop() -> Iterator[Hold]:
    """Measure every turn of the running loop inside the block."""
    hold, loop, since_s, watching = Hold(), asyncio.get_running_loop(), time.thread_time(), True

    def turn() -> None:
        nonlocal since_s
        now_s = time.thread_time()
        hold.longest_s = max(hold.longest_s, now_s - since_s)
        since_s = now_s
        if watching:
            loop.call_soon(turn)

    loop.call_soon(turn)
    try:
        yield hold
    finally:
        watching = False
        turn()


@contextlib.contextmanager
def garbage_as_in_the_api() -> Iterator[None]:
    """The collector as the processes set it, inside the block."""
    before = gc.get_threshold()
    process.tune_gc()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@dataclass(frozen=True, slots=True)
class Said:
    """An answer as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def send(url: str, method: str, target: str, body: bytes = b"", **headers: str) -> Said:
    """Send a request from another thread, so that none of the client's work is on the loop."""
    return await asyncio.to_thread(_send, url, method, target, body, headers)


def _send(url: str, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> Said:
    where = urlsplit(url)
    fields = {"Host": where.netloc, "Connection": "close", "Content-Length": str(len(body)), **headers}
    if "Transfer-Encoding" in headers:
        del fields["Content-Length"]
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)
        received = bytearray()
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(1 << 20):
                received += data
    head_text, _, said = bytes(received).partition(b"\r\n\r\n")
    line, *lines = head_text.decode("latin-1").split("\r\n")
    return Said(int(line.split()[1]), dict(one.split(": ", 1) for one in lines), said)
