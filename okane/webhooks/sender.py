"""One request to an endpoint: signed, sent on a guarded and kept connection, and its answer as an outcome.

Guarantee: every outcome is returned, none raised. An answer counts when its head has come. Redirects are not followed, and
only a request whose kept connection closed before the first byte of an answer is sent again, once and at once. No request
begins without the caller's leave, which is asked for once there is a connection: waiting for that may take seconds.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal, Protocol

from okane import __version__
from okane.errors import SetupError
from okane.http.connection import BrokenExchange, HttpConnection, HttpResponse
from okane.http.guard import Guard
from okane.http.guarded_url import BadUrl, GuardedUrl
from okane.http.pool import ConnectionPool, NoConnection
from okane.providers.retry_after import retry_after
from okane.webhooks import keys, signing
from okane.webhooks.keys import KeyOwner, Masters
from okane.webhooks.signing import SigningKeys
from streams.values import value

CONNECT_TIMEOUT_S = 5.0
MAX_TEXT_BYTES = 1024  # of an answer's body, which the account sees
# A request is repeatable, and a closed connection is noticed before or repeated at once: so connections are kept for longer
# than servers promise (5 s of Node), which saves a handshake.
IDLE_LIMIT_S = 30.0
MAX_KEPT = 1_000  # open connections of a process, beyond which none is kept: each takes an open file

Outcome = Literal[
    "delivered", "status_3xx", "status_4xx", "status_410", "status_5xx", "timeout", "connect", "tls", "dns", "guard"
]

_SSL_NOISE = re.compile(r"\[[A-Z0-9_]+(?:: [A-Z0-9_]+)?\] | \(_ssl\.c:\d+\)")
_NUL = "\0"  # Postgres stores every other character


class Target(KeyOwner, Protocol):
    """The part of an endpoint that its requests depend on. `version` rises with every change of the others."""

    @property
    def account_id(self) -> str: ...
    @property
    def url(self) -> str | None: ...
    @property
    def version(self) -> int: ...
    @property
    def timeout_s(self) -> int: ...
    @property
    def max_in_flight(self) -> int: ...


@value
class Answer:
    """The end of one request. `retry_after` is in seconds, `text` the beginning of the body.

    `is_kept`: it went over a connection of an earlier request; `is_reconnected`: it was sent again on a new one.
    """

    outcome: Outcome
    status: int | None
    ms: int
    reason: str
    retry_after: float | None = None
    text: str = ""
    is_kept: bool = False
    is_reconnected: bool = False


NOT_BEGUN: Final = Answer("connect", None, 0, "the request did not begin")  # compared by identity: it is no attempt


def _always() -> bool:
    return True


class Sender:
    """The connections to one endpoint. Created on a running loop; closed by `aclose()`.

    A new version of the endpoint takes effect with the next request.
    """

    def __init__(self, guard: Guard, masters: Masters) -> None:
        self._guard = guard
        self._masters = masters
        self._loop = asyncio.get_running_loop()
        self._channel: _Channel | None = None
        self._is_closed = False
        self._idle_timer: asyncio.TimerHandle | None = None

    async def send(
        self, endpoint: Target, event_id: str, body: bytes, *, now: datetime, may_begin: Callable[[], bool] = _always
    ) -> Answer:
        """Send one event and return the outcome, at the latest after the endpoint's `timeout_s`.

        `may_begin` is called right before the first byte is written. If it returns False, or the sender was closed before,
        the outcome is NOT_BEGUN.
        """
        began_s = self._loop.time()
        if self._is_closed:
            return NOT_BEGUN
        if self._channel is None or self._channel.version != endpoint.version:
            stale = self._channel
            try:
                self._channel = _Channel(self._guard, self._masters, endpoint)
            except BadUrl as error:
                return Answer("guard", None, 0, f"the URL {error}")
            if stale is not None:
                await stale.retire()
        try:
            answer = await self._channel.send(event_id, body, now=now, began_s=began_s, may_begin=may_begin)
        except SetupError as error:  # this process cannot sign `v1a`: one that can may send it later
            return Answer("connect", None, 0, str(error))
        if self._guard.open_connections > MAX_KEPT:
            self._channel.drop_idle(all_of_them=True)
        elif self._idle_timer is None:
            self._idle_timer = self._loop.call_later(IDLE_LIMIT_S, self._drop_idle)
        return answer

    async def aclose(self) -> None:
        """Close every connection. Requests in flight end as `connect`; no other begins."""
        self._is_closed = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._channel is not None:
            await self._channel.aclose()

    def _drop_idle(self) -> None:
        """Close the connections of an endpoint that has no more events: thousands of them would use up open files."""
        self._idle_timer = None
        if self._channel is not None and self._channel.drop_idle():
            self._idle_timer = self._loop.call_later(IDLE_LIMIT_S, self._drop_idle)


class _Channel:
    """The requests to one version of an endpoint."""

    def __init__(self, guard: Guard, masters: Masters, endpoint: Target) -> None:
        """Raises BadUrl."""
        url = guard.parse(endpoint.url or "")
        self.version = endpoint.version
        self._loop = asyncio.get_running_loop()
        self._endpoint = endpoint
        self._masters = masters
        self._keys: SigningKeys | None = None
        self._keys_until: datetime | None = None
        self._head = _head(url)
        self._timeout = BrokenExchange(f"no answer within {endpoint.timeout_s} s")
        self._connect_timeout_s = min(CONNECT_TIMEOUT_S, endpoint.timeout_s)
        self._pool = ConnectionPool(
            host=url.host,
            port=url.port,
            tls=None,
            connections=endpoint.max_in_flight,
            idle_limit_s=IDLE_LIMIT_S,
            connector=lambda protocol: guard.connect(url, protocol, owner=endpoint.account_id),
        )
        self._in_flight = 0
        self._is_retired = False
        self._is_closed = False

    async def send(
        self, event_id: str, body: bytes, *, now: datetime, began_s: float, may_begin: Callable[[], bool]
    ) -> Answer:
        request = self._request(event_id, body, now)
        due_s = began_s + self._endpoint.timeout_s
        self._in_flight += 1
        try:
            outcome, is_kept = await self._exchange(request, due_s, may_begin)
            is_reconnected = isinstance(outcome, BrokenExchange) and outcome.stale
            if is_reconnected:
                outcome, is_kept = await self._exchange(request, due_s, may_begin, fresh=True)
        finally:
            self._in_flight -= 1
            if self._is_retired and not self._in_flight:
                await self._pool.aclose()
        if outcome is None:
            return NOT_BEGUN
        ms = round((self._loop.time() - began_s) * 1000)
        return self._answer(outcome, ms=ms, now=now, is_kept=is_kept, is_reconnected=is_reconnected)

    def drop_idle(self, *, all_of_them: bool = False) -> int:
        return self._pool.drop_idle(all_of_them=all_of_them)

    async def retire(self) -> None:
        """Close the connections once the requests in flight have ended."""
        self._is_retired = True
        if not self._in_flight:
            await self._pool.aclose()

    async def aclose(self) -> None:
        self._is_closed = True
        await self._pool.aclose()

    async def _exchange(
        self, request: bytes, due_s: float, may_begin: Callable[[], bool], *, fresh: bool = False
    ) -> tuple[HttpResponse | BrokenExchange | NoConnection | None, bool]:
        """Return None if the request may not begin. Nothing runs between that question and the first byte."""
        connect_due_s = min(self._loop.time() + self._connect_timeout_s, due_s)
        connection = await self._pool.take(due_s=connect_due_s, fresh=fresh)
        if isinstance(connection, NoConnection):
            return (None if self._is_closed else connection), False
        if self._is_closed or not may_begin():
            self._pool.give_back(connection)
            return None, False
        is_kept = connection.is_kept
        return await self._exchange_on(connection, request, due_s), is_kept

    async def _exchange_on(
        self, connection: HttpConnection, request: bytes, due_s: float
    ) -> HttpResponse | BrokenExchange:
        try:
            return await connection.exchange(request, due_s=due_s, overdue=self._timeout, head_counts=True)
        finally:
            self._pool.give_back(connection)

    def _request(self, event_id: str, body: bytes, now: datetime) -> bytes:
        if self._keys is None or (self._keys_until is not None and now >= self._keys_until):
            self._renew_keys(now)
            assert self._keys is not None
        at_s = int(now.timestamp())
        signature = signing.sign(self._keys.secrets, event_id, at_s, body, self._keys.private_keys)
        head = (
            f"{self._head}webhook-id: {event_id}\r\nwebhook-timestamp: {at_s}\r\n"
            f"webhook-signature: {signature}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode("ascii") + body

    def _renew_keys(self, now: datetime) -> None:
        until = self._endpoint.older_key_until
        self._keys = keys.signing_keys(self._masters, self._endpoint, now=now)
        self._keys_until = until if until is not None and now < until else None

    def _answer(
        self,
        outcome: HttpResponse | BrokenExchange | NoConnection,
        *,
        ms: int,
        now: datetime,
        is_kept: bool,
        is_reconnected: bool,
    ) -> Answer:
        if isinstance(outcome, NoConnection):
            reason = outcome.reason.removeprefix("no connection: ")
            if outcome.part == "timeout":
                reason = f"no connection within {self._connect_timeout_s:g} s"
            return Answer(outcome.part, None, ms, _SSL_NOISE.sub("", reason), is_reconnected=is_reconnected)
        if isinstance(outcome, BrokenExchange):
            part: Outcome = "timeout" if outcome is self._timeout else "connect"
            return Answer(part, None, ms, outcome.reason, is_kept=is_kept, is_reconnected=is_reconnected)
        wait = retry_after(outcome, now=now)
        return Answer(
            _outcome_of(outcome.status),
            outcome.status,
            ms,
            f"HTTP {outcome.status}",
            None if wait is None else wait.total_seconds(),
            outcome.body[:MAX_TEXT_BYTES].decode("utf-8", "replace").replace(_NUL, "\ufffd"),
            is_kept,
            is_reconnected,
        )


def _head(url: GuardedUrl) -> str:
    """Return the lines of the head that every request has."""
    return (
        f"POST {url.path} HTTP/1.1\r\nHost: {url.authority}\r\nUser-Agent: okane/{__version__}\r\nAccept: */*\r\n"
        "Accept-Encoding: identity\r\nContent-Type: application/json\r\n"
    )


def _outcome_of(status: int) -> Outcome:
    if 200 <= status < 300:
        return "delivered"
    if status == 410:
        return "status_410"
    if status < 400:
        return "status_3xx"
    return "status_4xx" if status < 500 else "status_5xx"
