"""The fast path: a plain POST of a payment that arrives whole is answered without aiohttp's request machinery, which costs
more than all the rest. aiohttp handles every other request.

Guarantee: a client cannot tell the two paths apart. Every parser reads a plain request the same way (`plain_request`);
`PaymentCreation` is the one way to make a payment; a connection has one request at a time, whichever path answers it.
`OKANE_FAST_LANE=false` turns the fast path off (docs/decisions/011-a-fast-path-beside-aiohttp.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from okane.api import error_problems, middleware, request_body, request_ids
from okane.api.access import Access
from okane.api.answer import Answer
from okane.api.http.plain_request import PlainRequest
from okane.api.payment_creation import MODELS, RENDERERS, PaymentCreation, to_answer
from okane.api.problems import Problem
from okane.api.request_tracing import TRACEPARENT, trace_response
from okane.api_key import Scope
from okane.intake.accept import IntakeReceipt
from okane.logs import REQUEST_ID
from okane.metrics import OkaneMetrics
from okane.origin_guard import OriginGuard
from okane.store import NewPayment
from okane.tracing import RequestSpan, RequestTracer
from streams import Batcher

log = structlog.get_logger("okane.api")

_UNTRACED = contextlib.nullcontext()


class RequestConnection(Protocol):
    """The connection of a request that was taken."""

    def reply(self, answer: Answer, request_id: str) -> None:
        """Send the answer."""

    def hang_up(self) -> None:
        """Close the connection without an answer."""


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request for a payment that is not answered yet."""

    connection: RequestConnection
    path: str
    request_id: str
    since_s: float
    span: RequestSpan | None  # while tracing is on
    rate_limit_headers: Mapping[str, str] | None = None
    is_answered: bool = False


