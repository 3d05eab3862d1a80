"""One kept-alive HTTP/1.1 connection that carries one request at a time.

Guarantee: an answer that is late, broken, too long or unrequested ends the connection, so that no byte of it can be taken
for the answer to another request.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

from httptools import HttpParserError, HttpResponseParser

from streams.values import value

MAX_ANSWER_BYTES = 64 * 1024  # of a body, unless the call allows more
_UNREAD_LIMIT = 64
_ALWAYS_READ = frozenset({b"content-length", b"transfer-encoding", b"date", b"retry-after"})
BODY_GRACE_S = 2.0  # for the body after its head, where the head alone is the answer
MAX_FRAMING_BYTES = 32 * 1024  # around a body: heads, interim answers, sizes of chunks, trailers


@value
class HttpResponse:
    """An answer that is complete by its framing.

    `headers`: the first value of each header on the connection's allow-list, by its name in lower case.
    """

    status: int
    body: bytes
    retry_after: str | None
    date: str | None = None  # by the server's clock; only where there is a Retry-After
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class BrokenExchange:
    """An exchange without an answer: the server may or may not have executed the request.

    `stale`: a kept connection ended before the first byte of the answer. The server may have closed it between two
    requests, as it may at any time, without reading this one.
    """

    reason: str
    stale: bool = False


class HttpConnection(asyncio.Protocol):
    """The protocol of `create_connection`. The owner calls `exchange` for one request after the other."""

    __slots__ = (
        "_allowed",
        "_answer",
        "_body",
        "_coding",
        "_complete",
        "_date",
        "_due_s",
        "_exchanges",
        "_framed",
        "_head_counts",
        "_head_read",
        "_headers",
        "_keep",
        "_loop",
        "_max_body",
        "_on_lost",
        "_open",
        "_overdue",
        "_parser",
        "_poll",
        "_read",
        "_received",
        "_retry_after",
        "_status",
        "_timer",
        "_transport",
        "_unread",
        "idle_since_s",
        "lost",
    )

    def __init__(self, *, on_lost: Callable[[HttpConnection], None], headers: frozenset[bytes] = frozenset()) -> None:
        """`headers`: the names, in lower case, that an `HttpResponse` carries besides Retry-After and Date."""
        self._loop = asyncio.get_running_loop()
        self._allowed = headers
        self._read = _ALWAYS_READ | headers if headers else _ALWAYS_READ
        self._unread: set[bytes] = set()  # other names as the server writes them: most headers of most answers
        self._on_lost = on_lost
        self._parser = HttpResponseParser(self)
        self._poll = select.poll()
        self._transport: asyncio.Transport
        self._open = False  # another request may be sent
        self._answer: asyncio.Future[HttpResponse | BrokenExchange] | None = None  # to the request in flight
        self._exchanges = 0
        self._received = 0
        self._body = bytearray()
        self._max_body = MAX_ANSWER_BYTES
        self._complete = False
        self._head_counts = False
        self._coding: list[bytes] = []
        self._retry_after: str | None = None
        self._headers: dict[str, str] = {}
        self._date: bytes | None = None
        self._expect_head()
        self._overdue = BrokenExchange("")
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.idle_since_s = 0.0
        self.lost: asyncio.Future[None] = self._loop.create_future()

    @property
    def is_open(self) -> bool:
        """True while another request may be sent, as far as the event loop has noticed."""
        return self._open and not self._transport.is_closing()

    @property
    def is_kept(self) -> bool:
        """True if it has carried a request already."""
        return self._exchanges > 0

    def is_quiet(self) -> bool:
        """Return True while open and without unread input: no end of stream and no second answer.

        Polls the socket, because the kernel has input before the event loop reads it.
        """
        return self.is_open and not self._poll.poll(0)

    async def exchange(
        self,
        request: bytes,
        *,
        due_s: float,
        overdue: BrokenExchange,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        head_counts: bool = False,
    ) -> HttpResponse | BrokenExchange:
        """Write `request` once and return its answer, or `overdue` if there is none at `due_s`.

        A body of more than `max_answer_bytes` ends the connection. With `head_counts` an answer counts when its head has
        come: a body that is cut, too long, oddly encoded or slow ends the connection, and the answer has its beginning.
        """
        assert self._answer is None
        self._head_counts = head_counts
        self._max_body = max_answer_bytes
        self._exchanges += 1
        self._received = 0
        self._body = bytearray()
        self._complete = False
        self._expect_head()
        self._overdue = overdue
        self._watch(due_s)
        answer: asyncio.Future[HttpResponse | BrokenExchange] = self._loop.create_future()
        self._answer = answer
        self._transport.write(request)
        try:
            return await answer
        finally:
            if self._answer is not None:  # the caller was cancelled: the answer is still to come
                self.end(BrokenExchange("given up"))

    def end(self, outcome: HttpResponse | BrokenExchange) -> None:
        """Abort the connection. A request in flight gets `outcome`."""
        self._open = False
        self._transport.abort()
        self._finish(outcome)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._open = True

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.end(BrokenExchange("data without a request"))
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._cut(BrokenExchange(f"unreadable answer: {error.__context__ or error}"))
            return
        if len(self._body) > self._max_body:
            self._cut(BrokenExchange(f"HTTP {self._status} with more than {self._max_body // 1024} kB"))
        elif self._received - len(self._body) > MAX_FRAMING_BYTES:
            self._cut(BrokenExchange(f"an answer with more than {MAX_FRAMING_BYTES // 1024} kB around its body"))
        elif self._complete:
            self._open = self._keep
            self._finish(self._response())
        elif self._has_counting_head():  # a body that trickles must not hold the caller until its deadline
            self._watch(min(self._due_s, self._loop.time() + BODY_GRACE_S))

    def eof_received(self) -> None:
        self._open = False
        # An empty body without a length may have been cut off, and would turn a truncated 503 into "nothing moved". Any
        # other truncated body is not JSON, which decides nothing.
        if self._answer is not None and (self._has_counting_head() or (not self._framed and self._body.strip())):
            self._finish(self._response())

    def connection_lost(self, exc: Exception | None) -> None:
        self._open = False
        stale = self._exchanges > 1 and not self._received
        lost = BrokenExchange(f"connection lost: {exc or 'closed by the server'}"[:255], stale=stale)
        self._finish(self._response() if self._has_counting_head() else lost)
        if self._timer is not None:
            self._timer.cancel()
        self._on_lost(self)
        if not self.lost.done():
            self.lost.set_result(None)

    # Callbacks of the parser. An exception ends the answer as unreadable.

    def on_message_begin(self) -> None:
        if self._complete:
            raise HttpParserError("more than one")

    def on_header(self, name: bytes, value: bytes) -> None:
        if name in self._unread or self._head_read:  # trailers are ignored
            return
        written, name = name, name.lower()
        if name not in self._read:
            if len(self._unread) < _UNREAD_LIMIT:
                self._unread.add(written)
        elif name == b"content-length":
            self._framed = True
        elif name == b"transfer-encoding":
            self._coding.append(value)
        elif name == b"date":
            self._date = value
        elif name == b"retry-after" and self._retry_after is None:
            self._retry_after = value.decode("latin-1")
        elif name in self._allowed:  # not so for a second Retry-After
            self._headers.setdefault(name.decode("ascii"), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        parser = self._parser
        self._head_read = True
        self._status = status = parser.get_status_code()
        if status == 101:
            raise HttpParserError("it switches to another protocol")
        if self._coding:
            # With any other coding, two parsers may disagree about the end of the body.
            if [coding.lower() for coding in self._coding] != [b"chunked"] or parser.get_http_version() != "1.1":
                raise HttpParserError("its Transfer-Encoding is not chunked")
            self._framed = True
        # Some servers send a body with these all the same. Where the head is the answer, a 204 is the usual one, and a new
        # connection for each would cost five times as much; such a body ends the connection when it comes.
        bodiless = status in (204, 304)
        self._framed = self._framed or bodiless
        self._keep = parser.should_keep_alive() and (not bodiless or (status == 204 and self._head_counts))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if 100 <= self._status < 200:
            self._expect_head()
        else:
            self._complete = True

    def _watch(self, due_s: float) -> None:
        """Use one timer for many exchanges: setting and cancelling one for each costs as much as reading an answer."""
        self._due_s = due_s
        if self._timer is not None and self._timer.when() > due_s:  # the previous deadline was later
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(due_s, self._check)

    def _check(self) -> None:
        self._timer = None
        if self._answer is None:
            return
        if self._loop.time() < self._due_s:
            self._watch(self._due_s)
        else:
            self._cut(self._overdue)

    def _has_counting_head(self) -> bool:
        """Return True if the head of the final answer has come, and is all that the caller needs."""
        return self._head_counts and self._head_read and self._status >= 200

    def _cut(self, outcome: BrokenExchange) -> None:
        """End the connection within an answer, with `outcome` unless its head counts."""
        self.end(self._response() if self._has_counting_head() else outcome)

    def _expect_head(self) -> None:
        self._head_read = False
        self._status = 0
        self._framed = False  # the end of the body is known without the end of the connection
        self._keep = False
        self._coding = []
        self._retry_after = self._date = None
        if self._allowed:
            self._headers = {}  # a new one, because the previous belongs to an answer

    def _response(self) -> HttpResponse:
        date = self._date.decode("latin-1") if self._date is not None and self._retry_after is not None else None
        return HttpResponse(self._status, bytes(self._body), self._retry_after, date, self._headers)

    def _finish(self, outcome: HttpResponse | BrokenExchange) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(outcome)
