"""Timestamps in RFC 3339: parsed with any offset, written in UTC. One parser for bodies and queries.

The grammar is that of RFC 3339, section 5.6 (docs/api.md). Two forms that it allows are refused, since Postgres cannot store
them and no digit is dropped: a leap second (`:60`), and more digits than microseconds unless they are zeros.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from okane.timestamp_text import to_text

__all__ = ["TIMESTAMP_SCHEMA", "Timestamp", "is_moment", "parse", "to_text"]

_DATE = "(?!0000)[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
_TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_OFFSET = "[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]"
_RFC_3339 = re.compile(rf"({_DATE})[Tt]({_TIME})(?:(\.[0-9]{{1,6}})0{{0,3}})?({_OFFSET})")

# The JSON Schema of a timestamp.
TIMESTAMP_SCHEMA = {
    "type": "string",
    "format": "date-time",
    "pattern": rf"^{_DATE}[Tt]{_TIME}(?:\.[0-9]{{1,6}}0{{0,3}})?(?:{_OFFSET})$",
}


def parse(text: object) -> datetime:
    """Return the moment that a text names, to the microsecond. Raises ValueError."""
    match = _RFC_3339.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(
            "must be an RFC 3339 time with its offset, like 2026-03-01T12:00:00.123456Z: a point before the fraction, "
            "no more than microseconds, no leap second"
        )
    date, time, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{time}{fraction or ''}{offset.upper()}")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("there is no such time") from None


def is_moment(text: str) -> bool:
    """Tell whether `parse` accepts the text, or would if there were such a day."""
    return _RFC_3339.fullmatch(text) is not None


Timestamp = Annotated[datetime, BeforeValidator(parse), WithJsonSchema(TIMESTAMP_SCHEMA)]
