"""The filter of the list of payments: parsed from the address, and written into addresses. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from uuid import UUID

from multidict import MultiMapping

from okane import currencies
from okane.console.amounts import example_of, parse_amount
from okane.console.search import Kind, Meaning, Search, parse_search
from okane.payment import Status
from okane.payment_id import parse_id
from okane.store import PaymentFilter

MAX_FIELD = 500  # characters

_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)

FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "q": "search",
        "status": "status",
        "currency": "currency",
        "amount_from": "amount from",
        "amount_to": "amount to",
        "from": "created from",
        "to": "created to",
        "provider": "provider",
    }
)


@dataclass(frozen=True, slots=True)
class FilterForm:
    """The fields as they were given, what they mean, and what is wrong with them, by field.

    `filter` has everything but the search. `after` is the id behind which the page begins.
    """

    fields: Mapping[str, str]
    statuses: frozenset[Status]
    search: Search
    filter: PaymentFilter
    after: UUID | None
    problems: Mapping[str, str]

    def text(self, name: str) -> str:
        """Return the text of a field."""
        return self.fields.get(name, "")

    def query(self, *, without: str = "", after: UUID | None = None, q: str | None = None) -> dict[str, object]:
        """Return the query of an address with this filter, from the first page on if no `after` is given."""
        query: dict[str, object] = {name: text for name, text in self.fields.items() if name != without}
        if self.statuses and without != "status":
            query["status"] = sorted(status.value for status in self.statuses)
        if q is not None:
            query["q"] = q
        return query | {"after": after}

    def active(self) -> Sequence[tuple[str, str]]:
        """Return the fields that are set, each with its label."""
        used = [*self.fields, *(["status"] if self.statuses else [])]
        return [(name, label) for name, label in FIELDS.items() if name in used]

    def wanted(self, meaning: Meaning | None) -> PaymentFilter:
        """Return the filter with the search in one of its meanings."""
        match meaning:
            case Meaning(kind=Kind.KEY, text=text):
                return replace(self.filter, idempotency_key=text)
            case Meaning(kind=Kind.REFERENCE, text=text):
                return replace(self.filter, provider_ref=text)
            case Meaning(kind=Kind.METADATA, text=text, name=name):
                return replace(self.filter, metadata={name: text})
        return self.filter


def parse_filter(query: MultiMapping[str]) -> FilterForm:
    """Return the filter of an address. Fields that it does not have are left alone."""
    problems: dict[str, str] = {}
    fields = dict(_texts(query, problems))
    search = parse_search(fields.get("q", ""))
    if search.problem:
        problems["q"] = search.problem
    statuses = _statuses(query.getall("status", []), problems)
    currency = fields.get("currency")
    if currency is not None and not _CURRENCY.fullmatch(currency):
        problems["currency"] = "A currency has three capital letters, like EUR."
    created = {name: _moment(fields, name, problems) for name in ("from", "to")}
    amounts = {name: _amount(fields, name, problems) for name in ("amount_from", "amount_to")}
    after = query.get("after")
    after_id = None if after is None else parse_id(after)
    if after is not None and after_id is None:
        problems["after"] = "This address is not one of the console's: begin with the newest payments."
    wanted = PaymentFilter(
        statuses=statuses,
        currency=currency,
        provider=fields.get("provider"),
        created_from=created["from"],
        created_before=created["to"],
        amount_min=amounts["amount_from"],
        amount_max=amounts["amount_to"],
    )
    return FilterForm(fields, statuses, search, wanted, after_id, problems)


def _texts(query: MultiMapping[str], problems: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name in FIELDS:
        text = query.get(name, "").strip()
        if not text or name == "status":
            continue
        if name != "q" and (len(text) > MAX_FIELD or "\0" in text or any("\ud800" <= one <= "\udfff" for one in text)):
            problems[name] = f"This field takes up to {MAX_FIELD} characters, without NUL."
            continue
        yield name, text[: MAX_FIELD + 1]  # a search that is too long says so, and is not repeated in full


def _statuses(given: Sequence[str], problems: dict[str, str]) -> frozenset[Status]:
    known = {status.value for status in Status}
    if any(text not in known for text in given):
        problems["status"] = f"The statuses are {', '.join(sorted(known))}."
        return frozenset()
    return frozenset(Status(text) for text in given)


def _moment(fields: Mapping[str, str], name: str, problems: dict[str, str]) -> datetime | None:
    """Return the moment of a field, in UTC where it names no zone."""
    text = fields.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        problems[name] = "A time looks like 2026-11-30 or 2026-11-30T08:00, in UTC."
        return None


def _amount(fields: Mapping[str, str], name: str, problems: dict[str, str]) -> int | None:
    """Return the amount of a field in minor units of the currency."""
    text, code = fields.get(name), fields.get("currency", "")
    if text is None:
        return None
    if code not in currencies.NEW_PAYMENTS:
        problems[name] = "An amount takes a currency: give one that payments can have, like EUR."
        return None
    minor = parse_amount(text, code)
    if minor is None:
        problems[name] = f"An amount in {code} looks like {example_of(code)}."
        return None
    if minor > currencies.MAX_AMOUNT_MINOR:
        problems[name] = "No payment is that large."
        return None
    return minor
