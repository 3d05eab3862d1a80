"""Requests of the client: sent on kept connections, and repeated where that is safe.

Guarantee: a request is repeated only if that is safe, after the `Retry-After` of a refusal and a jittered pause.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp

from okane.client import arguments
from okane.client.errors import ClientError, NoAnswer, Refused, broken, refused
from okane.client.values import Document
from streams import RetryPolicy

T = TypeVar("T")

RETRIES = RetryPolicy(base=timedelta(seconds=0.2), cap=timedelta(seconds=5), max_attempts=None)
# Refused before anything was done.
_NOT_DONE = frozenset({"rate_limited", "overloaded", "too_many_connections", "too_many_tests"})


ETAG = "ETag"  # the name in a document under which its header is kept: no member of the API's has capitals


class Transport:
    """The way to one API, on connections that are kept."""

    def __init__(self, url: str, *, key: str | None, patience_s: float, timeout_s: float, retries: RetryPolicy) -> None:
        self._url = _base(url)
        self._key = None if key is None else _api_key(key)
        self._patience_s = arguments.seconds("patience_s", patience_s)
        self._timeout_s = arguments.seconds("timeout_s", timeout_s)
        self._retries = retries
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Open the connections. Must be called in the event loop that sends."""
        self._session = aiohttp.ClientSession(
            headers=None if self._key is None else {"Authorization": f"Bearer {self._key}"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        assert self._session is not None
        await self._session.close()

    async def pages(
        self, path: str, name: str, of: Callable[[Document], T], query: list[tuple[str, str]]
    ) -> AsyncIterator[T]:
        """Iterate over a list, reading each page when it is needed."""
        more: list[tuple[str, str]] = []
        while True:
            page = await self.send("GET", path, query=[*query, ("limit", "100"), *more])
            for one in page[name]:
                yield of(one)
            if not page["has_more"]:
                return
            more = [("after", page["after"])]

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Sequence[tuple[str, str]] = (),
        wait_s: int = 0,
        repeatable: bool = True,
    ) -> Document:
        """Send a request until it is answered; return the answer. Raises Refused, NoAnswer."""
        wait_s = arguments.wait_s(wait_s)
        ends_s = time.monotonic() + self._patience_s
        data = None if body is None else json.dumps(body).encode()
        for attempt in itertools.count(1):
            answer = await self._send_once(method, path, data, query, wait_s)
            if not isinstance(answer, ClientError):
                return answer
            pause_s = self._pause_s(answer, attempt, repeatable=repeatable)
            if pause_s is None or time.monotonic() + pause_s > ends_s:
                raise answer
            await asyncio.sleep(pause_s)
        raise AssertionError

    def _pause_s(self, error: ClientError, attempt: int, *, repeatable: bool) -> float | None:
        """Return the pause before the request is repeated, or None if it must not be."""
        match error:
            case Refused(retryable=False):
                return None
            case Refused(code=code) if not (repeatable or code in _NOT_DONE):
                return None
            case NoAnswer() if not repeatable:
                return None
        delay = self._retries.delay(attempt, roll=random.random())
        if delay is None:
            return None
        after_s = error.after_s if isinstance(error, Refused) and error.after_s is not None else 0
        return after_s + delay.total_seconds()

    async def _send_once(
        self, method: str, path: str, data: bytes | None, query: Sequence[tuple[str, str]], wait_s: int
    ) -> Document | ClientError:
        assert self._session is not None, "used outside of its context"
        headers = {"Content-Type": "application/json"} if data is not None else {}
        if wait_s:
            headers["Prefer"] = f"wait={wait_s}"
        timeout = aiohttp.ClientTimeout(total=self._timeout_s + wait_s)
        try:
            async with self._session.request(
                method,
                self._url + path,
                data=data,
                params=query,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as answer:
                document = _parsed(await answer.read())
                if document is not None and "ETag" in answer.headers:
                    document[ETAG] = answer.headers["ETag"]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return NoAnswer(f"{method} {path}", broken(error))
        if answer.status >= 300:
            after = answer.headers.get("Retry-After", "")
            return refused(answer.status, document or {}, after_s=int(after) if after.isdecimal() else None)
        if answer.status == 204:
            return {}
        return NoAnswer(f"{method} {path}", "an answer that is not the API's") if document is None else document


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _base(url: str) -> str:
    parts = urlsplit(arguments.typed("url", url, str))
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ValueError("url must look like https://host[:port][/path]")
    return url.rstrip("/")


def _api_key(key: str) -> str:
    if not re.fullmatch("[!-~]+", arguments.typed("key", key, str)):
        raise ValueError("key must be visible ASCII characters")
    return key
