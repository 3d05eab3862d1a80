"""The fast path: a plain POST of a payment that arrives whole is answered without aiohttp's request machinery, which costs
more than all the rest. aiohttp handles every other request.

Guarantee: a client cannot tell the two paths apart. Every parser reads a plain request the same way (`plain_request`);
`PaymentCreation` is the one way to make a payment; a connection has one request at a time, whichever path answers it.
`OKANE_FAST_LANE=false` turns the fast path off (docs/decisions/011-a-fast-path-beside-aiohttp.md).
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import structlog
from aiohttp import StreamReader

from okane.api import middleware, request_body, request_ids
from okane.api.access import Access
from okane.api.answer import Answer
from okane.api.http import plain_request
from okane.api.http.connection import ServerConnection
from okane.api.http.plain_request import PlainRequest
from okane.api.payment_creation import RENDERERS, PaymentCreation, to_answer
from okane.api.problems import Problem
from okane.api_key import Scope
from okane.intake.accept import Receipt
from okane.logs import REQUEST_ID
from okane.metrics import OkaneMetrics
from okane.origin_guard import OriginGuard
from okane.store import NewPayment
from okane.tracing import RequestSpan
from streams import Batcher

if TYPE_CHECKING:
    from okane.api.http.server import GuardedServer

log = structlog.get_logger("okane.api")


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request for a payment, until it is answered."""

    connection: FastConnection
    path: str
    request_id: str
    since_s: float
    rate_limit_headers: Mapping[str, str] | None = None  # headers about the caller's rate limit
    answered: bool = False
    span: RequestSpan | None = None  # of whoever traces


class FastPath:
    """Answers requests for payments: those that come while others are being answered, together. One per server."""

    def __init__(
        self, creation: PaymentCreation, metrics: OkaneMetrics, access: Access, guard: OriginGuard | None = None
    ) -> None:
        self._creation = creation
        self._access = access
        self._guard = guard
        self._admitting: set[asyncio.Task[None]] = set()
        self._seconds = functools.cache(
            lambda path, status: metrics.http_seconds.labels(path, "POST", str(status.value))
        )
        self._batcher: Batcher[tuple[PendingRequest, NewPayment]] = Batcher(self._answer)
        self._unanswered: dict[PendingRequest, None] = {}  # in the order in which they came
        self._watch: asyncio.TimerHandle | None = None

    def admits(self, request: PlainRequest) -> bool:
        """Tell whether a request may be answered here. The others are refused by the middleware."""
        return self._guard is None or self._guard.allows_host(request.fields["host"])

    def take(self, connection: FastConnection, request: PlainRequest) -> None:
        """See to it that a request is answered, as the middleware and the handler do in the other lane.

        The client may go away meanwhile: that ends nothing.
        """
        pending = self._pending(connection, request)
        credentials, keys = request.values("authorization"), request.values("idempotency-key")
        try:
            caller = self._access.known(credentials, Scope.WRITE)
            new = None if caller is None else self._creation.parse(request.body, keys, account_id=caller.account_id)
        except Exception as error:  # answered when the connection has done with what it received
            asyncio.get_running_loop().call_soon(self._finish, pending, _refusal(error, request))
            return
        self._unanswered[pending] = None
        if self._watch is None:
            self._look_again_in(middleware.REQUEST_TIMEOUT_S)
        if new is not None:
            self._batcher.add((pending, new))
            return
        admitting = asyncio.get_running_loop().create_task(self._admit(pending, request))
        self._admitting.add(admitting)
        admitting.add_done_callback(self._admitting.discard)

    async def _admit(self, pending: PendingRequest, request: PlainRequest) -> None:
        """Ask first who that is; then the request joins the others."""
        try:
            caller = await self._access.admit(request.values("authorization"), Scope.WRITE)
            pending.rate_limit_headers = caller.headers
            keys = request.values("idempotency-key")
            new = self._creation.parse(request.body, keys, account_id=caller.account_id)
        except Exception as error:
            self._finish(pending, _refusal(error, request))
        except BaseException:  # nobody will answer, nor may anything be answered in its place
            self._give_up(pending)
            raise
        else:
            self._batcher.add((pending, new))

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
            for pending in [*self._unanswered]:
                self._give_up(pending)
        if self._watch is not None:
            self._watch.cancel()

    async def _answer(self, batch: list[tuple[PendingRequest, NewPayment]]) -> None:
        waiting = [(pending, new) for pending, new in batch if not pending.answered]
        if not waiting:
            return
        try:
            written = await self._creation.write([new for _, new in waiting])
            self._batcher.release()  # Postgres is free: the next batch leaves beside the wake-ups and answers of this one
            receipts = await self._creation.wake(written)
            answers = [
                to_answer(receipt, RENDERERS[pending.path]) if isinstance(receipt, Receipt) else receipt
                for (pending, _), receipt in zip(waiting, receipts, strict=True)
            ]
        except Exception as error:
            answers = [error] * len(waiting)
        except BaseException:  # nobody will answer, nor may anything be answered in its place
            for pending, _ in waiting:
                self._give_up(pending)
            raise
        for (pending, _), answer in zip(waiting, answers, strict=True):
            self._finish(pending, answer)

    def _finish(self, pending: PendingRequest, answer: Answer | BaseException) -> None:
        if pending.answered:
            return
        token = REQUEST_ID.set(pending.request_id)
        try:
            if isinstance(answer, BaseException):
                answer = middleware.problem(answer).answer(instance=pending.path, request_id=pending.request_id)
            if pending.rate_limit_headers:
                answer = replace(answer, headers={**answer.headers, **pending.rate_limit_headers})
            self._reply(pending, answer)
            self._answered(pending)
        except Exception:  # a bug of ours ends this connection, and nobody else's
            log.exception("request_failed")
            self._give_up(pending)
        finally:
            REQUEST_ID.reset(token)

    def _pending(self, connection: FastConnection, request: PlainRequest) -> PendingRequest:
        request_id = request_ids.choose_id(request.fields.get("x-request-id"))
        return PendingRequest(connection, request.path, request_id, time.perf_counter())

    def _answered(self, pending: PendingRequest) -> None:
        pending.answered = True
        self._unanswered.pop(pending, None)

    def _reply(self, pending: PendingRequest, answer: Answer) -> None:
        self._seconds(pending.path, answer.status).observe(time.perf_counter() - pending.since_s)
        pending.connection.reply(answer, pending.request_id)

    def _give_up(self, pending: PendingRequest) -> None:
        if not pending.answered:
            self._answered(pending)
            pending.connection.hang_up()

    def _look_again_in(self, delay_s: float) -> None:
        self._watch = asyncio.get_running_loop().call_later(delay_s, self._answer_the_late)

    def _answer_the_late(self) -> None:
        """One timer for all deadlines: a timer for each would cost as much as reading the request."""
        self._watch = None
        now_s = time.perf_counter()
        late = []
        for pending in self._unanswered:
            left_s = pending.since_s + middleware.REQUEST_TIMEOUT_S - now_s
            if left_s > 0:
                self._look_again_in(left_s)
                break
            late.append(pending)
        for pending in late:
            self._finish(pending, TimeoutError())


