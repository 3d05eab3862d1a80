"""Text and JSON that several commands print."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from okane.store import Event

# Reasons, names of keys and names of consumers come from outside and may hold brackets: nothing is read as markup.
CONSOLE = Console(highlight=False, markup=False, emoji=False)


def print_json(document: Mapping[str, Any]) -> None:
    """Print the document as one line."""
    print(json.dumps(document), flush=True)  # noqa: T201 - the command's answer


def format_time(moment: datetime) -> str:
    """Return the time in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def iso(moment: datetime) -> str:
    """Return the time in UTC as ISO 8601."""
    return moment.astimezone(UTC).isoformat()


def format_duration(span: timedelta) -> str:
    """Return `0.2 s`, `45 s`, `3 min`, `2.5 h` or `4 d`."""
    seconds = span.total_seconds()
    for limit, unit, size in ((10, "s", 1), (120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}" if limit == 10 or unit == "h" else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def event_document(event: Event) -> dict[str, Any]:
    """Return an event of a payment's history as JSON shows it."""
    return {
        "at": iso(event.at),
        "event": event.event,
        "status": event.status.value,
        "attempt": event.attempt,
        "actor": event.actor,
        "reason": event.reason,
    }
