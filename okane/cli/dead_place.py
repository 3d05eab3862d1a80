"""A position in the list of `okane dead ls`, as its next page is asked for. It outlives what it names, which may leave the
list before that."""

from __future__ import annotations

import contextlib
from datetime import datetime

from okane.cli.output import iso
from okane.errors import SetupError
from okane.payment_id import parse_id
from okane.store.dead_letters import Place


def cursor(at: Place) -> str:
    """Return a position as text."""
    dead_at, dead_id = at
    return f"{iso(dead_at)},{dead_id}"


def place(text: str) -> Place:
    """Parse a position. Raises SetupError."""
    at, _, id_ = text.partition(",")
    with contextlib.suppress(ValueError):
        dead_at = datetime.fromisoformat(at)
        if dead_at.tzinfo is not None and (dead_id := parse_id(id_)) is not None:
            return dead_at, dead_id
    raise SetupError(f"{text!r} is not a position in the list: give TIME,ID as the list prints it for the next page")
