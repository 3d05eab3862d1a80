"""The client: one method per route.

Guarantee: a request is repeated only if that is safe, with the same idempotency key, after the `Retry-After` of a refusal and
a jittered pause; a payment is created once, however many answers get lost.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, TypeVar, Unpack
from urllib.parse import urlsplit
from uuid import UUID

import aiohttp

from okane.client import arguments
from okane.client.errors import ClientError, NoAnswer, Refused, broken, refused
from okane.client.values import Attempt, Currency, DeadLetter, Document, Event, Payment, Receipt, Replayed
from okane.payment import Status
from streams import RetryPolicy

T = TypeVar("T")

RETRIES = RetryPolicy(base=timedelta(seconds=0.2), cap=timedelta(seconds=5), max_attempts=None)
LONGEST_WAIT_S = 30  # the API caps a wait at this
_NOT_DONE = frozenset({"rate_limited", "overloaded", "too_many_connections"})  # refused before anything was done


class Filter(TypedDict, total=False):
    """The payments to list, and their order: newest first unless it is `ascending`."""

    order: Literal["ascending", "descending"]
    status: Iterable[Status]
    currency: str
    provider: str
    created_after: datetime
    created_before: datetime
    updated_after: datetime
    updated_before: datetime
    amount_min: int
    amount_max: int
    idempotency_key: str
    provider_ref: str
    metadata: Mapping[str, str]


class DeadFilter(TypedDict, total=False):
    """The dead letters to list, and their order: newest first unless it is `ascending`."""

    order: Literal["ascending", "descending"]
    status: Iterable[Status]
    currency: str
    lane: str
    dead_after: datetime
    dead_before: datetime


_MOMENTS = ("created_after", "created_before", "updated_after", "updated_before", "dead_after", "dead_before")
_TEXTS = ("provider", "provider_ref", "lane")
_KINDS: Mapping[str, Callable[[Any], Any]] = {
    "order": arguments.order,
    "status": arguments.statuses,
    "currency": arguments.currency,
    **{name: partial(arguments.text, name) for name in _TEXTS},
    **{name: partial(arguments.moment, name) for name in _MOMENTS},
    **{name: partial(arguments.amount, name) for name in ("amount_min", "amount_max")},
    "idempotency_key": arguments.idempotency_key,
    "metadata": arguments.metadata,
}
_OF_PAYMENTS = {name: _KINDS[name] for name in Filter.__annotations__}
_OF_DEAD_LETTERS = {name: _KINDS[name] for name in DeadFilter.__annotations__}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPayment:
    """A payment to create. `amount` is in minor units; no other payment has its idempotency key.

    Raises TypeError or ValueError for a value that JSON would change: an amount that is not an int, a time without a zone.
    """

    amount: int
    idempotency_key: str
    currency: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    execute_at: datetime | None = None
    expires_at: datetime | None = None
    payment_method: str | None = None
    return_url: str | None = None
    provider: str | None = None

    def __post_init__(self) -> None:
        arguments.amount("amount", self.amount)
        arguments.idempotency_key(self.idempotency_key)
        if self.currency is not None:
            arguments.currency(self.currency)
        # A copy: the caller cannot change it any more.
        object.__setattr__(self, "metadata", arguments.metadata(self.metadata))
        for name, value in self._times.items():
            arguments.moment(name, value)
        for name, text in self._texts.items():
            arguments.text(name, text)

    @property
    def _texts(self) -> Mapping[str, str]:
        texts = {"payment_method": self.payment_method, "return_url": self.return_url, "provider": self.provider}
        return {name: text for name, text in texts.items() if text is not None}

    @property
    def _times(self) -> Mapping[str, datetime]:
        times = {"execute_at": self.execute_at, "expires_at": self.expires_at}
        return {name: value for name, value in times.items() if value is not None}

    def document(self) -> Document:
        """Return the JSON document, without the members that are not set."""
        return {
            "amount": self.amount,
            "idempotency_key": self.idempotency_key,
            **({} if self.currency is None else {"currency": self.currency}),
            "metadata": self.metadata,
            **{name: arguments.moment(name, value) for name, value in self._times.items()},
            **self._texts,
        }


class Client:
    """Sends requests to one API, on connections that it keeps. An asynchronous context manager.

    `patience_s` bounds the time for which a request is repeated, `timeout_s` the wait for each answer.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        patience_s: float = 60.0,
        timeout_s: float = 15.0,
        retries: RetryPolicy = RETRIES,
    ) -> None:
        self._url = _base(url)
        self._key = None if key is None else _api_key(key)
        self._patience_s = arguments.seconds("patience_s", patience_s)
        self._timeout_s = arguments.seconds("timeout_s", timeout_s)
        self._retries = retries
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=None if self._key is None else {"Authorization": f"Bearer {self._key}"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def pay(self, new: NewPayment, *, wait_s: int = 0) -> Receipt:
        """Create a payment, or find the one of an earlier request; return it at rest, or after `wait_s` as it is.

        The wait also ends when the customer has to act: the payment is `requires_action` then, and has a `next_action`.
        """
        document = arguments.typed("new", new, NewPayment).document()
        return Receipt.of(await self._send("POST", "/v1/payments", body=document, wait_s=wait_s))

    async def pay_many(self, news: Sequence[NewPayment]) -> Sequence[Receipt | Refused]:
        """Create up to 1,000 payments; return a receipt or a refusal for each, in order."""
        body = [arguments.typed("new", new, NewPayment).document() for new in arguments.several("news", news)]
        document = await self._send("POST", "/v1/payments/batch", body=body)
        return [
            refused(one["status"], one["problem"]) if "problem" in one else Receipt.of(one)
            for one in document["results"]
        ]

    async def payment(self, payment_id: UUID | str, *, wait_s: int = 0) -> Payment:
        """Return the payment once it has come to rest, after `wait_s` at the latest. If it is not `requires_action` yet,
        that ends the wait too."""
        return Payment.of((await self._send("GET", _path(payment_id), wait_s=wait_s))["payment"])

    async def at_rest(self, payment_id: UUID | str) -> Payment:
        """Return the payment once it has come to rest, however long that takes."""
        while True:
            payment = await self.payment(payment_id, wait_s=LONGEST_WAIT_S)
            if payment.status.is_at_rest:
                return payment

    async def cancel(self, payment_id: UUID | str) -> Payment:
        """Withdraw a payment before it is charged. Raises Conflict if it is too late, or its outcome is open."""
        return Payment.of((await self._send("POST", _path(payment_id, "/cancel")))["payment"])

    async def retry(self, payment_id: UUID | str) -> Receipt:
        """Retry a failed payment. Without an answer the request is not repeated: the payment may have failed again."""
        return Receipt.of(await self._send("POST", _path(payment_id, "/retry"), repeatable=False))

    async def resolve(
        self, payment_id: UUID | str, *, as_: Status | str, reason: str, provider_ref: str | None = None
    ) -> Payment:
        """Decide a payment that needs a review: `success` or `failed_final`. Raises Conflict from any other status."""
        body = {"as": arguments.decision(as_), "reason": arguments.text("reason", reason)}
        if provider_ref is not None:
            body["provider_ref"] = arguments.text("provider_ref", provider_ref)
        return Payment.of((await self._send("POST", _path(payment_id, "/resolve"), body=body))["payment"])

    def payments(self, **which: Unpack[Filter]) -> AsyncIterator[Payment]:
        """Iterate over payments, newest first unless `order="ascending"`. Pages are read as they are needed."""
        return self._pages("/v1/payments", "payments", Payment.of, arguments.query(which, _OF_PAYMENTS))

    def events(self, payment_id: UUID | str) -> AsyncIterator[Event]:
        """Iterate over the events of a payment, oldest first."""
        return self._pages(_path(payment_id, "/events"), "events", Event.of, [])

    def attempts(self, payment_id: UUID | str) -> AsyncIterator[Attempt]:
        """Iterate over the attempts of a payment, oldest first."""
        return self._pages(_path(payment_id, "/attempts"), "attempts", Attempt.of, [])

    def dead_letters(self, **which: Unpack[DeadFilter]) -> AsyncIterator[DeadLetter]:
        """Iterate over the payments that were given up, newest first unless `order="ascending"`."""
        query = arguments.query(which, _OF_DEAD_LETTERS)
        return self._pages("/v1/dead-letters", "dead_letters", DeadLetter.of, query)

    async def currencies(self) -> Sequence[Currency]:
        """Return the currencies of new payments, by code."""
        return [Currency.of(one) for one in (await self._send("GET", "/v1/currencies"))["currencies"]]

    async def replay(
        self, payment_ids: Sequence[UUID | str] | None = None, *, limit: int = 100, dry_run: bool = False
    ) -> Replayed:
        """Retry payments that were given up: these, or the oldest."""
        chosen = {} if payment_ids is None else {"payment_ids": list(map(str, arguments.payment_ids(payment_ids)))}
        body = {
            "filter": chosen,
            "limit": arguments.typed("limit", limit, int),
            "dry_run": arguments.typed("dry_run", dry_run, bool),
        }
        return Replayed.of(await self._send("POST", "/v1/dead-letters/replay", body=body))

    async def _pages(
        self, path: str, name: str, of: Callable[[Document], T], query: list[tuple[str, str]]
    ) -> AsyncIterator[T]:
        more: list[tuple[str, str]] = []
        while True:
            page = await self._send("GET", path, query=[*query, ("limit", "100"), *more])
            for one in page[name]:
                yield of(one)
            if not page["has_more"]:
                return
            more = [("after", page["after"])]

    async def _send(
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
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return NoAnswer(f"{method} {path}", broken(error))
        if answer.status >= 300:
            after = answer.headers.get("Retry-After", "")
            return refused(answer.status, document or {}, after_s=int(after) if after.isdecimal() else None)
        return NoAnswer(f"{method} {path}", "an answer that is not the API's") if document is None else document


def _parsed(body: bytes) -> Document | None:
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _path(payment_id: UUID | str, of_it: str = "") -> str:
    return f"/v1/payments/{arguments.payment_id(payment_id)}{of_it}"


def _base(url: str) -> str:
    parts = urlsplit(arguments.typed("url", url, str))
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ValueError("url must look like https://host[:port][/path]")
    return url.rstrip("/")


def _api_key(key: str) -> str:
    if not re.fullmatch("[!-~]+", arguments.typed("key", key, str)):
        raise ValueError("key must be visible ASCII characters")
    return key