class FastPath:
    """Answers requests for payments: those that come while others are being answered, together. One per server."""

    def __init__(
        self,
        creation: PaymentCreation,
        metrics: OkaneMetrics,
        access: Access,
        *,
        guard: OriginGuard | None = None,
        tracer: RequestTracer | None = None,
    ) -> None:
        self._creation = creation
        self._access = access
        self._tracer = tracer
        # Tells whether a request with this `Host` may be answered here; None: any may.
        self.allows_host = None if guard is None else guard.allows_host
        self._admitting: set[asyncio.Task[None]] = set()
        self._seconds = functools.cache(
            lambda path, status: metrics.http_seconds.labels(path, "POST", str(status.value))
        )
        self._batcher: Batcher[tuple[PendingRequest, NewPayment]] = Batcher(self._answer)
        self._pending: dict[PendingRequest, None] = {}  # in the order in which they came
        self._timer: asyncio.TimerHandle | None = None

    def take(self, connection: RequestConnection, request: PlainRequest) -> None:
        """Answer a request in the end, as the middleware and the handler do on aiohttp's path.

        The client may go away meanwhile: that ends nothing.
        """
        request_id = request_ids.choose_id(request.fields.get("x-request-id"))
        span = None if self._tracer is None else self._span(self._tracer, request)
        pending = PendingRequest(connection, request.path, request_id, time.perf_counter(), span)
        try:
            caller = self._access.admit_cached(request.credentials, Scope.WRITE)
            new = None if caller is None else self._parse(request, account_id=caller.account_id)
        except Exception as error:  # answered when the connection has done with what it received
            asyncio.get_running_loop().call_soon(self._finish, pending, _refusal(error, request))
            return
        self._pending[pending] = None
        if self._timer is None:
            self._check_deadlines_in(middleware.REQUEST_TIMEOUT_S)
        if new is not None:
            self._batcher.add((pending, new))
            return
        admitting = asyncio.get_running_loop().create_task(self._admit(pending, request))
        self._admitting.add(admitting)
        admitting.add_done_callback(self._admitting.discard)

    async def _admit(self, pending: PendingRequest, request: PlainRequest) -> None:
        """Look up the caller, in Postgres or Redis; then the request joins the others."""
        try:
            caller = await self._access.admit(request.credentials, Scope.WRITE)
            pending.rate_limit_headers = caller.headers
            new = self._parse(request, account_id=caller.account_id)
        except Exception as error:
            self._finish(pending, _refusal(error, request))
        except BaseException:  # the server ends: there is no answer, and nothing may take its place
            self._give_up(pending)
            raise
        else:
            self._batcher.add((pending, new))

    def _parse(self, request: PlainRequest, *, account_id: str) -> NewPayment:
        return self._creation.parse(
            request.body, request.idempotency_keys, account_id=account_id, model=MODELS[request.path]
        )

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
            for pending in [*self._pending]:
                self._give_up(pending)
        if self._timer is not None:
            self._timer.cancel()

    async def _answer(self, batch: list[tuple[PendingRequest, NewPayment]]) -> None:
        waiting = [(pending, new) for pending, new in batch if not pending.is_answered]
        if not waiting:
            return
        try:
            with _UNTRACED if self._tracer is None else self._tracer.batch(_spans(waiting)):
                written = await self._creation.write([new for _, new in waiting])
                self._batcher.release()  # Postgres is free: the next batch leaves beside this one's wake-ups and answers
                receipts = await self._creation.wake(written)
            answers = [
                to_answer(receipt, RENDERERS[pending.path]) if isinstance(receipt, IntakeReceipt) else receipt
                for (pending, _), receipt in zip(waiting, receipts, strict=True)
            ]
        except Exception as error:
            answers = [error] * len(waiting)
        except BaseException:  # the server ends: there is no answer, and nothing may take its place
            for pending, _ in waiting:
                self._give_up(pending)
            raise
        for (pending, _), answer in zip(waiting, answers, strict=True):
            self._finish(pending, answer)

    def _finish(self, pending: PendingRequest, answer: Answer | BaseException) -> None:
        if pending.is_answered:
            return
        token = REQUEST_ID.set(pending.request_id)
        try:
            if isinstance(answer, BaseException):
                answer = error_problems.problem_for(answer).answer(instance=pending.path, request_id=pending.request_id)
            if pending.rate_limit_headers:
                answer = replace(answer, headers={**answer.headers, **pending.rate_limit_headers})
            if pending.span is None:
                self._reply(pending, answer)
            else:
                with pending.span as span:  # what is observed in the block belongs to the span
                    span.answered(answer.status.value)
                    answer = replace(answer, headers={**answer.headers, **trace_response(span.traceparent)})
                    self._reply(pending, answer)
            self._close(pending)
        except Exception:  # a bug ends this connection, and no other
            log.exception("request_failed")
            self._give_up(pending)
        finally:
            REQUEST_ID.reset(token)

    def _reply(self, pending: PendingRequest, answer: Answer) -> None:
        self._seconds(pending.path, answer.status).observe(time.perf_counter() - pending.since_s)
        pending.connection.reply(answer, pending.request_id)

    def _close(self, pending: PendingRequest) -> None:
        pending.is_answered = True
        self._pending.pop(pending, None)

    def _give_up(self, pending: PendingRequest) -> None:
        if pending.is_answered:
            return
        if pending.span is not None:
            pending.span.abandon()
        self._close(pending)
        pending.connection.hang_up()

    def _span(self, tracer: RequestTracer, request: PlainRequest) -> RequestSpan:
        traceparent = request.fields.get(TRACEPARENT)
        return tracer.request("POST", request.path, request.path, () if traceparent is None else (traceparent,))

    def _check_deadlines_in(self, delay_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._answer_the_late)

    def _answer_the_late(self) -> None:
        """Answer the requests whose time is over. One timer serves all: a timer for each would cost as much as parsing it."""
        self._timer = None
        now_s = time.perf_counter()
        late = []
        for pending in self._pending:
            left_s = pending.since_s + middleware.REQUEST_TIMEOUT_S - now_s
            if left_s > 0:
                self._check_deadlines_in(left_s)
                break
            late.append(pending)
        for pending in late:
            self._finish(pending, TimeoutError())


def _spans(waiting: list[tuple[PendingRequest, NewPayment]]) -> list[tuple[RequestSpan, NewPayment]]:
    return [(pending.span, new) for pending, new in waiting if pending.span is not None]


def _refusal(error: Exception, request: PlainRequest) -> Exception:
    """Return the error of a request that could not be parsed, as aiohttp's path has it."""
    if not isinstance(error, Problem):
        return error
    return request_body.name_form_type(error, request.fields.get("content-type"))
