"""Parses query parameters. An unknown parameter is a 400: to ignore a misspelt filter would return an unfiltered list."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from multidict import MultiMapping
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from okane.api import timestamps
from okane.api.create_request import AnyCurrency
from okane.api.problems import MAX_ERRORS, ParameterError, bad_query, shortened
from okane.api.timestamps import TIMESTAMP_SCHEMA
from okane.currencies import MAX_AMOUNT_MINOR
from okane.payment import Status
from okane.store import PaymentFilter
from okane.store.webhook_deliveries import MAX_REDELIVERED, Redelivered

MAX_LIMIT = 100
MAX_TEXT = 500  # characters
MAX_PARAMETERS = 100  # in one query; a repeated one counts each time
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_LATEST = datetime.max.replace(tzinfo=UTC)

# Cursors in base64url, each with one spelling: an id, a number below 2^31 in the width of an id, a time and an id, a position
# below 2^63.
_PLACE = re.compile("[A-Za-z0-9_-]{21}[AQgw]")
_NUMBER = re.compile("A{16}[A-Za-f][A-Za-z0-9_-]{4}[AQgw]")
_DATED = re.compile("[A-Za-z0-9_-]{32}")
_POSITION = re.compile("[A-Za-f][A-Za-z0-9_-]{9}[AEIMQUYcgkosw048]")

# A position; with events that were delivered again to a reader, also the time of the read and their positions.
_EVENTS = re.compile(rf"{_POSITION.pattern}((\.{_POSITION.pattern}){{2,{1 + MAX_REDELIVERED}}})?")

_NESTED = re.compile(r"(\w+)\[(.*)\]", re.DOTALL)
_WHOLE = re.compile(r"[0-9]{1,19}")

_PLUS = "a + in a query means a space: write it as %2B"

Q = TypeVar("Q", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class EventCursor:
    """A place in the log of events. `read`: what was delivered again to the reader of an endpoint, up to here."""

    position: int = 0
    read: Redelivered | None = None


def _whole(text: object) -> object:
    if isinstance(text, str):
        if not _WHOLE.fullmatch(text):
            raise ValueError("must be a whole number")
        return int(text)
    return text


def _moment(text: object) -> datetime:
    try:
        return timestamps.parse(text)
    except ValueError:
        if isinstance(text, str) and " " in text and timestamps.is_moment(text.replace(" ", "+")):
            raise ValueError(f"{_PLUS}, as in {text.replace(' ', '%2B')}") from None
        raise


def _key(text: str) -> str:
    return without_spaces(text, "an idempotency key")


def without_spaces(text: str, what: str) -> str:
    """Return the text of a parameter that can have no space: one there was meant for a plus sign. Raises ValueError."""
    if " " in text:
        raise ValueError(f"{what} has no spaces; {_PLUS}")
    return text


def _amount(text: object) -> object:
    amount = _whole(text)
    if isinstance(amount, int) and amount > MAX_AMOUNT_MINOR:
        raise PydanticCustomError(
            "amount_unsafe_integer",
            f"must not exceed 2^53-1; amount_min={MAX_AMOUNT_MINOR} finds what is above it, too",
        )
    return amount


def _storable(text: str) -> str:
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("must be UTF-8 without NUL characters")
    return text


def _decoded(text: object, pattern: re.Pattern[str]) -> bytes:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise ValueError("must be the `after` of the page before")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _place(text: object) -> object:
    """Return the payment's id in a cursor."""
    return UUID(bytes=_decoded(text, _PLACE))


def _number(text: object) -> object:
    """Return the number in a cursor, which has the width of an id."""
    return int.from_bytes(_decoded(text, _NUMBER), "big")


def _position(text: object) -> object:
    """Return the position in a cursor of the log of events."""
    return int.from_bytes(_decoded(text, _POSITION), "big")


def position_cursor(position: int) -> str:
    """Return the cursor of a position in the log of events."""
    return base64.urlsafe_b64encode(position.to_bytes(8, "big")).rstrip(b"=").decode()


def _event_cursor(text: object) -> object:
    """Return the position, and what else was read, in a cursor of the reader of an endpoint."""
    if not isinstance(text, str) or not _EVENTS.fullmatch(text):
        raise ValueError("must be the `after` of the page before")
    position, *read = [int.from_bytes(base64.urlsafe_b64decode(f"{part}="), "big") for part in text.split(".")]
    return EventCursor(position, Redelivered(tuple(read[1:]), _moment_after(read[0])) if read else None)


