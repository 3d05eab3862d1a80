"""Reading a provider's list, page by page: a page that the provider could not send is asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from okane.http.connection import HttpResponse
from okane.providers.answer_text import json_object, printable
from okane.providers.base import Unavailable, Unknown
from okane.providers.exchange import HttpClient
from okane.providers.listing import ListingFailed
from okane.providers.retry_after import retry_after

MAX_PAGE_BYTES = 4 * 1024 * 1024
# Together about half a minute: longer than a restart, shorter than an outage that a human has to hear of.
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_LONGEST_PAUSE_S = 60.0
T = TypeVar("T")


class ListReader:
    """The GETs of one list."""

    def __init__(self, http: HttpClient, *, pauses_s: tuple[float, ...] = PAUSES_S) -> None:
        self._http = http
        self._pauses_s = pauses_s

    async def get(self, request: bytes) -> Mapping[str, object]:
        """Return the JSON object in the answer to a GET. Raises ListingFailed, after several tries where they can help."""
        for pause_s in (*self._pauses_s, None):
            answer = await self._http.call(request, repeatable=True, max_answer_bytes=MAX_PAGE_BYTES)
            if isinstance(answer, HttpResponse) and answer.status == 200:
                document = json_object(answer.body)
                if document is not None:
                    return document
            reason, may_help, wait = _reason(answer)
            if not may_help or pause_s is None:
                raise ListingFailed(reason)
            await asyncio.sleep(pause_s if wait is None else min(wait.total_seconds(), _LONGEST_PAUSE_S))
        raise AssertionError("the last try returns or raises")


def _reason(answer: HttpResponse | Unavailable | Unknown) -> tuple[str, bool, timedelta | None]:
    """Return why an answer is no page, whether another try may help, and the wait that the provider asks for."""
    if not isinstance(answer, HttpResponse):
        return f"its list cannot be read: {answer.reason}", True, None
    if answer.status == 200:
        return "its list is not JSON", True, None
    may_help = answer.status in (408, 429) or answer.status >= 500
    return f"its list cannot be read: HTTP {answer.status}", may_help, retry_after(answer, now=datetime.now(UTC))


def needed(record: Mapping[str, object], name: str, kind: type[T]) -> T:
    """Return a member of a record. Raises ListingFailed if it is not of this type; True is no int."""
    found = record.get(name)
    if type(found) is not kind:
        raise ListingFailed(f"a record has no usable {name}: {printable(found)}")
    return found
