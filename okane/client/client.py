"""The client: one method per route.

Guarantee: a request is repeated only if that is safe, with the same idempotency key, after the `Retry-After` of a refusal and
a jittered pause; a payment is created once, however many answers get lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, TypeVar, Unpack
from uuid import UUID

from okane.client import arguments
from okane.client.disputes import Disputes
from okane.client.errors import Refused, refused
from okane.client.payment_methods import PaymentMethods
from okane.client.refunds import Refunds
from okane.client.transport import ETAG, RETRIES, Transport
from okane.client.values import (
    Attempt,
    Currency,
    DeadLetter,
    Document,
    Event,
    Operation,
    OperationReceipt,
    Payment,
    Receipt,
    Replayed,
)
from okane.client.webhooks import Webhooks
from okane.payment import Status
from streams import RetryPolicy

T = TypeVar("T")

LONGEST_WAIT_S = 30  # the API caps a wait at this


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
    customer_present: bool | None = None
    capture_method: Literal["automatic", "manual"] | None = None

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
        if self.customer_present is not None:
            arguments.typed("customer_present", self.customer_present, bool)

    @property
    def _texts(self) -> Mapping[str, str]:
        texts = {
            "payment_method": self.payment_method,
            "return_url": self.return_url,
            "provider": self.provider,
            "capture_method": self.capture_method,
        }
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
            **({} if self.customer_present is None else {"customer_present": self.customer_present}),
        }


class Client:
    """Sends requests to one API, on connections that it keeps. An asynchronous context manager.

    `patience_s` bounds the time for which a request is repeated, `timeout_s` the wait for each answer. `webhooks` has the
    account's webhook endpoints, and its events; `payment_methods` its saved payment methods, `refunds` its refunds,
    `disputes` its disputes.
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
        self._transport = Transport(url, key=key, patience_s=patience_s, timeout_s=timeout_s, retries=retries)
        self.refunds = Refunds(self._transport)
        self.webhooks = Webhooks(self._transport)
        self.payment_methods = PaymentMethods(self._transport)
        self.disputes = Disputes(self._transport)

    async def __aenter__(self) -> Self:
        self._transport.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.aclose()

    async def pay(self, new: NewPayment, *, wait_s: int = 0) -> Receipt:
        """Create a payment, or find the one of an earlier request; return it at rest, or after `wait_s` as it is.

        The wait also ends when the customer has to act: the payment is `requires_action` then, and has a `next_action`; and
        when its money is held, `authorized`.
        """
        document = arguments.typed("new", new, NewPayment).document()
        return Receipt.of(await self._transport.send("POST", "/v1/payments", body=document, wait_s=wait_s))

    async def pay_many(self, news: Sequence[NewPayment]) -> Sequence[Receipt | Refused]:
        """Create up to 1,000 payments; return a receipt or a refusal for each, in order."""
        body = [arguments.typed("new", new, NewPayment).document() for new in arguments.several("news", news)]
        document = await self._transport.send("POST", "/v1/payments/batch", body=body)
        return [
            refused(one["status"], one["problem"]) if "problem" in one else Receipt.of(one)
            for one in document["results"]
        ]

    async def payment(self, payment_id: UUID | str, *, wait_s: int = 0) -> Payment:
        """Return the payment once it has come to rest, after `wait_s` at the latest. If it is not `requires_action` or
        `authorized` yet, that ends the wait too."""
        document = await self._transport.send("GET", _path(payment_id), wait_s=wait_s)
        return Payment.of(document["payment"], etag=document.get(ETAG, ""))

    async def at_rest(self, payment_id: UUID | str) -> Payment:
        """Return the payment once it has come to rest, however long that takes."""
        while True:
            payment = await self.payment(payment_id, wait_s=LONGEST_WAIT_S)
            if payment.status.is_at_rest:
                return payment

    async def cancel(self, payment_id: UUID | str) -> Payment:
        """Withdraw a payment before it is charged. Raises Conflict if it is too late, or its outcome is open.

        One that is `authorized` still is then: a void is under way, after which it is canceled. Raises OperationRefused if a
        capture is under way, or its provider has no voids.
        """
        return Payment.of((await self._transport.send("POST", _path(payment_id, "/cancel")))["payment"])

    async def capture(
        self,
        payment_id: UUID | str,
        *,
        idempotency_key: str,
        amount: int | None = None,
        currency: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> OperationReceipt:
        """Take the money that is held for a payment: all of it, or `amount`, and the rest is let go.

        Raises OperationRefused if it is not `authorized`, a capture or void is under way, `amount` exceeds what is held, or
        `currency` is not the payment's.
        """
        body: dict[str, object] = {"idempotency_key": arguments.idempotency_key(idempotency_key)}
        if amount is not None:
            body["amount"] = arguments.amount("amount", amount)
        if currency is not None:
            body["currency"] = arguments.currency(currency)
        if metadata is not None:
            body["metadata"] = arguments.metadata(metadata)
        return OperationReceipt.of(await self._transport.send("POST", _path(payment_id, "/capture"), body=body))

    async def retry(self, payment_id: UUID | str) -> Receipt:
        """Retry a failed payment. Without an answer the request is not repeated: the payment may have failed again."""
        return Receipt.of(await self._transport.send("POST", _path(payment_id, "/retry"), repeatable=False))

    async def resolve(
        self,
        payment_id: UUID | str,
        *,
        as_: Status | str,
        reason: str,
        provider_ref: str | None = None,
        version: int | None = None,
    ) -> Payment:
        """Decide a payment that needs a review: `success` or `failed_final`. Raises Conflict from any other status.

        With `version`, that of the payment by which it was decided, a payment that has changed since is a Conflict, too.
        """
        body = arguments.resolution(as_, reason=reason, provider_ref=provider_ref, version=version)
        return Payment.of((await self._transport.send("POST", _path(payment_id, "/resolve"), body=body))["payment"])

    def payments(self, **which: Unpack[Filter]) -> AsyncIterator[Payment]:
        """Iterate over payments, newest first unless `order="ascending"`. Pages are read as they are needed."""
        return self._transport.pages("/v1/payments", "payments", Payment.of, arguments.query(which, _OF_PAYMENTS))

    def events(self, payment_id: UUID | str) -> AsyncIterator[Event]:
        """Iterate over the events of a payment, oldest first."""
        return self._transport.pages(_path(payment_id, "/events"), "events", Event.of, [])

    def operations(self, payment_id: UUID | str) -> AsyncIterator[Operation]:
        """Iterate over the captures, voids and refunds of a payment, oldest first."""
        return self._transport.pages(_path(payment_id, "/operations"), "operations", Operation.of, [])

    def attempts(self, payment_id: UUID | str) -> AsyncIterator[Attempt]:
        """Iterate over the attempts of a payment, oldest first."""
        return self._transport.pages(_path(payment_id, "/attempts"), "attempts", Attempt.of, [])

    def dead_letters(self, **which: Unpack[DeadFilter]) -> AsyncIterator[DeadLetter]:
        """Iterate over the payments that were given up, newest first unless `order="ascending"`."""
        query = arguments.query(which, _OF_DEAD_LETTERS)
        return self._transport.pages("/v1/dead-letters", "dead_letters", DeadLetter.of, query)

    async def currencies(self) -> Sequence[Currency]:
        """Return the currencies of new payments, by code."""
        return [Currency.of(one) for one in (await self._transport.send("GET", "/v1/currencies"))["currencies"]]

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
        return Replayed.of(await self._transport.send("POST", "/v1/dead-letters/replay", body=body))


def _path(payment_id: UUID | str, of_it: str = "") -> str:
    return f"/v1/payments/{arguments.payment_id(payment_id)}{of_it}"
