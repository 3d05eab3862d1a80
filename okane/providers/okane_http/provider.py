"""The client of a payment provider with okane's own contract: `POST /charges`, `GET /charges/{key}`.

Guarantee: a charge is sent at most once, under one deadline, without retries, redirects, proxies or cookies. A failed call
is `Unavailable` only if no byte of its request can have been sent.
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring_ascii as quoted
from types import TracebackType
from typing import Self
from urllib.parse import quote

from yarl import URL

from okane.http.connection import BrokenExchange, HttpResponse
from okane.http.pool import ConnectionPool, NoConnection
from okane.payment import Payment
from okane.providers.base import ChargeResult, LookUpResult, Unavailable, Unknown
from okane.providers.okane_http.answer_parser import parse_charge_answer, parse_look_up_answer
from streams.failpoints import failpoint

BEFORE_ANSWER = failpoint("provider.before_answer", "the provider has been called, its answer not read", raises=OSError)
# The characters of a request head. A line end would begin another header, or another request.
_VISIBLE = re.compile(r"[!-~]+")


class OkaneHttpProvider:
    """A `Provider` over HTTP. Created on a running loop; closed by `aclose()` or as a context manager.

    `timeout` is the deadline of one call, from the wait for a connection to the last byte of the answer.
    `connect_timeout` is the part of it that may pass before the request is sent (free connection, DNS, TCP, TLS; half
    of the deadline by default): a failure within it is `Unavailable`. `connections` is the size of the pool; calls
    beyond it wait in their order. `more_header` returns more header lines for each call, with their line ends.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: timedelta,
        connect_timeout: timedelta | None = None,
        connections: int = 256,
        name: str = "http",
        more_header: Callable[[], str] | None = None,
    ) -> None:
        """Raises ValueError for a `base_url` that is not an absolute http(s) URL, or a connect_timeout >= timeout."""
        url = _url(base_url)
        authority = url.host_port_subcomponent or ""
        if not _VISIBLE.fullmatch(authority):
            raise ValueError(f"the provider's base URL has an invalid host: {authority!r}")
        connect = timeout / 2 if connect_timeout is None else connect_timeout
        if not timedelta(0) < connect < timeout:
            raise ValueError(f"connect_timeout ({connect}) must lie between 0 and timeout ({timeout})")
        self._name = name
        self._more_header = more_header
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout.total_seconds()
        self._connect_timeout_s = connect.total_seconds()
        self._overdue = BrokenExchange(f"no answer within {self._timeout_s:g} s")
        self._charges = url.raw_path.rstrip("/") + "/charges"
        self._common = _common_headers(url, authority)
        self._post = f"POST {self._charges} HTTP/1.1\r\n{self._common}Content-Type: application/json\r\n"
        self._pool = ConnectionPool(
            host=url.raw_host or "",
            port=url.port or 0,
            tls=_tls() if url.scheme == "https" else None,
            connections=connections,
        )

    @property
    def name(self) -> str:
        return self._name

    async def charge(self, payment: Payment) -> ChargeResult:
        """Send the charge once. No failure of the provider or the network raises.

        Raises ValueError for a key that does not fit into a header.
        """
        key = payment.provider_key
        if not _VISIBLE.fullmatch(key):
            raise ValueError(f"a provider key must be visible ASCII, not {key!r}")
        # By hand: json.dumps spends half of its time on the types of these values.
        body = f'{{"payment_id": "{payment.id}", "amount": {payment.amount_minor:d}, "currency": {quoted(payment.currency)}}}'
        more = "" if self._more_header is None else self._more_header()
        request = f"{self._post}Idempotency-Key: {key}\r\n{more}Content-Length: {len(body)}\r\n\r\n{body}"
        answer = await self._call(request.encode("ascii"), repeatable=False)
        return (
            parse_charge_answer(answer, payment, now=datetime.now(UTC)) if isinstance(answer, HttpResponse) else answer
        )

    async def look_up(self, payment: Payment) -> LookUpResult:
        """Look up the charge under the payment's key. No failure of the provider or the network raises."""
        more = "" if self._more_header is None else self._more_header()
        request = f"GET {self._charges}/{quote(payment.provider_key, safe='')} HTTP/1.1\r\n{self._common}{more}\r\n"
        answer = await self._call(request.encode("ascii"), repeatable=True)
        return (
            parse_look_up_answer(answer, payment, now=datetime.now(UTC)) if isinstance(answer, HttpResponse) else answer
        )

    async def aclose(self) -> None:
        """Close every connection. Calls still in flight end as `Unknown`."""
        await self._pool.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _call(self, request: bytes, *, repeatable: bool) -> HttpResponse | Unavailable | Unknown:
        due_s = self._loop.time() + self._timeout_s
        outcome = await self._exchange(request, due_s=due_s)
        if repeatable and isinstance(outcome, BrokenExchange) and outcome.stale:
            outcome = await self._exchange(request, due_s=due_s, fresh=True)
        if isinstance(outcome, NoConnection):
            return Unavailable(outcome.reason)
        if isinstance(outcome, BrokenExchange):
            return Unknown(outcome.reason)
        if BEFORE_ANSWER.armed and (failed := await self._hit_before_answer(due_s)) is not None:
            return failed
        return outcome

    async def _exchange(
        self, request: bytes, *, due_s: float, fresh: bool = False
    ) -> HttpResponse | BrokenExchange | NoConnection:
        connect_due_s = min(self._loop.time() + self._connect_timeout_s, due_s)
        connection = await self._pool.take(due_s=connect_due_s, fresh=fresh)
        if isinstance(connection, NoConnection):
            return connection
        try:
            return await connection.exchange(request, due_s=due_s, overdue=self._overdue)
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


def _url(base_url: str) -> URL:
    """Parse the base URL. The error of a bad one repeats its scheme and host only: the rest may hold a password."""
    shape = "the provider's base URL must look like https://host[:port][/path]"
    try:
        url = URL(base_url)
    except ValueError:
        raise ValueError(shape) from None
    if url.scheme not in ("http", "https") or not url.host or url.query_string or url.fragment:
        raise ValueError(f"{shape}; this one has the scheme {url.scheme!r} and the host {url.host!r}")
    return url


def _common_headers(url: URL, authority: str) -> str:
    """Return the headers of every request, each with its line end."""
    lines = [f"Host: {authority}", "Accept: application/json", "Accept-Encoding: identity", "User-Agent: okane"]
    if url.user is not None or url.password is not None:
        # Latin-1, as most servers read it (RFC 7617 leaves it open).
        pair = f"{url.user or ''}:{url.password or ''}".encode("latin-1")
        lines.append(f"Authorization: Basic {base64.b64encode(pair).decode()}")
    return "".join(f"{line}\r\n" for line in lines)


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
