"""Checks the arguments of the client's methods before a request is sent: TypeError for a type, ValueError for a value.

A type checker finds most errors. JSON would carry some of them silently, so they are checked at run time too: `4.40` as an
amount, a time without a zone, a string in the place of a list. The server checks the limits that it may change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from okane.currencies import MAX_AMOUNT_MINOR
from okane.operation import OperationStatus
from okane.payment import Status

T = TypeVar("T")

_ID = re.compile(r"(pay_)?([0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})")
_UUID = re.compile(r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_EVENT_ID = re.compile(r"evt_[0-9a-f]{32}_[0-9]{1,10}")
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")
_CURRENCY = re.compile(r"[A-Z]{3}")
ORDERS = ("ascending", "descending")
DECISIONS = (Status.SUCCESS.value, Status.FAILED_FINAL.value)


def typed(name: str, value: object, kind: type[T]) -> T:
    """Return the value if it is of this type. To Python a bool is an int; here it is not."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{name} must be {kind.__name__}, not {type(value).__name__}")
    return value


def payment_id(value: UUID | str) -> UUID:
    """Return the id, from a UUID or one of its two spellings in the API: nothing else gets into a path."""
    if isinstance(value, UUID):
        return value
    text = typed("payment_id", value, str)
    if not _ID.fullmatch(text):
        raise ValueError(f"{text[:64]!r} is not a payment's id")
    return UUID(text.removeprefix("pay_"))


def payment_ids(values: Iterable[UUID | str]) -> list[UUID]:
    """Return the ids in a list. A single string is refused: it would be a list of its letters."""
    return [payment_id(one) for one in several("payment_ids", values)]


def endpoint_id(value: UUID | str) -> UUID:
    """Return the id of a webhook endpoint."""
    return _id("endpoint_id", value, "an endpoint")


def method_id(value: UUID | str) -> UUID:
    """Return the id of a saved payment method."""
    return _id("method_id", value, "a payment method")


def refund_id(value: UUID | str) -> UUID:
    """Return the id of a refund."""
    return _id("refund_id", value, "a refund")


def dispute_id(value: UUID | str) -> UUID:
    """Return the id of a dispute."""
    return _id("dispute_id", value, "a dispute")


def _id(name: str, value: UUID | str, owner: str) -> UUID:
    if isinstance(value, UUID):
        return value
    if not _UUID.fullmatch(typed(name, value, str)):
        raise ValueError(f"{value[:64]!r} is not {owner}'s id")
    return UUID(value)


def event_id(value: str) -> str:
    """Return the id of an event, `evt_…`."""
    if not _EVENT_ID.fullmatch(typed("event_id", value, str)):
        raise ValueError(f"{value[:64]!r} is not an event's id")
    return value


def amount(name: str, value: int) -> int:
    """Return an amount in minor units, an int that every JSON parser keeps exactly."""
    if typed(name, value, int) > MAX_AMOUNT_MINOR:
        raise ValueError(f"{name} must not exceed 2^53-1 ({MAX_AMOUNT_MINOR})")
    return value


def idempotency_key(value: str) -> str:
    """Return the key if it is 1 to 255 visible ASCII characters."""
    if not _IDEMPOTENCY_KEY.fullmatch(typed("idempotency_key", value, str)):
        raise ValueError("idempotency_key must be 1 to 255 visible ASCII characters")
    return value


def currency(value: str) -> str:
    """Return the ISO 4217 code, whether or not it is still in use."""
    if not _CURRENCY.fullmatch(typed("currency", value, str)):
        raise ValueError("currency must be an ISO 4217 code in capitals, like USD")
    return value


def text(name: str, value: str) -> str:
    """Return the text if UTF-8 and Postgres can hold it."""
    if "\x00" in typed(name, value, str) or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{name} must not hold NUL characters or lone surrogates")
    return value


def metadata(value: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of the metadata as a dict of strings."""
    return texts("metadata", value)


def texts(name: str, value: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of a mapping of strings as a dict."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping, not {type(value).__name__}")
    return {text(f"a name in {name}", key): text(f"{name}[{key!r}]", one) for key, one in value.items()}


def moment(name: str, value: datetime) -> str:
    """Return a time with a zone as RFC 3339 in UTC."""
    if typed(name, value, datetime).utcoffset() is None:
        raise ValueError(f"{name} must have a time zone: {value.isoformat()} could be anywhere")
    try:
        return value.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
    except OverflowError:
        raise ValueError(f"{name} is too far away") from None


def statuses(values: Iterable[Status]) -> list[str]:
    """Return the values of these statuses. A single one is refused: it would be a list of its letters."""
    return [Status(typed("status", one, str)).value for one in several("status", values)]


def operation_statuses(values: Iterable[OperationStatus]) -> list[str]:
    """Return the values of these statuses of operations."""
    return [OperationStatus(typed("status", one, str)).value for one in several("status", values)]


def resolution(
    as_: Status | str, *, reason: str, provider_ref: str | None, version: int | None
) -> Mapping[str, object]:
    """Return the body of a decision about what needs a review."""
    body: dict[str, object] = {"as": decision(as_), "reason": text("reason", reason)}
    if version is not None:
        body["version"] = typed("version", version, int)
    if provider_ref is not None:
        body["provider_ref"] = text("provider_ref", provider_ref)
    return body


def decision(value: Status | str) -> str:
    """Return the decision about a payment that needs a review: `success` or `failed_final`."""
    if typed("as_", value, str) not in DECISIONS:
        raise ValueError(f"as_ must be {' or '.join(DECISIONS)}")
    return str(value)


def order(value: str) -> str:
    """Return the order: `ascending` or `descending`."""
    if typed("order", value, str) not in ORDERS:
        raise ValueError(f"order must be {' or '.join(ORDERS)}")
    return value


def several(name: str, values: Iterable[T]) -> Sequence[T]:
    """Return the members of a collection that is neither a string nor a mapping."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list, not {type(values).__name__}")
    return list(values)


def seconds(name: str, value: float) -> float:
    """Return a number of seconds that is not negative (nor NaN)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not value >= 0:
        raise ValueError(f"{name} must not be negative")
    return value


def wait_s(value: int) -> int:
    """Return whole seconds, as `Prefer: wait=N` takes them."""
    return int(seconds("wait_s", typed("wait_s", value, int)))


def query(which: Mapping[str, Any], kinds: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the parameters of a list without those that are None. `kinds` has a check for each; others are a TypeError."""
    pairs: list[tuple[str, str]] = []
    for name, value in which.items():
        if name not in kinds:
            raise TypeError(f"there is no filter {name!r}; there are {', '.join(kinds)}")
        if value is None:
            continue
        match kinds[name](value):
            case dict() as named:
                pairs += [(f"{name}[{key}]", one) for key, one in named.items()]
            case list() as listed:
                pairs += [(name, one) for one in listed]
            case one:
                pairs.append((name, str(one)))
    return pairs
