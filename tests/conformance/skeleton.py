"""A skeleton of an adapter, for a gateway with `POST /charges` under an Idempotency-Key and `GET /charges/{key}`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from okane.http.connection import HttpResponse
from okane.payment import Payment
from okane.providers.answer_text import json_object, printable
from okane.providers.base import (
    Approved,
    ChargeResult,
    Declined,
    LookUpResult,
    NotFound,
    Traits,
    Unavailable,
    Unknown,
)
from okane.providers.base_url import parse_base_url
from okane.providers.exchange import HttpClient, HttpProvider
from okane.providers.retry_after import retry_after

# The gateway's own list. A decline that is not in it is for good.
SOFT_DECLINES = frozenset({"insufficient_funds", "try_again_later"})


class SkeletonProvider(HttpProvider):
    """A `Provider`. Created on a running loop; closed by `aclose()`.

    `api_key` is called for each request, so that a changed secret takes effect without a restart.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: Callable[[], str],
        name: str = "skeleton",
        timeout: timedelta = timedelta(seconds=30),
    ) -> None:
        url = parse_base_url(base_url)
        self._name = name
        self._traits = Traits(
            timeout=timeout,
            consistency_lag=timedelta(seconds=60),  # longer than a call can last at the gateway
            unknown_deadline=timedelta(hours=12),  # less than key_lifetime
            key_lifetime=timedelta(hours=23),  # the gateway forgets keys after 24 hours
        )
        self._api_key = api_key
        self._path = f"{url.path}/charges"
        self._common = url.common_headers()
        self._http = HttpClient(url, timeout=timeout)

    async def charge(self, payment: Payment) -> ChargeResult:
        """Send the charge once. Nothing here repeats it: the pipeline decides what follows."""
        document = {"payment_id": str(payment.id), "amount": payment.amount_minor, "currency": payment.currency}
        body = json.dumps(document)
        head = (
            f"POST {self._path} HTTP/1.1\r\n{self._common}Authorization: Bearer {self._api_key()}\r\n"
            f"Idempotency-Key: {payment.provider_key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        answer = await self._http.call((head + body).encode("ascii"), repeatable=False)
        return parse_charge(answer, payment) if isinstance(answer, HttpResponse) else answer

    async def look_up(self, payment: Payment, *, may_execute: bool) -> LookUpResult:
        """Look the charge up by its key. This gateway can, so that no look-up has to execute anything."""
        head = (
            f"GET {self._path}/{quote(payment.provider_key, safe='')} HTTP/1.1\r\n{self._common}"
            f"Authorization: Bearer {self._api_key()}\r\n\r\n"
        )
        answer = await self._http.call(head.encode("ascii"), repeatable=True)
        return parse_look_up(answer, payment) if isinstance(answer, HttpResponse) else answer


def parse_charge(answer: HttpResponse, payment: Payment) -> ChargeResult:
    """Return the result of a charge. Only an answer without doubt is more than `Unknown`."""
    document = json_object(answer.body)
    if answer.status == 200 and document is not None:
        return _state(document, payment)
    if answer.status == 422 and document is not None and isinstance(document.get("code"), str):
        return _declined(document)
    return _not_taken(answer) or Unknown(f"HTTP {answer.status}")


def parse_look_up(answer: HttpResponse, payment: Payment) -> LookUpResult:
    """Return the result of a look-up. A 404 counts only in the gateway's own words: a proxy has 404s too."""
    document = json_object(answer.body)
    if answer.status == 200 and document is not None and document.get("amount") is not None:
        return _state(document, payment)
    if answer.status == 404 and document is not None and document.get("code") == "charge_not_found":
        return NotFound()
    return _not_taken(answer) or Unknown(f"HTTP {answer.status} to a look-up")


def _state(document: Mapping[str, object], payment: Payment) -> Approved | Declined | Unknown:
    wanted = (payment.amount_minor, payment.currency)
    if (document.get("amount", wanted[0]), document.get("currency", wanted[1])) != wanted:
        return Unknown("the gateway has another amount under this key", at_once=True)
    ref = document.get("provider_ref")
    if document.get("status") == "captured" and isinstance(ref, str) and ref and ref == printable(ref):
        return Approved(ref)
    if document.get("status") == "declined":
        return _declined(document)
    return Unknown(f"status {printable(document.get('status'))}")


def _declined(document: Mapping[str, object]) -> Declined:
    code = printable(document.get("code") or "declined")
    return Declined(code, printable(document.get("message", "")), soft=code in SOFT_DECLINES)


def _not_taken(answer: HttpResponse) -> Unavailable | None:
    """Return Unavailable where the gateway promises that it did nothing. A 5xx promises nothing."""
    wait = retry_after(answer, now=datetime.now(UTC))
    if answer.status == 429:
        return Unavailable("HTTP 429", wait, fault="limit")
    if answer.status in (401, 403):
        return Unavailable(f"HTTP {answer.status}", wait, fault="config")
    return None