def event_cursor(position: int, read: Redelivered | None) -> str:
    """Return the cursor of a position in the log of events, and of events that were delivered again."""
    if read is None:
        return position_cursor(position)
    numbers = (position, (read.at - _EPOCH) // timedelta(microseconds=1), *read.positions)
    return ".".join(map(position_cursor, numbers))


def _moment_after(microseconds: int) -> datetime:
    """Return a moment after the epoch, the latest one for what is beyond it."""
    return _EPOCH + min(timedelta(microseconds=microseconds), _LATEST - _EPOCH)


def number_cursor(number: int) -> str:
    """Return the cursor of a place in a numbered list."""
    return cursor(UUID(int=number))


def dated_place(text: object) -> object:
    """Return the place in a cursor of a list that is ordered by time; a time beyond the latest one becomes the latest."""
    raw = _decoded(text, _DATED)
    return _moment_after(int.from_bytes(raw[:8], "big")), UUID(bytes=raw[8:])


def dated_cursor(place: tuple[datetime, UUID]) -> str:
    """Return the cursor of a place in a list that is ordered by time."""
    moment, id_ = place
    since = (moment - _EPOCH) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(since.to_bytes(8, "big") + id_.bytes).decode()


def cursor(place: UUID) -> str:
    """Return the cursor of a place in a list."""
    return base64.urlsafe_b64encode(place.bytes).rstrip(b"=").decode()


def _opaque(pattern: re.Pattern[str]) -> WithJsonSchema:
    """Return the JSON Schema of a cursor. The format may change: clients send back the cursor that they got."""
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern.pattern}$"})


Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT), BeforeValidator(_whole)]
Amount = Annotated[int, Field(ge=0, le=MAX_AMOUNT_MINOR), BeforeValidator(_amount)]
QueryTimestamp = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema(TIMESTAMP_SCHEMA)]
Storable = Annotated[str, AfterValidator(_storable)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT), AfterValidator(_storable)]
Key = Annotated[
    Text,
    AfterValidator(_key),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_TEXT, "pattern": "^[^ ]+$"}),
]
Order = Literal["ascending", "descending"]  # by the time that a list goes by
Cursor = Annotated[UUID, BeforeValidator(_place), _opaque(_PLACE)]
NumberCursor = Annotated[int, BeforeValidator(_number), _opaque(_NUMBER)]
PositionCursor = Annotated[int, BeforeValidator(_position), _opaque(_POSITION)]
EventCursorText = Annotated[EventCursor, BeforeValidator(_event_cursor), _opaque(_EVENTS)]
DatedCursor = Annotated[tuple[datetime, UUID], BeforeValidator(dated_place), _opaque(_DATED)]


class PaymentQuery(BaseModel):
    """The parameters of `GET /v1/payments`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Limit = 20
    order: Order = "descending"
    after: Cursor | None = None
    status: frozenset[Status] = frozenset()
    currency: AnyCurrency | None = None
    provider: Text | None = None
    created_after: QueryTimestamp | None = None
    created_before: QueryTimestamp | None = None
    updated_after: QueryTimestamp | None = None
    updated_before: QueryTimestamp | None = None
    amount_min: Amount | None = None
    amount_max: Amount | None = None
    idempotency_key: Key | None = None
    provider_ref: Text | None = None
    metadata: dict[Text, Storable] = Field(default_factory=dict)

    @property
    def filter(self) -> PaymentFilter:
        """The filter of the list."""
        return PaymentFilter(
            ascending=self.order == "ascending",
            statuses=self.status,
            currency=self.currency,
            provider=self.provider,
            created_from=self.created_after,
            created_before=self.created_before,
            updated_from=self.updated_after,
            updated_before=self.updated_before,
            amount_min=self.amount_min,
            amount_max=self.amount_max,
            idempotency_key=self.idempotency_key,
            provider_ref=self.provider_ref,
            metadata=self.metadata,
        )


class PartQuery(BaseModel):
    """The parameters of lists that belong to one payment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Limit = MAX_LIMIT
    after: NumberCursor | None = None


def parse_query(model: type[Q], query: MultiMapping[str]) -> Q:
    """Return the parameters of a request. Raises a 400 Problem that names every wrong one."""
    if len(query) > MAX_PARAMETERS:
        raise bad_query([ParameterError("", "too_many", f"a query has up to {MAX_PARAMETERS} parameters")])
    given: dict[str, Any] = {}
    errors: list[ParameterError] = []
    for name in dict.fromkeys(query):
        values = query.getall(name)
        nested = _NESTED.fullmatch(name)
        if name in _REPEATABLE:
            given[name] = values
        elif len(values) > 1:
            errors.append(ParameterError(shortened(name), "repeated", "is given more than once"))
        elif nested is not None and nested[1] in _NESTING:
            given.setdefault(nested[1], {})[nested[2]] = values[0]
        elif name in _NESTING:
            errors.append(ParameterError(name, "name_missing", f"needs a name: {name}[name]=value"))
        else:
            given[name] = values[0]
    try:
        parsed = model.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        named = errors + [_parameter_error(model, one) for one in found[:MAX_ERRORS]]
        raise bad_query(named, count=len(errors) + len(found)) from None
    if errors:
        raise bad_query(errors)
    return parsed


_REPEATABLE = frozenset({"state", "status", "type"})
_NESTING = frozenset({"metadata"})


def _parameter_error(model: type[BaseModel], error: Mapping[str, Any]) -> ParameterError:
    name, *inside = (str(part) for part in error["loc"] if part != "[key]")
    if name in _NESTING and inside:
        name += f"[{inside[0]}]"
    name = shortened(name.encode("utf-8", "replace").decode())
    if error["type"] == "extra_forbidden":
        return ParameterError(
            name, "unknown_parameter", f"is unknown; the parameters are {', '.join(model.model_fields)}"
        )
    return ParameterError(name, error["type"], error["msg"].removeprefix("Value error, "))
