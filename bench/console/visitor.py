"""A browser at the console, as far as it costs the console anything: one connection, a session, gzip."""

from __future__ import annotations

import contextlib
import http.client
import re
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

from okane.local.ports import LOOPBACK

BASE = "/console"
_FILE = re.compile(r'(?:src|href)="([^"]+/static/[^"]+)"')


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: its body as it was sent, the bytes of its head, and the time from the request to the end of the body."""

    status: int
    body: bytes
    head_bytes: int
    etag: str
    zipped: bool
    took_ms: float

    @property
    def text(self) -> str:
        return (zlib.decompress(self.body, wbits=31) if self.zipped else self.body).decode()

    def files(self) -> list[str]:
        """Return the addresses of the files that the page needs, each once."""
        return sorted(set(_FILE.findall(self.text)))


class Visitor:
    """Sends one request at a time. `cookie` is the session's, empty before the log-in."""

    def __init__(self, port: int, cookie: str = "") -> None:
        self.cookie = cookie
        self._port = port
        self._connection = http.client.HTTPConnection(LOOPBACK, port, timeout=30)

    def log_in(self, secret: str) -> None:
        """Begin a session with an API key."""
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
        self._connection.request("POST", f"{BASE}/login", urlencode({"key": secret}), headers)
        answer = self._connection.getresponse()
        answer.read()
        cookies = answer.headers.get_all("Set-Cookie") or []
        if answer.status != http.client.SEE_OTHER or not cookies:
            raise RuntimeError(f"the console refused the log-in: HTTP {answer.status}")
        self.cookie = cookies[0].partition(";")[0]

    def get(self, path: str, etag: str = "") -> Answer:
        """Request an address of the console, or a path under its base. Raises RuntimeError for a status of 400 or more."""
        address = path if path.startswith(f"{BASE}/") else BASE + path
        headers = {"Accept-Encoding": "gzip", **({"Cookie": self.cookie} if self.cookie else {})}
        if etag:
            headers["If-None-Match"] = etag
        began_s = time.perf_counter()
        self._connection.request("GET", address, headers=headers)
        answer = self._connection.getresponse()
        body = answer.read()
        took_ms = (time.perf_counter() - began_s) * 1000
        if answer.status >= http.client.BAD_REQUEST:
            raise RuntimeError(f"{address}: HTTP {answer.status}")
        head = sum(len(name) + len(value) + 4 for name, value in answer.headers.items()) + len(
            "HTTP/1.1 200 OK\r\n\r\n"
        )
        zipped = answer.headers.get("Content-Encoding") == "gzip"
        return Answer(answer.status, body, head, answer.headers.get("ETag", ""), zipped, took_ms)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextlib.contextmanager
def visiting(port: int, secret: str) -> Iterator[Visitor]:
    """A visitor with a session inside the block."""
    visitor = Visitor(port)
    try:
        visitor.log_in(secret)
        yield visitor
    finally:
        visitor.close()
