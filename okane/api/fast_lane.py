"""The fast lane: a plain request for a payment, all of it here, is answered without aiohttp's machinery around a request,
which costs more than all the rest. Everything else is aiohttp's.

Promise: no client can tell the lanes apart. There is one parser, aiohttp's, so that nobody can disagree with it about where a
request ends; one way to make a payment, `Creating`; and one request at a time on a connection, whoever answers it.
`OKANE_FAST_LANE=false` turns it off (docs/decisions/011-a-fast-lane-beside-aiohttp.md).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from aiohttp import HttpVersion11, StreamReader
from aiohttp.http import RawRequestMessage

from okane.api import middleware, request_ids
from okane.api.answers import JSON, Answer
from okane.api.connection import Connection
from okane.api.creating import MAX_BODY_BYTES, SPELLINGS, Creating
from okane.api.handlers import CURLS
from okane.deadline import Deadline
from okane.logs import REQUEST_ID
from okane.metrics import OkaneMetrics

if TYPE_CHECKING:
    from okane.api.serving import GuardedServer

_TYPES = frozenset({JSON, f"{JSON}; charset=utf-8", f"{JSON};charset=utf-8", CURLS})
_UNUSUAL = ("Expect", "Content-Encoding", "Transfer-Encoding")


@dataclass(slots=True)
class Asked:
    """A request for a payment, not yet looked into."""

    path: str
    body: bytes
    keys: Sequence[str]
    request_id: str
    since_s: float


class FastLane:
    """What is answered in the fast lane, and the answers under way. One per server."""

    def __init__(self, creating: Creating, metrics: OkaneMetrics) -> None:
        self._creating = creating
        self._seconds = metrics.http_seconds
        self._under_way: set[asyncio.Task[None]] = set()

    def takes(self, message: RawRequestMessage, payload: StreamReader) -> bool:
        """Whether a request is for the fast lane: plain, for a payment, and all of it here."""
        headers = message.headers
        return (
            message.path in SPELLINGS
            and message.method == "POST"
            and message.version == HttpVersion11
            and not (message.should_close or message.upgrade or message.chunked)
            and not any(name in headers for name in _UNUSUAL)
            and headers.get("Content-Type", JSON).lower() in _TYPES
            and payload.is_eof()
            and payload.total_bytes <= MAX_BODY_BYTES
        )

    def read(self, message: RawRequestMessage, payload: StreamReader) -> Asked:
        """What such a request asks for."""
        return Asked(
            path=message.path,
            body=payload.read_nowait(),
            keys=message.headers.getall("Idempotency-Key", ()),
            request_id=request_ids.chosen(message.headers.get("X-Request-Id")),
            since_s=time.perf_counter(),
        )

    async def answer(self, asked: Asked) -> Answer:
        """The answer to a request: what the middleware and the handler do of it in the other lane."""
        REQUEST_ID.set(asked.request_id)
        try:
            with Deadline(middleware.REQUEST_TIMEOUT_S):
                new = self._creating.read(asked.body, asked.keys)
                answer = await self._creating.answer(new, SPELLINGS[asked.path])
        except Exception as error:
            answer = middleware.problem(error).answer(instance=asked.path, request_id=asked.request_id)
        self._seconds.labels(asked.path, "POST", str(answer.status.value)).observe(time.perf_counter() - asked.since_s)
        return answer

    def start(self, answering: Coroutine[None, None, None]) -> None:
        """Let a connection answer a request. The client may go away meanwhile: that ends nothing."""
        task = asyncio.get_running_loop().create_task(answering)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def drain(self, timeout_s: float | None) -> None:
        """Wait for the answers that are under way, and give up on the rest."""
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=timeout_s)
            for task in late:
                task.cancel()


class FastConnection(Connection):
    """A connection with a fast lane beside the ordinary one.

    aiohttp's `start` waits for a request on a future. While the fast lane answers, this future is kept from aiohttp: what
    comes meanwhile is parsed and waits its turn, and no timer takes the connection for an idle one.
    """

    __slots__ = ("_lane", "_turn")

    def __init__(self, server: GuardedServer, lane: FastLane, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop=loop)
        self._lane = lane
        self._turn: asyncio.Future[None] | None = None

    def _parse(self, data: bytes) -> None:
        turn, self._waiter = self._waiter, None  # aiohttp is told of a request when it is clear that it is for it
        try:
            super()._parse(data)
        finally:
            self._waiter = turn
        if turn is None or turn.done() or not self._messages:
            return
        message, payload = self._messages[0]
        if isinstance(message, RawRequestMessage) and self._may_answer() and self._lane.takes(message, payload):
            self._take(turn)
            self._lane.start(self._answer(self._lane.read(message, payload)))
        else:
            turn.set_result(None)

    def _may_answer(self) -> bool:
        """Whether a request has the connection to itself, and its client reads what it is sent."""
        return len(self._messages) == 1 and not (self._paused or self.ending)

    def _take(self, turn: asyncio.Future[None]) -> None:
        assert self._parser is not None
        self._parser.message_consumed()
        self._messages.clear()
        self._head_since_s = None
        self._turn, self._waiter = turn, None

    async def _answer(self, asked: Asked) -> None:
        try:
            answer = await self._lane.answer(asked)
            if self.transport is not None and not self.transport.is_closing():  # else there is nobody to answer
                self.transport.write(answer.on_the_wire(request_id=asked.request_id, closing=self.ending))
        except BaseException:
            self._close = True  # nobody will answer, nor may anything be answered in its place
            raise
        finally:
            self._give_back()

    def _give_back(self) -> None:
        """Let aiohttp go on: with what came meanwhile, or waiting for it, as it does after an answer of its own."""
        turn, self._turn = cast("asyncio.Future[None]", self._turn), None
        self._waiter = turn
        if self.ending or self.transport is None:
            self.force_close()
            return
        if self._messages:
            turn.set_result(None)
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