def _refusal(error: Exception, request: PlainRequest) -> Exception:
    """The error of a request that was not understood, as the other lane has it."""
    return (
        request_body.name_form_type(error, request.fields.get("content-type")) if isinstance(error, Problem) else error
    )


class FastConnection(ServerConnection):
    """A connection with a fast lane beside the ordinary one.

    aiohttp's `start` waits for a request on a future. While the fast lane answers, this future is kept from aiohttp: what
    comes meanwhile is parsed and waits its turn, and no timer takes the connection for an idle one.
    """

    __slots__ = ("_between", "_early", "_fast_path", "_turn")

    def __init__(self, server: GuardedServer, fast_path: FastPath, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop=loop)
        self._fast_path = fast_path
        self._turn: asyncio.Future[None] | None = None
        self._between = True  # two requests: no byte of another one is in aiohttp's parser
        self._early: tuple[PlainRequest, bytes] | None = None

    def data_received(self, data: bytes) -> None:
        if not data:  # aiohttp's own way to go on with what its parser has
            super().data_received(data)
            return
        request = plain_request.parse_plain_request(data) if self._between else None
        if request is not None and not self._fast_path.admits(request):
            request = None
        if self._early is not None:
            self._no_longer_early()
        elif request is not None and self._may_answer():
            if self._waiter is not None:
                self._take(self._waiter, request)
                return
            if self._turn is None and self._current_request is None:
                # It comes before aiohttp waits for it: on a new connection, or right after an answer of aiohttp's. One turn
                # of the loop later it does. Else a busy loop would never let a client go that aiohttp has answered once.
                self._early = request, data
                self._loop.call_soon(self._look_again)
                return
        self._give_to_aiohttp(data)

    def close(self) -> None:
        if self._early is not None:  # it came before the end: aiohttp takes nothing after this
            self._no_longer_early()
        super().close()

    def _give_to_aiohttp(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        one = self._request_count == before + 1 and not self._upgraded
        self._between = self._between and one and _is_all_of(data, self._messages[-1][1])

    def _look_again(self) -> None:
        if self._early is None:
            return
        if self._waiter is not None and self._may_answer():
            (request, _), self._early = self._early, None
            self._take(self._waiter, request)
        else:
            self._no_longer_early()

    def _no_longer_early(self) -> None:
        (_, data), self._early = cast("tuple[PlainRequest, bytes]", self._early), None
        if self.transport is not None:
            self._give_to_aiohttp(data)

    def _may_answer(self) -> bool:
        """Whether a request has the connection to itself, and its client reads what it is sent."""
        done = self._waiter is not None and self._waiter.done()
        return not (done or self._messages or self._paused or self._broken or self.ending)

    def _take(self, turn: asyncio.Future[None], request: PlainRequest) -> None:
        self._request_count += 1
        self._head_since_s = None
        self._turn, self._waiter = turn, None
        self._fast_path.take(self, request)

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
        # One that is closing may be lost before aiohttp wakes up to go on, which then is what it cannot do.
        if self.ending or self.transport is None or self.transport.is_closing():
            self.force_close()
            return
        if self._messages:
            turn.set_result(None)
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)


def _is_all_of(data: bytes, payload: StreamReader) -> bool:
    """Whether these bytes are those of one request from the first to the last. `payload` is what was found of its body."""
    return payload.is_eof() and data.find(b"\r\n\r\n") + 4 + payload.total_bytes == len(data)
