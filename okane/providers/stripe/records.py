"""Stripe's own list: its Charges and Refunds, with the fees of their balance transactions.

A Charge is at the time of its authorization, also if it was captured later. Its name here is that of its PaymentIntent, which
is what a payment keeps.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import ceil
from uuid import UUID

from okane.payment_id import parse_id
from okane.providers.answer_text import printable
from okane.providers.base_url import parse_base_url
from okane.providers.exchange import HttpClient
from okane.providers.list_reader import PAUSES_S, ListReader, needed
from okane.providers.listing import ListingFailed, ProviderRecord, RecordStatus
from okane.providers.stripe.amounts import minor_amount
from okane.providers.stripe.intents import Object, as_object
from okane.providers.stripe.requests import API_VERSION, PAGE_SIZE

_REFUNDS: Mapping[str, RecordStatus] = {
    "succeeded": "succeeded",
    "pending": "pending",
    "requires_action": "pending",
    "failed": "failed",
    "canceled": "canceled",
}


class StripeListing:
    """A `Listing` of a Stripe account. Created on a running loop; closed by `aclose()`."""

    def __init__(
        self,
        base_url: str = "https://api.stripe.com",
        *,
        api_key: Callable[[], str],
        name: str = "stripe",
        timeout: timedelta = timedelta(seconds=30),
        pauses_s: tuple[float, ...] = PAUSES_S,
    ) -> None:
        """Raises ValueError for a `base_url` that is not an absolute http(s) URL."""
        url = parse_base_url(base_url)
        self._name = name
        self._api_key = api_key
        self._path = f"{url.path}/v1"
        self._common = f"{url.common_headers()}Stripe-Version: {API_VERSION}\r\n"
        self._http = HttpClient(url, timeout=timeout, connections=1)
        self._reader = ListReader(self._http, pauses_s=pauses_s)

    @property
    def name(self) -> str:
        return self._name

    async def list_records(self, begin: datetime, end: datetime) -> AsyncIterator[Sequence[ProviderRecord]]:
        """Yield the records made from `begin` to before `end`, in pages. Raises ListingFailed."""
        # Stripe's times are whole seconds.
        span = f"created[gte]={int(begin.timestamp())}&created[lt]={ceil(end.timestamp())}&limit={PAGE_SIZE}"
        for kind, parse in (("charges", parse_charge), ("refunds", parse_refund)):
            after: str | None = None
            cursors: set[str] = set()
            while True:
                cursor = "" if after is None else f"&starting_after={after}"
                page = await self._get(f"{self._path}/{kind}?{span}&expand[]=data.balance_transaction{cursor}")
                found = needed(page, "data", list)
                objects = [one for one in map(as_object, found) if one is not None]
                if len(objects) < len(found):
                    raise ListingFailed(f"the list of {kind} is unreadable")
                yield [record for one in objects if (record := parse(one)) is not None]
                if not needed(page, "has_more", bool):
                    break
                last = _id(objects[-1]) if objects else None
                if last is None or last in cursors:
                    raise ListingFailed(f"the list of {kind} does not end")
                after = last
                cursors.add(last)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def _get(self, target: str) -> Mapping[str, object]:
        key = self._api_key()
        if not (key.isascii() and key.isprintable() and key and " " not in key):
            raise ListingFailed("no usable API key")
        head = f"GET {target} HTTP/1.1\r\n{self._common}Authorization: Bearer {key}\r\n\r\n"
        return await self._reader.get(head.encode("ascii"))


def parse_charge(charge: Object) -> ProviderRecord | None:
    """Return a Charge as a record, or None for one that was refused. Raises ListingFailed."""
    state, captured = needed(charge, "status", str), needed(charge, "captured", bool)
    if state == "failed":
        return None
    status: RecordStatus
    if state == "pending":
        status = "pending"
    elif state != "succeeded":
        raise ListingFailed(f"a Charge has the status {printable(state)}")
    elif captured:
        status = "succeeded"
    else:
        status = "canceled" if charge.get("refunded") is True else "authorized"
    currency = printable(needed(charge, "currency", str)).upper()
    intent = charge.get("payment_intent")
    fee, fee_currency = _fee(charge)
    return ProviderRecord(
        kind="charge",
        at=_created(charge),
        provider_ref=printable(intent) if isinstance(intent, str) else _needed_id(charge),
        status=status,
        amount_minor=minor_amount(needed(charge, "amount", int), currency),
        currency=currency,
        payment_id=_named(charge, "payment_id"),
        captured_minor=minor_amount(needed(charge, "amount_captured", int), currency) if captured else None,
        fee_minor=fee,
        fee_currency=fee_currency,
    )


def parse_refund(refund: Object) -> ProviderRecord | None:
    """Return a Refund as a record, or None for the release of money that was only held. Raises ListingFailed."""
    operation_id = _named(refund, "operation_id")
    state = needed(refund, "status", str)
    if operation_id is None and refund.get("balance_transaction") is None and state != "pending":
        return None
    if state not in _REFUNDS:
        raise ListingFailed(f"a Refund has the status {printable(state)}")
    currency = printable(needed(refund, "currency", str)).upper()
    fee, fee_currency = _fee(refund)
    return ProviderRecord(
        kind="refund",
        at=_created(refund),
        provider_ref=_needed_id(refund),
        status=_REFUNDS[state],
        amount_minor=minor_amount(needed(refund, "amount", int), currency),
        currency=currency,
        payment_id=_named(refund, "payment_id"),
        operation_id=operation_id,
        fee_minor=fee,
        fee_currency=fee_currency,
    )


def _fee(found: Object) -> tuple[int | None, str | None]:
    """Return the fee and its currency: that of the account, which may be another one than the charge's."""
    transaction = as_object(found.get("balance_transaction"))
    if transaction is None:
        return None, None
    currency = printable(needed(transaction, "currency", str)).upper()
    return minor_amount(needed(transaction, "fee", int), currency), currency


def _named(found: Object, name: str) -> UUID | None:
    text = (as_object(found.get("metadata")) or {}).get(name)
    return parse_id(text) if isinstance(text, str) else None


def _created(found: Object) -> datetime:
    try:
        return datetime.fromtimestamp(needed(found, "created", int), UTC)
    except (OverflowError, ValueError, OSError):
        raise ListingFailed("a record has no usable created") from None


def _id(found: Object) -> str | None:
    text = found.get("id")
    return text if isinstance(text, str) and text.isascii() and text.replace("_", "").isalnum() else None


def _needed_id(found: Object) -> str:
    if (text := _id(found)) is None:
        raise ListingFailed("a record has no usable id")
    return text
