"""Moments on the wire: RFC 3339, read with any offset, written in UTC."""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BeforeValidator

_UTC_OFFSET = "+00:00"
_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d{1,6})?\d{0,3}([Zz]|[+-]\d\d:\d\d)",
    re.ASCII,  # \d is any script's digit otherwise
)


def parse(text: object) -> datetime:
    """The moment that a text names, to the microsecond. Raises ValueError."""
    match = _RFC_3339.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("must be an RFC 3339 time with its offset, like 2026-03-01T12:00:00Z")
    date, time, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{time}{fraction or ''}{offset.upper()}")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("there is no such time") from None


Moment = Annotated[datetime, BeforeValidator(parse)]


@functools.lru_cache(maxsize=16)
def text(moment: datetime) -> str:
    """The moment as every document of ours has it. What was accepted together has one moment, and many documents."""
    written = moment.isoformat(timespec="microseconds")
    if not written.endswith(_UTC_OFFSET):  # the database's sessions are on UTC
        written = moment.astimezone(UTC).isoformat(timespec="microseconds")
    return written.removesuffix(_UTC_OFFSET) + "Z"
