"""Text and JSON that several commands print."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from okane.store import Event

# Reasons, names of keys and names of consumers come from outside and may hold brackets: nothing is read as markup.
CONSOLE = Console(highlight=False, markup=False, emoji=False)


def print_json(document: Mapping[str, Any]) -> None:
    """Print the document as one line."""
    print(json.dumps(document), flush=True)  # noqa: T201 - the command's answer


def more_line(shown: int) -> str:
    """Return the line below a list that has more members than are shown."""
    return f"these are the newest {shown:,}; more: --limit"


def iso(moment: datetime) -> str:
    """Return the time in UTC as ISO 8601."""
    return moment.astimezone(UTC).isoformat()


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
