"""Fair shares of the free slots: lanes are served by weight over time, and none starves. Pure.

A lane can starve when others are always read first, which the rotation prevents, or when the messages of others take so
long that they hold every slot, which the quotas prevent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


class Rotation:
    """Smooth weighted round-robin, as nginx balances its upstreams. The state lasts between calls.

    Of any `sum(weights)` consecutive slots each lane gets exactly its weight, however calls divide the slots.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = tuple(weights)
        self._total = sum(weights)
        self._credit = [0] * len(self._weights)

    def shares(self, slots: int) -> list[int]:
        """Return the share of each lane in `slots`."""
        # A whole turn leaves every credit unchanged, so only the rest is dealt one by one.
        turns, rest = divmod(slots, self._total)
        shares = [turns * weight for weight in self._weights]
        for _ in range(rest):
            shares[self._deal()] += 1
        return shares

    def quotas(self, capacity: int, held: Sequence[int]) -> list[int]:
        """Return how many more slots each lane may take up to its weight's part of `capacity`, given those `held` now.

        Slots that no other lane uses may exceed it.
        """
        return [
            max(0, math.ceil(capacity * weight / self._total) - holds)
            for weight, holds in zip(self._weights, held, strict=True)
        ]

    def _deal(self) -> int:
        for lane, weight in enumerate(self._weights):
            self._credit[lane] += weight
        winner = max(range(len(self._credit)), key=self._credit.__getitem__)
        self._credit[winner] -= self._total
        return winner
