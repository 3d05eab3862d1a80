"""Durations as people read them."""

from __future__ import annotations

from datetime import timedelta


def format_duration(span: timedelta) -> str:
    """Return `0.2 s`, `45 s`, `3 min`, `2.5 h` or `4 d`."""
    seconds = span.total_seconds()
    for limit, unit, size in ((10, "s", 1), (120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}" if limit == 10 or unit == "h" else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
