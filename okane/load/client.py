"""The HTTP client of `okane load`: one request, one Reply; an error on the way is a Reply with a `failure`.

Only this file imports aiohttp, so that a faster client is a change of this file.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

import aiohttp

from okane.client.errors import broken


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """`status` is 0 when no complete answer came; `failure` then names the kind. `body` is the JSON object, if any."""

    status: int = 0
    body: Mapping[str, object] | None = None
    failure: str = ""

    @property
    def error_kind(self) -> str:
        return self.failure or f"HTTP {self.status}"


class HttpClient:
    """An HTTP client with a connection for each request in flight. Create on a running loop, use as a context manager.

    It has no limit: aiohttp's pool does not serve waiters in order, and busy senders kept the polls waiting for as long as
    there were payments to send.
    """

    def __init__(self, *, timeout_s: float = 30.0, api_key: str | None = None) -> None:
        self._session = aiohttp.ClientSession(
            headers=None if api_key is None else {"Authorization": f"Bearer {api_key}"},
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, url: str) -> Reply:
        return await self._exchange("GET", url, None)

    async def post(self, url: str, body: Mapping[str, object]) -> Reply:
        return await self._exchange("POST", url, json.dumps(body).encode())

    async def delete(self, url: str) -> Reply:
        return await self._exchange("DELETE", url, None)

    async def post_form(self, url: str, fields: Mapping[str, str]) -> Reply:
        """Send a page's form, as a browser does; a redirect is not followed."""
        return await self._exchange("POST", url, urlencode(fields).encode(), "application/x-www-form-urlencoded")

    async def lines(self, url: str) -> AsyncIterator[bytes]:
        """Yield the lines of a long answer as they arrive. Raises OSError when it breaks or is not a 200."""
        try:
            async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=None, sock_read=30)) as answer:
                if answer.status != 200:
                    raise OSError(f"HTTP {answer.status}")
                rest = b""
                async for chunk in answer.content.iter_any():
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        yield line
        except (aiohttp.ClientError, TimeoutError) as error:
            raise OSError(broken(error)) from error

    async def _exchange(self, method: str, url: str, data: bytes | None, kind: str = "application/json") -> Reply:
        headers = {"Content-Type": kind} if data is not None else None
        try:
            async with self._session.request(method, url, data=data, headers=headers, allow_redirects=False) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Reply(failure=broken(error))
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        return Reply(status=answer.status, body=document if isinstance(document, dict) else None)
