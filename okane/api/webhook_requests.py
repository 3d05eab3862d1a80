"""The bodies of requests about webhook endpoints."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from okane.api.request_body import WHOLE
from okane.api.timestamps import Timestamp
from okane.store.webhook_endpoints import CHANGEABLE, Payload
from okane.webhooks.types import DEFAULT_TYPES, MAX_PATTERNS, WILDCARDS, EventType, is_pattern

MAX_URL = 2048
MAX_DESCRIPTION = 500
MAX_OLDER_VALID = timedelta(days=7)
OLDER_VALID = timedelta(hours=24)
MAX_HOLD_S = 72 * 3600
MAX_TIMEOUT_S = 30
TYPE_UNKNOWN = "event_type_unknown"

PATTERNS = sorted({*WILDCARDS, *EventType} - {EventType.ENDPOINT_TEST})
_DURATION = re.compile("([0-9]{1,6})([smh])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600}
_ENDPOINT_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ENDPOINT_ID_SCHEMA = {"type": "string", "format": "uuid", "pattern": f"^{_ENDPOINT_ID.pattern}$"}


def _pattern(text: str) -> str:
    if not is_pattern(text):
        raise PydanticCustomError(TYPE_UNKNOWN, "is not a type of events: {types} are", {"types": ", ".join(PATTERNS)})
    return text


def _url(text: str) -> str:
    if not re.fullmatch("[!-~]+", text):
        raise ValueError("must be a URL in ASCII, without spaces")
    return text


def _older_valid_for(text: object) -> object:
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("must be a duration like 24h, 90m or 0s")
    duration = timedelta(seconds=int(match[1]) * _UNIT_S[match[2]])
    if duration > MAX_OLDER_VALID:
        raise ValueError("must not be longer than 7 days (168h)")
    return duration


def parse_endpoint_id(text: object) -> UUID:
    """Return the id that a text spells, in lower case and with its hyphens. Raises ValueError."""
    if not isinstance(text, str) or not _ENDPOINT_ID.fullmatch(text):
        raise ValueError("must be an endpoint's id")
    return UUID(text)


def _described(about: str, **limits: Any) -> Any:
    return Field(description=about, **limits)


Url = Annotated[
    str,
    Field(min_length=1, max_length=MAX_URL, description="`https`; the server may allow `http` for some networks"),
    AfterValidator(_url),
    WithJsonSchema({"type": "string", "format": "uri", "minLength": 1, "maxLength": MAX_URL, "pattern": "^[!-~]+$"}),
]
Pattern = Annotated[str, AfterValidator(_pattern), WithJsonSchema({"type": "string", "enum": PATTERNS})]
Patterns = Annotated[
    list[Pattern],
    _described(
        "the types of events that it gets; `payment.*` stands for several", min_length=1, max_length=MAX_PATTERNS
    ),
]
Description = Annotated[str, _described("a text of the client's", max_length=MAX_DESCRIPTION)]
InFlight = Annotated[int, _described(f"requests at the same time; {WHOLE}", ge=1, le=64)]
RateLimit = Annotated[int, _described(f"requests per second; {WHOLE}", ge=1, le=10_000)]
Timeout = Annotated[int, _described(f"seconds for one request; {WHOLE}", ge=1, le=MAX_TIMEOUT_S)]
Hold = Annotated[
    int,
    _described(f"seconds for which a failing delivery holds later events of its payment; {WHOLE}", ge=0, le=MAX_HOLD_S),
]


class CreateEndpoint(BaseModel):
    """The body of `POST /v1/webhook-endpoints`. A member that is null counts as absent, `url` apart."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    url: Annotated[Url | None, _described("null: nothing is sent, the events are recorded for `GET /v1/events`")]
    types: Patterns | None = None
    payload: Annotated[Payload | None, _described("`thin`: the ids alone")] = None
    description: Description | None = None
    max_in_flight: InFlight | None = None
    rate_limit: RateLimit | None = None
    timeout_s: Timeout | None = None
    hold_s: Hold | None = None
    asymmetric: Annotated[bool | None, _described("sign with ed25519 (`v1a`), too")] = None

    def members(self) -> dict[str, Any]:
        """Return the members that are given, and the types."""
        given = {name: value for name, value in self if value is not None}
        return {**given, "url": self.url, "types": _without_repeats(self.types or DEFAULT_TYPES)}


class ChangeEndpoint(BaseModel):
    """The body of `PATCH /v1/webhook-endpoints/{id}`. A member that is null counts as absent, `rate_limit` apart."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    url: Url | None = None
    types: Patterns | None = None
    description: Description | None = None
    max_in_flight: InFlight | None = None
    rate_limit: Annotated[RateLimit | None, _described("null: no limit")] = None
    timeout_s: Timeout | None = None
    hold_s: Hold | None = None
    asymmetric: bool | None = None

    def members(self) -> dict[str, Any]:
        """Return the members to change."""
        given = {name: value for name, value in self if value is not None and name in CHANGEABLE}
        if "rate_limit" in self.model_fields_set:
            given["rate_limit"] = self.rate_limit
        if self.types is not None:
            given["types"] = _without_repeats(self.types)
        return given


class RotateRequest(BaseModel):
    """The body of `POST /v1/webhook-endpoints/{id}/rotate`; none is the same as `{}`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    older_valid_for: Annotated[
        Annotated[
            timedelta,
            BeforeValidator(_older_valid_for),
            WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$"}),
        ]
        | None,
        _described("how long the secret before also signs: `0s` to `168h`, `24h` if absent"),
    ] = None


class EnableRequest(BaseModel):
    """The body of `POST /v1/webhook-endpoints/{id}/enable`; none is the same as `{}`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    from_: Annotated[
        Literal["now"] | None,
        Field(alias="from", description="`now`: skip what has happened since; absent: resume where it stopped"),
    ] = None


class RecoverRequest(BaseModel):
    """The body of `POST /v1/webhook-endpoints/{id}/recover`. A member that is null counts as absent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    since: Annotated[Timestamp, _described("events of this moment or later")]
    until: Annotated[Timestamp | None, _described("events before this moment; to the end if absent")] = None
    only_failed: Annotated[bool | None, _described("without those that were delivered; true if absent")] = None


class RedeliverRequest(BaseModel):
    """The body of `POST /v1/events/{id}/redeliver`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    endpoint: Annotated[UUID, BeforeValidator(parse_endpoint_id), WithJsonSchema(ENDPOINT_ID_SCHEMA)]


def _without_repeats(types: Any) -> list[str]:
    return list(dict.fromkeys(str(one) for one in types))
