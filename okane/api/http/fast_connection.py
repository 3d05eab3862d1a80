"""A client's connection whose plain requests for payments take the fast path; aiohttp answers the others."""

from __future__ import annotations

import asyncio
from typing import cast

from aiohttp import StreamReader, web

from okane.api.answer import Answer
from okane.api.http.connection import ServerConnection
from okane.api.http.connection_limits import ConnectionGate
from okane.api.http.fast_path import FastPath
from okane.api.http.plain_request import PlainRequest, parse_plain_request


class FastConnection(ServerConnection):
    """A connection with a fast path beside aiohttp's.

    aiohttp's task waits for a request on a future. While the fast path answers, this future is kept from aiohttp: bytes that
    come meanwhile are parsed and wait for their turn, and no timer takes the connection for an idle one.
    """

    __slots__ = ("_allows_host", "_early", "_fast_path", "_is_between_requests", "_turn")

    def __init__(
        self, server: web.Server, gate: ConnectionGate, fast_path: FastPath, *, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(server, gate, loop=loop)
        self._fast_path = fast_path
        self._allows_host = fast_path.allows_host
        self._turn: asyncio.Future[None] | None = None
        self._is_between_requests = True  # no byte of a request is in aiohttp's parser
        self._early: tuple[PlainRequest, bytes] | None = None

    def data_received(self, data: bytes) -> None:
        if not data:  # aiohttp's own way to go on with what its parser has
            super().data_received(data)
            return
        request = parse_plain_request(data) if self._is_between_requests else None
        if request is not None and self._allows_host is not None and not self._allows_host(request.fields["host"]):
            request = None  # the middleware refuses it
        if self._early is not None:
            self._give_early_to_aiohttp()
        elif request is not None and self._is_free():
            if self.waiter is not None:
                self._take(self.waiter, request)
                return
            if self._turn is None and self.current_request is None:
                # It comes before aiohttp waits for it: on a new connection, or right after an answer of aiohttp's. One turn
                # of the loop later it does. Else a busy loop would keep a client on aiohttp that aiohttp has answered once.
                self._early = request, data
                self.loop.call_soon(self._take_early)
                return
        self._give_to_aiohttp(data)

    def close(self) -> None:
        if self._early is not None:  # it came before the end: aiohttp takes nothing after this
            self._give_early_to_aiohttp()
        super().close()

    def _give_to_aiohttp(self, data: bytes) -> None:
        before = self.request_count
        super().data_received(data)
        is_one = self.request_count == before + 1 and not self.is_upgraded
        self._is_between_requests = self._is_between_requests and is_one and _is_all_of(data, self.messages[-1][1])

    def _take_early(self) -> None:
        if self._early is None:
            return
        if self.waiter is not None and self._is_free():
            (request, _), self._early = self._early, None
            self._take(self.waiter, request)
        else:
            self._give_early_to_aiohttp()

    def _give_early_to_aiohttp(self) -> None:
        (_, data), self._early = cast("tuple[PlainRequest, bytes]", self._early), None
        if self.transport is not None:
            self._give_to_aiohttp(data)

    def _is_free(self) -> bool:
        """Tell whether a request has the connection to itself, and the client reads its answers."""
        return not (
            self.messages
            or self.is_writing_paused
            or self._is_broken
            or self.closes_after_answer
            or self.closes_at_once
            or self._gate.leaving.is_set()
            or (self.waiter is not None and self.waiter.done())
        )

    def _take(self, turn: asyncio.Future[None], request: PlainRequest) -> None:
        self.request_count += 1
        self._head_since_s = None
        self._turn, self.waiter = turn, None
        self._fast_path.take(self, request)

    def reply(self, answer: Answer, request_id: str) -> None:
        """Answer the request that was taken."""
        if self.transport is not None and not self.transport.is_closing():  # else no answer can reach the client
            self.transport.write(answer.on_the_wire(request_id=request_id, closing=self.is_ending))
        self._give_turn_back()

    def hang_up(self) -> None:
        """Leave the request that was taken without an answer."""
        self.closes_after_answer = True
        self._give_turn_back()

    def _give_turn_back(self) -> None:
        """Let aiohttp go on: with what came meanwhile, or waiting for it, as it does after an answer of its own."""
        turn, self._turn = cast("asyncio.Future[None]", self._turn), None
        self.waiter = turn
        # One that is closing may be lost before aiohttp wakes up to go on, and then it cannot.
        if self.is_ending or self.transport is None or self.transport.is_closing():
            self.force_close()
            return
        if self.messages:
            turn.set_result(None)
        self.keepalive_until_s = self.loop.time() + self.keepalive_timeout_s
        if self.keepalive_timer is None:
            self.keepalive_timer = self.loop.call_at(self.keepalive_until_s, self.check_keepalive)


def _is_all_of(data: bytes, payload: StreamReader) -> bool:
    """Tell whether these bytes are one request from the first to the last. `payload` is its body, as it was parsed."""
    return payload.is_eof() and data.find(b"\r\n\r\n") + 4 + payload.total_bytes == len(data)
