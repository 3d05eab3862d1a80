"""One HTTP exchange with a provider: the bytes of a request to its answer, or to the result of a call that has none.

Guarantee: a request is sent at most once, under one deadline, without retries, redirects, proxies or cookies; only a
request that changes nothing is repeated, once, on a connection that the server had closed. A failed call is `Unavailable`
only if no byte of its request can have been sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import Self

from okane.http.connection import MAX_ANSWER_BYTES, BrokenExchange, HttpResponse
from okane.http.pool import IDLE_LIMIT_S, ConnectionPool, NoConnection
from okane.http.tls import client_context
from okane.operation import Operation
from okane.payment import Payment
from okane.providers.base import Declined, LookUpResult, OperationLookUp, OperationResult, Traits, Unavailable, Unknown
from okane.providers.base_url import BaseUrl
from streams.failpoints import failpoint

BEFORE_ANSWER = failpoint("provider.before_answer", "the provider has been called, its answer not read", raises=OSError)


class HttpClient:
    """The connections to one provider. Created on a running loop; closed by `aclose()`.

    `timeout` is the deadline of one call, from the wait for a connection to the last byte of the answer.
    `connect_timeout` is the part of it that may pass before the request is sent (free connection, DNS, TCP, TLS; half
    of the deadline by default): a failure within it is `Unavailable`. `connections` is the size of the pool; calls
    beyond it wait in their order. `idle_limit_s` and `headers` are the pool's.
    """

    def __init__(
        self,
        base_url: BaseUrl,
        *,
        timeout: timedelta,
        connect_timeout: timedelta | None = None,
        connections: int = 256,
        idle_limit_s: float = IDLE_LIMIT_S,
        headers: Iterable[str] = (),
    ) -> None:
        """Raises ValueError for a connect_timeout >= timeout."""
        connect = timeout / 2 if connect_timeout is None else connect_timeout
        if not timedelta(0) < connect < timeout:
            raise ValueError(f"connect_timeout ({connect}) must lie between 0 and timeout ({timeout})")
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout.total_seconds()
        self._connect_timeout_s = connect.total_seconds()
        self._overdue = BrokenExchange(f"no answer within {self._timeout_s:g} s")
        self._pool = ConnectionPool(
            host=base_url.host,
            port=base_url.port,
            tls=client_context() if base_url.is_tls else None,
            connections=connections,
            idle_limit_s=idle_limit_s,
            headers=headers,
        )

    async def call(
        self,
        request: bytes,
        *,
        repeatable: bool,
        due_s: float | None = None,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> HttpResponse | Unavailable | Unknown:
        """Send the request and return its answer. No failure of the provider or the network raises.

        `repeatable`: the request changes nothing, so that it may be repeated on a fresh connection. `due_s` is a deadline
        of the loop's clock that several requests share, by default `timeout` from now.
        """
        if due_s is None:
            due_s = self._loop.time() + self._timeout_s
        outcome = await self._exchange(request, due_s, max_answer_bytes)
        if repeatable and isinstance(outcome, BrokenExchange) and outcome.stale:
            outcome = await self._exchange(request, due_s, max_answer_bytes, fresh=True)
        if isinstance(outcome, NoConnection):
            return Unavailable(outcome.reason)
        if isinstance(outcome, BrokenExchange):
            return Unknown(outcome.reason)
        if BEFORE_ANSWER.armed and (failed := await self._hit_before_answer(due_s)) is not None:
            return failed
        return outcome

    async def aclose(self) -> None:
        """Close every connection. Calls still in flight end as `Unknown`."""
        await self._pool.aclose()

    async def _exchange(
        self, request: bytes, due_s: float, max_answer_bytes: int, *, fresh: bool = False
    ) -> HttpResponse | BrokenExchange | NoConnection:
        connect_due_s = min(self._loop.time() + self._connect_timeout_s, due_s)
        connection = await self._pool.take(due_s=connect_due_s, fresh=fresh)
        if isinstance(connection, NoConnection):
            return connection
        try:
            return await connection.exchange(
                request, due_s=due_s, overdue=self._overdue, max_answer_bytes=max_answer_bytes
            )
        finally:
            self._pool.give_back(connection)

    async def _hit_before_answer(self, due_s: float) -> Unknown | None:
        try:
            async with asyncio.timeout_at(due_s):
                await BEFORE_ANSWER.hit()
        except TimeoutError:
            return Unknown(self._overdue.reason)
        except OSError as error:
            return Unknown(f"connection lost: {error}"[:255])
        return None


class HttpProvider:
    """The part of a `Provider` over HTTP that is the same for all: the subclass sets its name, traits and client.

    It declines operations, without a call: an adapter with capabilities has methods of its own for them.
    """

    _name: str
    _traits: Traits
    _http: HttpClient

    @property
    def name(self) -> str:
        return self._name

    @property
    def traits(self) -> Traits:
        return self._traits

    async def release(self, payment: Payment, declined: Declined) -> LookUpResult:
        return Unknown("declined charges cannot be closed here", at_once=True, is_neutral=True)

    async def operate(self, operation: Operation, payment: Payment) -> OperationResult:
        return _unsupported(operation)

    async def look_up_operation(self, operation: Operation, payment: Payment, *, may_execute: bool) -> OperationLookUp:
        return _unsupported(operation)

    async def aclose(self) -> None:
        """Close every connection. Calls still in flight end as `Unknown`."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _unsupported(operation: Operation) -> Declined:
    return Declined("unsupported_operation", f"{operation.provider} cannot execute this {operation.kind}")
