"""The provider in the events of one payment. Pure; shared with the simulation's audit.

A claim names the provider that may be called under it. From the first claim whose call may have been executed, or may still
be, every event of the payment names that provider.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

# Outcomes after which no call of the attempt can be on its way, and no money has moved.
NOTHING_HAPPENED = frozenset({"unavailable", "deferred", "spent", "declined"})
# Written by a human, or about no call.
_NO_CALL = frozenset({"retried", "canceled", "resolved", "unanswered"})


class Event(Protocol):
    """An event, as far as it is looked at here."""

    @property
    def event(self) -> str: ...

    @property
    def attempt(self) -> int: ...

    @property
    def provider(self) -> str | None: ...


E = TypeVar("E", bound=Event)


def stray(events: Sequence[E]) -> E | None:
    """Return the first event that names another provider than its claim, or than the one that the payment is pinned to."""
    claims: dict[int, str | None] = {}
    pinned: str | None = None
    in_work: str | None = None
    for line in events:
        if line.event in _NO_CALL:
            continue
        if line.event == "claimed":
            pinned = pinned or in_work  # its worker died, or stalled
            if line.provider is None or (pinned is not None and line.provider != pinned):
                return line
            claims[line.attempt] = in_work = line.provider
            continue
        if line.provider is not None and line.provider != claims.get(line.attempt):
            return line
        if line.event == "late_result":
            continue
        if line.event not in NOTHING_HAPPENED:
            pinned = pinned or in_work
        in_work = None
    return None
