"""The filters of the templates: amounts, times and durations as text. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from okane import currencies


def money(amount_minor: int, currency: str) -> str:
    """Return an amount of minor units by its currency: `1,234.50 EUR`, `500 JPY`, `1.234 BHD`.

    Earlier payments may have a currency whose digits are unknown: then the units are named.
    """
    known = currencies.NEW_PAYMENTS.get(currency)
    if known is None:
        return f"{amount_minor:,} minor units of {currency}"
    digits = known.exponent or 0
    whole, rest = divmod(abs(amount_minor), 10**digits)
    sign = "-" if amount_minor < 0 else ""
    fraction = f".{rest:0{digits}d}" if digits else ""
    return f"{sign}{whole:,}{fraction} {currency}"


def utc(moment: datetime) -> str:
    """Return a time in UTC to the millisecond: `2026-11-30 08:00:00.123 UTC`."""
    return f"{moment.astimezone(UTC).strftime('%Y-%m-%d %H:%M:%S')}.{moment.microsecond // 1000:03d} UTC"


def iso(moment: datetime) -> str:
    """Return a time as the attribute `datetime` has it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration(span: timedelta | float) -> str:
    """Return a duration, given as such or in seconds: `21 ms`, `3.4 s`, `5 min`, `2.5 h`, `6 d`."""
    seconds = span.total_seconds() if isinstance(span, timedelta) else float(span)
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    if seconds < 1:
        return f"{sign}{seconds * 1000:.0f} ms"
    for limit, unit, size, digits in ((10, "s", 1, 1), (120, "s", 1, 0), (7200, "min", 60, 0), (172_800, "h", 3600, 1)):
        if seconds < limit:
            return f"{sign}{seconds / size:.{digits}f} {unit}"
    return f"{sign}{seconds / 86_400:.0f} d"


def count(number: int) -> str:
    """Return a number with commas between its thousands."""
    return f"{number:,}"


FILTERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"money": money, "utc": utc, "iso": iso, "duration": duration, "count_text": count}
)
