"""The option `--day` of the commands about one day, and the progress that a long one prints."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import typer

from okane.errors import SetupError

Day = Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="a day in UTC (default: yesterday)")]

# A transaction dates its events by its begin: the last ones of a day may be committed a little after midnight.
COMMIT_MARGIN = timedelta(minutes=1)

_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_PROGRESS_S = 2.0


def day_span(text: str | None, *, now: datetime) -> tuple[date, datetime, datetime]:
    """Return the day, its begin and its end. Raises SetupError for no date, and for a day that has not begun."""
    today = now.astimezone(UTC).date()
    day = today - timedelta(days=1) if text is None else _parse(text)
    if day is None:
        raise SetupError(f"--day {text!r} is not a date like {today.isoformat()}")
    if day > today:
        raise SetupError(f"--day {day.isoformat()} has not begun: in UTC it is {today.isoformat()}")
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return day, begin, begin + timedelta(days=1)


def refuse_archived(day: date, begin: datetime, *, archived_before: datetime | None) -> None:
    """Raise SetupError for a day whose payments were archived: its movements are in files, and look like none here."""
    if archived_before is not None and begin < archived_before:
        raise SetupError(
            f"--day {day.isoformat()}: payments from before {archived_before.isoformat()} were archived (okane archive)"
        )


def is_over(end: datetime, *, now: datetime) -> bool:
    """Return whether everything of the day that ends then is committed."""
    return now >= end + COMMIT_MARGIN


def _parse(text: str) -> date | None:
    with contextlib.suppress(ValueError):  # February 30
        return date.fromisoformat(text) if _DAY.fullmatch(text) else None
    return None


class Progress:
    """Lines on stderr about work that takes longer than two seconds, for a human at a terminal."""

    def __init__(self, *, every_s: float = _PROGRESS_S, is_shown: bool | None = None) -> None:
        self._every_s = every_s
        self._is_shown = sys.stderr.isatty() if is_shown is None else is_shown
        self._last_s = time.monotonic()

    def show(self, text: str) -> None:
        """Print the text, unless the last line is too recent."""
        now_s = time.monotonic()
        if self._is_shown and now_s - self._last_s >= self._every_s:
            self._last_s = now_s
            typer.echo(text, err=True)
