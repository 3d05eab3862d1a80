"""The filters of the templates: amounts, times and durations as text, and rows of tables. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from markupsafe import Markup, escape

from okane import currencies

DIGITS = {code: currency.exponent or 0 for code, currency in currencies.NEW_PAYMENTS.items()}
_BETWEEN = "\0"  # Postgres stores no such character, and HTML shows none


def money(amount_minor: int, currency: str) -> str:
    """Return an amount of minor units by its currency: `1,234.50 EUR`, `500 JPY`, `1.234 BHD`.

    Earlier payments may have a currency whose digits are unknown: then the units are named.
    """
    digits = DIGITS.get(currency)
    if digits is None:
        return f"{amount_minor:,} minor units of {currency}"
    whole, rest = divmod(abs(amount_minor), 10**digits)
    sign = "-" if amount_minor < 0 else ""
    fraction = f".{rest:0{digits}d}" if digits else ""
    return f"{sign}{whole:,}{fraction} {currency}"


def units(amount_minor: int, currency: str) -> str:
    """Return an amount as a form takes it, in the units of its currency: `1234.50`, or minor units as in `money`."""
    digits = DIGITS.get(currency, 0)
    whole, rest = divmod(amount_minor, 10**digits)
    return f"{whole}.{rest:0{digits}d}" if digits else str(whole)


def utc(moment: datetime) -> str:
    """Return a time in UTC to the millisecond: `2026-11-30 08:00:00.123 UTC`."""
    # isoformat takes a fifth of strftime's time: a list has a hundred times.
    return f"{moment.astimezone(UTC).isoformat(' ', 'milliseconds')[:-6]} UTC"


def iso(moment: datetime) -> str:
    """Return a time as the attribute `datetime` has it."""
    return f"{moment.astimezone(UTC).isoformat('T', 'milliseconds')[:-6]}Z"


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


def tone(name: object) -> str:
    """Return the class of a status, of whichever thing: good, bad, warn, or none."""
    return _TONES.get(str(name), "")


def filled(pattern: Markup, rows: Sequence[Sequence[str]]) -> Markup:
    """Return the pattern once for each row, with the row's texts, escaped, in place of its `%s`.

    All texts are escaped as one: one by one that takes longer than all the rest of a page of fifty rows.
    """
    width = pattern.count("%s")
    texts = [text for row in rows for text in row]
    joined = _BETWEEN.join(texts)
    if joined.count(_BETWEEN) >= len(texts):
        joined = _BETWEEN.join([text.replace(_BETWEEN, "\ufffd") for text in texts])  # which browsers show for it
    cells = str.split(escape(joined), _BETWEEN) if texts else []  # not Markup's own split, which makes Markup of each
    plain = str(pattern)
    return Markup("".join([plain % tuple(cells[at : at + width]) for at in range(0, len(cells), width)]))  # noqa: S704 - see above


_TONES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("success", "succeeded", "delivered", "ok", "enabled", "closed", "won"), "good"),
        **dict.fromkeys(("failed_final", "failed", "dead", "disabled", "open", "lost"), "bad"),
        **dict.fromkeys(
            ("failed_retryable", "unknown", "needs_review", "draining", "half_open", "needs_response"), "warn"
        ),
    }
)

FILTERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "money": money,
        "units": units,
        "utc": utc,
        "iso": iso,
        "duration": duration,
        "count_text": count,
        "tone": tone,
        "filled": filled,
    }
)
