"""The fast lane: a plain request for a payment, all of it here, is answered without aiohttp's machinery around a request,
which costs more than all the rest. Everything else is aiohttp's.

Promise: no client can tell the lanes apart. There is one parser, aiohttp's, so that nobody can disagree with it about where a
request ends; one way to make a payment, `Creating`; and one request at a time on a connection, whoever answers it.
`OKANE_FAST_LANE=false` turns it off (docs/decisions/011-a-fast-lane-beside-aiohttp.md).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import structlog
from aiohttp import HttpVersion11, StreamReader
from aiohttp.http import RawRequestMessage

from okane.api import middleware, request_ids
from okane.api.access import Access
from okane.api.answers import JSON, Answer
from okane.api.bodies import CURLS
from okane.api.connection import Connection
from okane.api.creating import MAX_BODY_BYTES, SPELLINGS, Creating
from okane.api_key import Scope
from okane.logs import REQUEST_ID
from okane.metrics import OkaneMetrics
from okane.store import NewPayment
from okane.tracing import RequestSpan
from streams import Batcher

if TYPE_CHECKING:
    from okane.api.serving import GuardedServer

log = structlog.get_logger("okane.api")

_TYPES = frozenset({JSON, f"{JSON}; charset=utf-8", f"{JSON};charset=utf-8", CURLS})
BATCHES_AT_A_TIME = 2  # one in Postgres, one in Redis
LOOK_S = 1.0  # between two looks for requests that are late
_UNUSUAL = ("Expect", "Content-Encoding", "Transfer-Encoding", "Prefer")


@dataclass(slots=True, eq=False)
class Asked:
    """A request for a payment, until it is answered."""

    connection: FastConnection
    path: str
    request_id: str
    since_s: float
    standing: Mapping[str, str] | None = None  # headers about the caller's rate limit
    answered: bool = False
    span: RequestSpan | None = None  # of whoever traces


class FastLane:
    """Answers requests for payments: those that come while others are being answered, together. One per server."""

    def __init__(self, creating: Creating, metrics: OkaneMetrics, access: Access) -> None:
        self._creating = creating
        self._access = access
        self._admitting: set[asyncio.Task[None]] = set()
        self._seconds = metrics.http_seconds
        self._batcher: Batcher[tuple[Asked, NewPayment]] = Batcher(self._answer, lanes=BATCHES_AT_A_TIME)
        self._unanswered: deque[Asked] = deque()  # and answered ones, until somebody looks
        self._watch: asyncio.TimerHandle | None = None

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

    def take(self, connection: FastConnection, message: RawRequestMessage, payload: StreamReader) -> None:
        """See to it that such a request is answered, as the middleware and the handler do in the other lane.

        The client may go away meanwhile: that ends nothing.
        """
        headers = message.headers
        asked = self._asked(connection, message)
        body, keys = payload.read_nowait(), headers.getall("Idempotency-Key", ())
        credentials = headers.getall("Authorization", ())
        try:
            caller = self._access.known(credentials, Scope.WRITE)
            new = None if caller is None else self._creating.read(body, keys, account_id=caller.account_id)
        except Exception as error:  # answered when the connection has done with what it received
            asyncio.get_running_loop().call_soon(self._finish, asked, error)
            return
        self._unanswered.append(asked)
        if self._watch is None:
            self._look_again_in(middleware.REQUEST_TIMEOUT_S)
        if new is not None:
            self._batcher.add((asked, new))
            return
        admitting = asyncio.get_running_loop().create_task(self._admit(asked, credentials, body, keys))
        self._admitting.add(admitting)
        admitting.add_done_callback(self._admitting.discard)

    async def _admit(self, asked: Asked, credentials: Sequence[str], body: bytes, keys: Sequence[str]) -> None:
        """Ask first who that is; then the request joins the others."""
        try:
            caller = await self._access.admit(credentials, Scope.WRITE)
            asked.standing = caller.headers
            new = self._creating.read(body, keys, account_id=caller.account_id)
        except Exception as error:
            self._finish(asked, error)
        except BaseException:  # nobody will answer, nor may anything be answered in its place
            self._give_up(asked)
            raise
        else:
            self._batcher.add((asked, new))

    async def drain(self, timeout_s: float | None) -> None:
        """Wait for the answers that are under way, and give up on the rest."""
        try:
            async with asyncio.timeout(timeout_s):
                if self._admitting:
                    await asyncio.wait(self._admitting)
                await self._batcher.idle()
        except TimeoutError:
            for admitting in self._admitting:
                admitting.cancel()
            await self._batcher.abandon()
            for asked in self._unanswered:
                self._give_up(asked)
        if self._watch is not None:
            self._watch.cancel()

    async def _answer(self, batch: list[tuple[Asked, NewPayment]]) -> None:
        waiting = [(asked, new) for asked, new in batch if not asked.answered]
        if not waiting:
            return
        try:
            answers = await self._creating.answer_many([(new, SPELLINGS[asked.path]) for asked, new in waiting])
        except Exception as error:
            answers = [error] * len(waiting)
        except BaseException:  # nobody will answer, nor may anything be answered in its place
            for asked, _ in waiting:
                self._give_up(asked)
            raise
        for (asked, _), answer in zip(waiting, answers, strict=True):
            self._finish(asked, answer)

    def _finish(self, asked: Asked, answer: Answer | BaseException) -> None:
        if asked.answered:
            return
        token = REQUEST_ID.set(asked.request_id)
        try:
            if isinstance(answer, BaseException):
                answer = middleware.problem(answer).answer(instance=asked.path, request_id=asked.request_id)
            if asked.standing:
                answer = replace(answer, headers={**answer.headers, **asked.standing})
            self._reply(asked, answer)
            asked.answered = True
        except Exception:  # a bug of ours ends this connection, and nobody else's
            log.exception("request_failed")
            self._give_up(asked)
        finally:
            REQUEST_ID.reset(token)

    def _asked(self, connection: FastConnection, message: RawRequestMessage) -> Asked:
        request_id = request_ids.chosen(message.headers.get("X-Request-Id"))
        return Asked(connection, message.path, request_id, time.perf_counter())

    def _reply(self, asked: Asked, answer: Answer) -> None:
        seconds = self._seconds.labels(asked.path, "POST", str(answer.status.value))
        seconds.observe(time.perf_counter() - asked.since_s)
        asked.connection.reply(answer, asked.request_id)

    def _give_up(self, asked: Asked) -> None:
        if not asked.answered:
            asked.answered = True
            asked.connection.hang_up()

    def _look_again_in(self, delay_s: float) -> None:
        self._watch = asyncio.get_running_loop().call_later(delay_s, self._answer_the_late)

    def _answer_the_late(self) -> None:
        """One timer for all deadlines: a timer for each would cost as much as reading the request."""
        self._watch = None
        now_s = time.perf_counter()
        while self._unanswered:
            asked = self._unanswered[0]
            left_s = asked.since_s + middleware.REQUEST_TIMEOUT_S - now_s
            if left_s > 0 and not asked.answered:
                self._look_again_in(min(left_s, LOOK_S))
                return
            self._unanswered.popleft()
            self._finish(asked, TimeoutError())


class FastConnection(Connection):
    """A connection with a fast lane beside the ordinary one.

    aiohttp's `start` waits for a request on a future. While the fast lane answers, this future is kept from aiohttp: what
    comes meanwhile is parsed and waits its turn, and no timer takes the connection for an idle one.
    """

    __slots__ = ("_early", "_lane", "_turn")

    def __init__(self, server: GuardedServer, lane: FastLane, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop=loop)
        self._lane = lane
        self._turn: asyncio.Future[None] | None = None
        self._early: tuple[Any, StreamReader] | None = None

    def _parse(self, data: bytes) -> None:
        self._no_longer_early()
        turn, self._waiter = self._waiter, None  # aiohttp is told of a request when it is clear that it is for it
        try:
            super()._parse(data)
        finally:
            self._waiter = turn
        if turn is not None:
            self._decide(turn)
        elif self._turn is None and self._current_request is None and self._is_one_request():
            # It comes before aiohttp waits for it: on a new connection, or right after an answer of aiohttp's. One turn of
            # the loop later it does. Else a busy loop would never let a client go that aiohttp has answered once.
            self._early = self._messages.popleft()
            self._head_since_s = None
            self._loop.call_soon(self._look_again)

    def _is_one_request(self) -> bool:
        return len(self._messages) == 1 and isinstance(self._messages[0][0], RawRequestMessage)

    def _look_again(self) -> None:
        if self._no_longer_early() and self._waiter is not None:
            self._decide(self._waiter)

    def _no_longer_early(self) -> bool:
        early, self._early = self._early, None
        if early is not None:
            self._messages.appendleft(early)
        return early is not None

    def _decide(self, turn: asyncio.Future[None]) -> None:
        if turn.done() or not self._messages:
            return
        message, payload = self._messages[0]
        if isinstance(message, RawRequestMessage) and self._may_answer() and self._lane.takes(message, payload):
            self._take(turn)
            self._lane.take(self, message, payload)
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

    def reply(self, answer: Answer, request_id: str) -> None:
        """Answer the request that was taken."""
        if self.transport is not None and not self.transport.is_closing():  # else there is nobody to answer
            self.transport.write(answer.on_the_wire(request_id=request_id, closing=self.ending))
        self._give_back()

    def hang_up(self) -> None:
        """Leave the request that was taken without an answer."""
        self._close = True
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
