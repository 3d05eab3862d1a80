"""One client's connection: how long it may dawdle, and what happens to bytes that are no request.

Promise: a client that does nothing, or does it too slowly, loses its connection; what cannot be read as HTTP is answered in
problem+json, counted, and leaves no line above debug in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import structlog
from aiohttp import web
from aiohttp.http import HttpProcessingError, RawRequestMessage

from okane.api import request_ids
from okane.api.http import protocol_errors
from okane.api.problems import Problem, internal
from okane.time_slice import SLICE_S

if TYPE_CHECKING:
    from okane.api.http.server import GuardedServer

log = structlog.get_logger("okane.api")

_AFTER_A_LOOK_S = 0.001  # at 0 it would come before the sockets
AT_ONCE_BYTES = 2 * 1024  # that are parsed without looking at the time: less than a millisecond in the worst case
LINGER_S = 2.0  # what is still coming of a body nobody reads is thrown away for so long, so that the answer arrives


class ServerConnection(web.RequestHandler):
    """One client's connection. Its own part is what to do with time, and with bytes that are no request.

    The common case, a request that arrives whole, costs two comparisons: no timer is set or stopped for it.
    """

    __slots__ = (
        "_broken",
        "_flush",
        "_head_bytes",
        "_head_since_s",
        "_losing",
        "_parse_soon",
        "_server",
        "_unread",
        "_watch",
        "_wire",
    )

    def __init__(self, server: GuardedServer, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=cast("Any", None),
            keepalive_timeout=server.limits.keep_alive_timeout_s,
            lingering_time=LINGER_S,
            max_line_size=protocol_errors.MAX_LINE_BYTES,
            max_field_size=protocol_errors.MAX_FIELD_BYTES,
            max_headers=protocol_errors.MAX_FIELDS,
            auto_decompress=False,  # no route takes a coded body, and a small one may unpack to a large one
        )
        self._server = server
        self._wire: asyncio.Transport | None = None  # until it is closed for good; `transport` is forgotten before that
        self._broken = False
        self._unread = b""  # what was received and is not parsed yet
        self._parse_soon: asyncio.Handle | None = None
        self._losing: asyncio.Future[None] | None = None  # what is cancelled when the client goes away
        self._head_since_s: float | None = None  # since when a head is awaited or incomplete
        self._head_bytes = 0
        self._watch: asyncio.TimerHandle | None = None
        self._flush: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        wire = cast("asyncio.Transport", transport)
        if not self._server.admit():
            self._force_close = True  # whatever it sends is not even looked at
            self._server.refused(protocol_errors.FULL)
            wire.write(protocol_errors.FULL.on_the_wire(request_id=request_ids.new_id()))
            wire.close()
            return
        self._wire = wire
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._wire is not None:
            self._wire = None
            self._server.release()
        if self._losing is not None:
            self._losing.cancel()
        for timer in (self._watch, self._flush):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._unread and data:  # it was read before the transport was paused: its turn comes after the rest
            self._unread += data
        elif len(data) <= AT_ONCE_BYTES:
            self._parse(data)
        else:
            self._unread = data
            self._parse_for_a_while()

    def _parse_for_a_while(self) -> None:
        """Parse what was received, some of it at a time: a body in chunks of a byte each, or many heads at once, take a tenth
        of a second to parse. Meanwhile nothing more is read; an ordinary body is parsed in one go."""
        self._parse_soon = None
        if self._wire is None:
            return
        unread, at, until_s = self._unread, 0, time.perf_counter() + SLICE_S
        while at < len(unread) and not (self._broken or self._reading_paused or self._buffer_paused):
            self._parse(unread[at : at + AT_ONCE_BYTES])
            at += AT_ONCE_BYTES
            if time.perf_counter() >= until_s:
                break
        self._unread = b"" if self._broken else unread[at:]
        if self._unread:
            self._pause_transport_reading()
        if not (self._reading_paused or self._buffer_paused):
            self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        if not self._unread:
            super()._resume_transport_reading()
        elif self._parse_soon is None:
            self._parse_soon = self._loop.call_soon(self._parse_for_a_while)

    def _parse(self, data: bytes) -> None:
        if self._broken:
            return
        super().data_received(data)
        if self._messages:
            self._head_since_s = None
            if not isinstance(self._messages[-1][0], RawRequestMessage):
                self._break()
        elif data and (self._waiter is not None or not self._request_count):  # else it belongs to a body
            self._more_of_a_head(len(data))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._flush_in_time()

    def resume_writing(self) -> None:
        super().resume_writing()
        # One that is being closed keeps its deadline: nothing would watch over the rest of its buffer.
        if self._flush is not None and not self._force_close and self._wire is not None and not self._wire.is_closing():
            self._flush.cancel()
            self._flush = None

    def force_close(self) -> None:
        super().force_close()
        self._flush_in_time()

    async def start(self) -> None:
        await super().start()
        self._flush_in_time()

    @contextlib.contextmanager
    def losing(self, future: asyncio.Future[None]) -> Iterator[None]:
        """Inside the block, `future` is cancelled when the client goes away. For the request in hand: there is one."""
        self._losing = future
        if self._wire is None:
            future.cancel()
        try:
            yield
        finally:
            self._losing = None

    @property
    def ending(self) -> bool:
        """Whether no request is taken any more but those in hand."""
        return self._close or self._force_close or self._server.leaving

    @property
    def is_new(self) -> bool:
        """Tell whether no request has come on it yet."""
        return not self._request_count and not self._broken

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no request, and to what the application let fall."""
        if isinstance(exc, ConnectionError):
            raise exc  # the client went away in the middle of its request: there is nobody to answer
        refusal = protocol_errors.refusal(exc) if isinstance(exc, HttpProcessingError) else internal()
        if not isinstance(exc, HttpProcessingError):
            log.error("request_failed", exc_info=exc)
        if request.writer.output_size == 0:  # an answer that has been begun cannot be taken back
            self.refuse(refusal)
        raise ConnectionError("refused")

    def refuse(self, refusal: Problem) -> None:
        """Answer outside of any request, and hang up. What the client is still sending is thrown away for a while: to close
        at once would be to reset the connection, and the answer would be lost on the way."""
        self._server.refused(refusal)
        self._broken = self._force_close = True
        if self._waiter is not None:
            self._waiter.cancel()
        if self._wire is not None and not self._wire.is_closing():
            self._wire.write(refusal.on_the_wire(request_id=request_ids.new_id()))
            self._wire.write_eof()
            self._flush = self._flush or self._loop.call_later(LINGER_S, self._wire.abort)

    def _break(self) -> None:
        """What follows cannot be understood. A request whose body it would have been must not wait for the rest of it."""
        self._broken = True
        self._lingering_time = 0.0
        payloads = [payload for _, payload in self._messages]
        if self._current_request is not None:
            payloads.append(self._current_request.content)
        for payload in payloads:
            if not payload.is_eof():
                payload.set_exception(web.RequestPayloadError("broken chunked coding"))

    def _await_head(self) -> None:
        self._head_since_s = self._loop.time()
        self._head_bytes = 0
        if self._watch is None:
            self._watch = self._loop.call_later(self._server.limits.head_timeout_s, self._check_head)

    def _more_of_a_head(self, size: int) -> None:
        if self._head_since_s is None:
            self._await_head()
        self._head_bytes += size
        if self._head_bytes > protocol_errors.MAX_HEAD_BYTES:
            self.refuse(protocol_errors.HEAD_TOO_LARGE)

    def _check_head(self, late: bool = False) -> None:
        self._watch = None
        if self._head_since_s is None:
            return
        due_s = self._head_since_s + self._server.limits.head_timeout_s
        if self._loop.time() < due_s:
            self._watch = self._loop.call_at(due_s, self._check_head)
        elif not late:
            # The loop may have been the slow one. Timers come before what has arrived: look again after that.
            self._watch = self._loop.call_later(_AFTER_A_LOOK_S, self._check_head, True)
        elif self._head_bytes:
            self.refuse(protocol_errors.HEAD_TOO_SLOW)
        else:
            self.force_close()

    def _flush_in_time(self) -> None:
        """A client that does not read its answers keeps a full buffer, and a closed connection, alive: not for ever."""
        if self._wire is not None and self._flush is None and self._wire.get_write_buffer_size():
            self._flush = self._loop.call_later(self._server.limits.write_timeout_s, self._wire.abort)
