"""The provider in the events of one payment. Pure; shared with the simulation's audit.

An attempt calls one provider at most. From the first claim whose call may have been executed, or may still
be, every event of the payment names that provider, until a soft decline was closed there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from okane.operation import OperationKind

# Outcomes after which no call of the attempt can be on its way, and no money has moved.
NOTHING_HAPPENED = frozenset({"unavailable", "deferred", "spent", "declined"})
# The requests and outcomes of captures, voids and refunds: they are called where the payment was charged.
OF_OPERATIONS = frozenset(
    {f"{kind}_{word}" for kind in OperationKind for word in ("requested", "failed", "canceled")}
    | {"captured", "voided", "refunded"}
)
# Written by a human, or about no call of the payment.
_NO_CALL = (
    frozenset({"retried", "canceled", "resolved", "unanswered", "dispute_opened", "dispute_closed"}) | OF_OPERATIONS
)


class Event(Protocol):
    """An event, as far as it is looked at here."""

    @property
    def event(self) -> str: ...

    @property
    def attempt(self) -> int: ...

    @property
    def provider(self) -> str | None: ...


E = TypeVar("E", bound=Event)


def providers_by_attempt(events: Sequence[Event]) -> Mapping[int, str]:
    """Return the provider of each attempt, by its claim or else by its outcome; not of one whose worker died silently."""
    named: dict[int, str] = {}
    for line in events:
        if line.provider is not None and line.event not in _NO_CALL:
            named.setdefault(line.attempt, line.provider)
    return named


def stray(events: Sequence[E]) -> E | None:
    """Return the first event that names another provider than its attempt's, or than that of the pin."""
    providers = providers_by_attempt(events)
    pinned: str | None = None
    in_work: str | None = None
    for line in events:
        if line.event in _NO_CALL:
            continue
        provider = providers.get(line.attempt)
        if line.provider is not None and line.provider != provider:
            return line
        if line.event == "claimed":
            pinned = pinned or in_work  # its worker died, or stalled
            if pinned is not None and provider not in (None, pinned):
                return line
            in_work = provider
        elif line.event == "fell_back":
            pinned = in_work = None
        elif line.event != "late_result":
            if line.event not in NOTHING_HAPPENED:
                pinned = pinned or in_work
            in_work = None
    return None
