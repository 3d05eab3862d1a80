"""Fair shares: how many free slots each lane is offered, so that weights hold over time and no lane starves. Pure.

Two things can starve a lane: that others are always asked first, which the rotation prevents; and that others' messages
take so long that they hold every slot, which the quotas prevent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


class Rotation:
    """Smooth weighted round-robin (as nginx balances its upstreams), remembered between calls.

    Over any `sum(weights)` consecutive slots each lane gets exactly its weight, however the slots are cut into calls.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = tuple(weights)
        self._total = sum(weights)
        self._credit = [0] * len(self._weights)

    def shares(self, slots: int) -> list[int]:
        """Divides `slots` among the lanes."""
        # A whole turn leaves every credit as it was, so only the rest has to be dealt one by one.
        turns, rest = divmod(slots, self._total)
        shares = [turns * weight for weight in self._weights]
        for _ in range(rest):
            shares[self._deal()] += 1
        return shares

    def quotas(self, capacity: int, held: Sequence[int]) -> list[int]:
        """How many more slots each lane may take before it holds more than its weight's part of `capacity`.

        To be exceeded only by what no other lane wants. `held` is how many each holds now.
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
