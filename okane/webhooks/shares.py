"""The shares of live events, retries and replays in the slots of one endpoint queue: 2 : 1 : 1. Pure.

A kind that has fewer requests in flight for its weight comes first; between equals the one that began fewer. Slots that one
kind leaves unused go to the others.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence


class Kind(enum.IntEnum):
    """The reason for a delivery's request."""

    LIVE = 0
    RETRY = 1
    REPLAY = 2


_WEIGHTS = {Kind.LIVE: 2, Kind.RETRY: 1, Kind.REPLAY: 1}


class Shares:
    """The requests in flight and begun, by kind."""

    def __init__(self) -> None:
        self._in_flight = dict.fromkeys(Kind, 0)
        self._begun = dict.fromkeys(Kind, 0.0)  # by weight

    def choose(self, kinds: Sequence[Kind]) -> Kind:
        """Return the kind to begin next, of those that have something to send (one at least)."""
        if len(kinds) == 1:
            return kinds[0]
        return min(kinds, key=lambda kind: (self._in_flight[kind] / _WEIGHTS[kind], self._begun[kind], kind))

    def begin(self, kind: Kind) -> None:
        """Count a request that begins."""
        self._in_flight[kind] += 1
        self._begun[kind] += 1 / _WEIGHTS[kind]
        # A kind that had nothing to send for an hour does not get the whole hour back.
        behind = self._begun[kind] - 1
        for other, begun in self._begun.items():
            self._begun[other] = max(begun, behind)

    def end(self, kind: Kind) -> None:
        """Count a request that ended."""
        self._in_flight[kind] -= 1
