"""The list of a provider of okane's own protocol: `GET /records`, in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from okane.payment_id import parse_id
from okane.providers.answer_text import printable
from okane.providers.base_url import parse_base_url
from okane.providers.exchange import HttpClient
from okane.providers.list_reader import PAUSES_S, ListReader, needed
from okane.providers.listing import ListingFailed, ProviderRecord, RecordKind, RecordStatus

PAGE_SIZE = 1000

# None: a record that moves no money.
_STATUSES: Mapping[tuple[str, str], RecordStatus | None] = {
    ("charge", "captured"): "succeeded",
    ("charge", "authorized"): "authorized",
    ("charge", "voided"): "canceled",
    ("charge", "expired"): "canceled",
    ("charge", "declined"): None,
    ("capture", "succeeded"): "succeeded",
    ("capture", "pending"): "pending",
    ("capture", "failed"): "failed",
    ("refund", "succeeded"): "succeeded",
    ("refund", "pending"): "pending",
    ("refund", "failed"): "failed",
}


class OkaneHttpListing:
    """A `Listing` over okane's own protocol. Created on a running loop; closed by `aclose()`."""

    def __init__(self, base_url: str, *, name: str, timeout: timedelta, pauses_s: tuple[float, ...] = PAUSES_S) -> None:
        """Raises ValueError for a `base_url` that is not an absolute http(s) URL."""
        url = parse_base_url(base_url)
        self._name = name
        self._path = f"{url.path}/records"
        self._common = url.common_headers()
        self._http = HttpClient(url, timeout=timeout, connections=1)
        self._reader = ListReader(self._http, pauses_s=pauses_s)

    @property
    def name(self) -> str:
        return self._name

    async def list_records(self, begin: datetime, end: datetime) -> AsyncIterator[Sequence[ProviderRecord]]:
        """Yield the records made from `begin` to before `end`, in pages. Raises ListingFailed."""
        span = f"from={_time(begin)}&to={_time(end)}&limit={PAGE_SIZE}"
        after: str | None = None
        cursors: set[str] = set()
        while True:
            cursor = "" if after is None else f"&after={quote(after, safe='')}"
            page = await self._reader.get(
                f"GET {self._path}?{span}{cursor} HTTP/1.1\r\n{self._common}\r\n".encode("ascii")
            )
            records = needed(page, "records", list)
            following = page.get("next")
            if not isinstance(following, str | None) or following in cursors:
                raise ListingFailed("its list does not end")
            yield [found for record in records if (found := parse_record(record)) is not None]
            if following is None:
                return
            after = following
            cursors.add(following)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()


def parse_record(record: object) -> ProviderRecord | None:
    """Return a record of the list, or None for one that moves no money. Raises ListingFailed."""
    if not isinstance(record, dict):
        raise ListingFailed("a record is not an object")
    kind, status = needed(record, "kind", str), needed(record, "status", str)
    if kind == "void":
        return None
    if (kind, status) not in _STATUSES:
        raise ListingFailed("a record has an unknown kind or status")
    known = _STATUSES[kind, status]
    if known is None:
        return None
    kinds: Mapping[str, RecordKind] = {"charge": "charge", "capture": "capture", "refund": "refund"}
    payment_id, operation_id = record.get("payment_id"), record.get("operation_id")
    currency, fee = printable(needed(record, "currency", str)), record.get("fee")
    return ProviderRecord(
        kind=kinds[kind],
        at=_moment(needed(record, "at", str)),
        provider_ref=printable(needed(record, "provider_ref", str)),
        status=known,
        amount_minor=needed(record, "amount", int),
        currency=currency,
        payment_id=parse_id(payment_id) if isinstance(payment_id, str) else None,
        operation_id=parse_id(operation_id) if isinstance(operation_id, str) else None,
        fee_minor=fee if type(fee) is int else None,
        fee_currency=currency,
    )


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ListingFailed("a record has no usable time")
    return found


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
