"""Timestamps in UTC: as documents and events have them (RFC 3339, to the microsecond), and as people read them."""

from __future__ import annotations

import functools
from datetime import UTC, datetime

_UTC_OFFSET = "+00:00"


@functools.lru_cache(maxsize=16)
def to_text(moment: datetime) -> str:
    """Return the moment as documents have it. Payments accepted together share one, so the last ones are cached."""
    written = moment.isoformat(timespec="microseconds")
    if not written.endswith(_UTC_OFFSET):  # the sessions of the database are in UTC: nearly never
        written = moment.astimezone(UTC).isoformat(timespec="microseconds")
    return written.removesuffix(_UTC_OFFSET) + "Z"


def format_time(moment: datetime) -> str:
    """Return the time in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
