"""The client of a payment provider that speaks our wire contract: `POST /charges`, `GET /charges/{key}`.

Promise: a charge is written to the wire at most once, under one deadline, without retries, redirects, proxies or
cookies; and a broken call is `Unavailable` only if no byte of its request can have been sent.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from okane.payment import Payment
from okane.providers.answers import Answer, charge_result, look_up_result
from okane.providers.base import ChargeResult, LookUpResult, Unavailable, Unknown
from streams.failpoints import failpoint

MAX_ANSWER_BYTES = 64 * 1024
BEFORE_ANSWER = failpoint("provider.before_answer", "the provider has been called, its answer not read", raises=OSError)
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "okane"}


class HttpProvider:
    """A `Provider` over HTTP. Create it on a running loop; close it with `aclose()` or as a context manager.

    `timeout` is the deadline of one call, from the wait for a connection to the last byte of the answer.
    `connect_timeout` is the part of it that may pass before the request is sent (free connection, DNS, TCP, TLS; half
    of the deadline by default): what fails within it is `Unavailable`. `connections` is the size of the pool; keep it
    at or above the calls in flight, because aiohttp does not hand out freed connections in the order of waiting.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: timedelta,
        connect_timeout: timedelta | None = None,
        connections: int = 256,
        name: str = "http",
    ) -> None:
        """Raises ValueError for a `base_url` that is not an absolute http(s) URL, or a connect_timeout >= timeout."""
        url = URL(base_url)
        if url.scheme not in ("http", "https") or not url.host or url.query_string or url.fragment:
            raise ValueError(f"the provider's base URL must look like https://host[:port][/path], not {base_url!r}")
        connect = timeout / 2 if connect_timeout is None else connect_timeout
        if not timedelta(0) < connect < timeout:
            raise ValueError(f"connect_timeout ({connect}) must lie between 0 and timeout ({timeout})")
        self._name = name
        self._charges = str(url).rstrip("/") + "/charges"
        self._timeout_s = timeout.total_seconds()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            # No `total`: a deadline of aiohttp's that strikes while it waits for a connection looks like one that
            # strikes after the request went out. `connect` is told apart (ConnectionTimeoutError), and ends first.
            timeout=aiohttp.ClientTimeout(total=None, connect=connect.total_seconds()),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers=_HEADERS,
        )

    @property
    def name(self) -> str:
        return self._name

    async def charge(self, payment: Payment) -> ChargeResult:
        """Ask for the payment's money, once. Never raises for what the provider or the network does."""
        body = {"payment_id": str(payment.id), "amount": payment.amount_minor, "currency": payment.currency}
        answer = await self._call(
            "POST",
            self._charges,
            headers={"Idempotency-Key": payment.provider_key, "Content-Type": "application/json"},
            data=json.dumps(body).encode(),
        )
        return charge_result(answer, payment, now=datetime.now(UTC)) if isinstance(answer, Answer) else answer

    async def look_up(self, payment: Payment) -> LookUpResult:
        """Ask what became of the payment's key. Never raises for what the provider or the network does."""
        answer = await self._call("GET", f"{self._charges}/{quote(payment.provider_key, safe='')}")
        return look_up_result(answer, payment, now=datetime.now(UTC)) if isinstance(answer, Answer) else answer

    async def aclose(self) -> None:
        """Close every connection. Calls still in flight end as `Unknown`."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _call(
        self, method: str, url: str, *, headers: dict[str, str] | None = None, data: bytes | None = None
    ) -> Answer | Unavailable | Unknown:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._exchange(method, url, headers=headers, data=data)
        except aiohttp.ConnectionTimeoutError:
            return Unavailable("no connection in time")
        except aiohttp.ClientConnectorError as error:  # DNS, refused, unreachable, TLS: the request was not written
            return Unavailable(f"no connection: {error}"[:255])
        except TimeoutError:
            return Unknown(f"no answer within {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            # Also a kept-alive connection that the server closed under us: it may have read the request first.
            return Unknown(f"connection lost: {str(error) or type(error).__name__}"[:255])

    async def _exchange(
        self, method: str, url: str, *, headers: dict[str, str] | None, data: bytes | None
    ) -> Answer | Unknown:
        # aiohttp repeats idempotent methods on a stale kept-alive connection by itself: right for the GET, and POST is
        # not among them (test_a_charge_is_never_sent_twice_on_a_dead_keep_alive_connection).
        async with self._session.request(
            method, URL(url, encoded=True), headers=headers, data=data, allow_redirects=False
        ) as response:
            if BEFORE_ANSWER.armed:
                await BEFORE_ANSWER.hit()
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    response.close()
                    return Unknown(f"HTTP {response.status} with more than {MAX_ANSWER_BYTES // 1024} kB")
            retry_after = response.headers.get("Retry-After")
            return Answer.read(status=response.status, body=bytes(body), retry_after=retry_after)
