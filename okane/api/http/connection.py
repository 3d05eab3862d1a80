"""One client's connection: its deadlines, and the answer to bytes that are not a request.

Guarantee: a client that sends nothing, or sends too slowly, loses its connection. Bytes that cannot be read as HTTP are
answered in problem+json (or in the server's own form) and counted, and log nothing above debug.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.http import HttpProcessingError, RawRequestMessage

from okane.api.http import protocol_errors
from okane.api.http.aiohttp_internals import AiohttpConnection
from okane.api.http.connection_limits import ConnectionGate
from okane.api.problems import Problem, internal
from okane.time_slice import SLICE_S

log = structlog.get_logger("okane.api")

_SECOND_CHECK_S = 0.001  # at 0 the timer would run before the sockets are read
AT_ONCE_BYTES = 2 * 1024  # parsed without a check of the time: less than a millisecond in the worst case
LINGER_S = 2.0  # for so long the rest of a refused body is read and dropped, so that the answer arrives


class ServerConnection(AiohttpConnection):
    """One client's connection.

    A request that arrives whole, the common case, costs two comparisons: no timer is set or stopped for it.
    """

    __slots__ = (
        "_cancelled_when_lost",
        "_flush_timer",
        "_gate",
        "_head_bytes",
        "_head_since_s",
        "_head_timer",
        "_is_broken",
        "_parse_soon",
        "_socket",
        "_unparsed",
    )

    def __init__(self, server: web.Server, gate: ConnectionGate, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=cast("Any", None),
            keepalive_timeout=gate.limits.keep_alive_timeout_s,
            lingering_time=LINGER_S,
            max_line_size=protocol_errors.MAX_LINE_BYTES,
            max_field_size=protocol_errors.MAX_FIELD_BYTES,
            max_headers=protocol_errors.MAX_FIELDS,
            auto_decompress=False,  # no route takes a coded body, and a small one may unpack to a large one
        )
        self._gate = gate
        self._socket: asyncio.Transport | None = None  # until it is lost; aiohttp forgets its `transport` before that
        self._is_broken = False
        self._unparsed = b""
        self._parse_soon: asyncio.Handle | None = None
        self._cancelled_when_lost: asyncio.Future[None] | None = None
        self._head_since_s: float | None = None  # since when a head is awaited or incomplete
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._flush_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        socket = cast("asyncio.Transport", transport)
        if not self._gate.admit():
            self.closes_at_once = True  # its bytes are not parsed
            self._gate.count_refusal(protocol_errors.FULL)
            socket.write(self._gate.refusal_bytes(protocol_errors.FULL))
            socket.close()
            return
        self._socket = socket
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._socket is not None:
            self._socket = None
            self._gate.release()
        if self._cancelled_when_lost is not None:
            self._cancelled_when_lost.cancel()
        for timer in (self._head_timer, self._flush_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._unparsed and data:  # it was read before the transport was paused: its turn comes after the rest
            self._unparsed += data
        elif len(data) <= AT_ONCE_BYTES:
            self._parse(data)
        else:
            self._unparsed = data
            self._parse_for_a_slice()

    def _parse_for_a_slice(self) -> None:
        """Parse what was received, a slice of time at once: a body in chunks of a byte each, or many heads, take a tenth of a
        second to parse. Nothing more is read meanwhile; an ordinary body is parsed in one go."""
        self._parse_soon = None
        if self._socket is None:
            return
        unparsed, at, until_s = self._unparsed, 0, time.perf_counter() + SLICE_S
        while at < len(unparsed) and not (self._is_broken or self.is_reading_paused or self.is_buffer_paused):
            self._parse(unparsed[at : at + AT_ONCE_BYTES])
            at += AT_ONCE_BYTES
            if time.perf_counter() >= until_s:
                break
        self._unparsed = b"" if self._is_broken else unparsed[at:]
        if self._unparsed:
            self.pause_reading_now()
        if not (self.is_reading_paused or self.is_buffer_paused):
            self.resume_when_parsed()

    def resume_when_parsed(self) -> None:
        """Read from the socket again once everything that was received is parsed."""
        if not self._unparsed:
            self.resume_reading_now()
        elif self._parse_soon is None:
            self._parse_soon = self.loop.call_soon(self._parse_for_a_slice)

    def _parse(self, data: bytes) -> None:
        if self._is_broken:
            return
        super().data_received(data)
        if self.messages:
            self._head_since_s = None
            if not isinstance(self.messages[-1][0], RawRequestMessage):
                self._break_off()
        elif data and (self.waiter is not None or not self.request_count):  # else it belongs to a body
            self._count_head_bytes(len(data))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_flush_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        # A connection that is being closed keeps its deadline: nothing else bounds how long its buffer lives.
        if self._flush_timer is not None and not (
            self.closes_at_once or self._socket is None or self._socket.is_closing()
        ):
            self._flush_timer.cancel()
            self._flush_timer = None

    def force_close(self) -> None:
        super().force_close()
        self._start_flush_timer()

    async def start(self) -> None:
        await super().start()
        self._start_flush_timer()

    @contextlib.contextmanager
    def cancelling_when_lost(self, future: asyncio.Future[None]) -> Iterator[None]:
        """Cancel `future` if the client goes away inside the block. For the one request in hand."""
        self._cancelled_when_lost = future
        if self._socket is None:
            future.cancel()
        try:
            yield
        finally:
            self._cancelled_when_lost = None

    @property
    def is_ending(self) -> bool:
        """Tell whether no request is taken any more but those in hand."""
        return self.closes_after_answer or self.closes_at_once or self._gate.leaving.is_set()

    @property
    def is_new(self) -> bool:
        """Tell whether no request has come on it yet."""
        return not self.request_count and not self._is_broken

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer bytes that are not a request, and an exception that the application let pass."""
        if isinstance(exc, ConnectionError):
            raise exc  # the client went away in the middle of its request: no answer can reach it
        if isinstance(exc, HttpProcessingError):
            refusal = protocol_errors.problem_of(exc)
        else:
            refusal = internal()
            log.error("request_failed", exc_info=exc)
        if request.writer.output_size == 0:  # an answer that has been begun cannot be taken back
            self.refuse(refusal)
        raise ConnectionError("refused")

    def refuse(self, refusal: Problem) -> None:
        """Answer outside of any request, and close. The rest of what the client sends is read and dropped for a while: to
        close at once would reset the connection, and lose the answer on the way."""
        self._gate.count_refusal(refusal)
        self._is_broken = self.closes_at_once = True
        if self.waiter is not None:
            self.waiter.cancel()
        if self._socket is not None and not self._socket.is_closing():
            self._socket.write(self._gate.refusal_bytes(refusal))
            self._socket.write_eof()
            self._flush_timer = self._flush_timer or self.loop.call_later(LINGER_S, self._socket.abort)

    def _break_off(self) -> None:
        """Give up parsing: the next bytes cannot be understood. A request that waits for the rest of its body fails."""
        self._is_broken = True
        self.lingering_time_s = 0.0
        payloads = [payload for _, payload in self.messages]
        if self.current_request is not None:
            payloads.append(self.current_request.content)
        for payload in payloads:
            if not payload.is_eof():
                payload.set_exception(web.RequestPayloadError("broken chunked coding"))

    def _await_head(self) -> None:
        self._head_since_s = self.loop.time()
        self._head_bytes = 0
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._gate.limits.head_timeout_s, self._check_head)

    def _count_head_bytes(self, size: int) -> None:
        if self._head_since_s is None:
            self._await_head()
        self._head_bytes += size
        if self._head_bytes > protocol_errors.MAX_HEAD_BYTES:
            self.refuse(protocol_errors.HEAD_TOO_LARGE)

    def _check_head(self, is_second: bool = False) -> None:
        self._head_timer = None
        if self._head_since_s is None:
            return
        due_s = self._head_since_s + self._gate.limits.head_timeout_s
        if self.loop.time() < due_s:
            self._head_timer = self.loop.call_at(due_s, self._check_head)
        elif not is_second:
            # The event loop may have been the slow one. Timers run before sockets are read: check again after that.
            self._head_timer = self.loop.call_later(_SECOND_CHECK_S, self._check_head, True)
        elif self._head_bytes:
            self.refuse(protocol_errors.HEAD_TOO_SLOW)
        else:
            self.force_close()

    def _start_flush_timer(self) -> None:
        """Bound the time for which unread answers may keep a buffer, or a closed connection, alive."""
        if self._socket is not None and self._flush_timer is None and self._socket.get_write_buffer_size():
            self._flush_timer = self.loop.call_later(self._gate.limits.write_timeout_s, self._socket.abort)
