"""Fair shares: how many free slots each lane is offered, so that weights hold over time and no lane starves. Pure."""

from __future__ import annotations

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

    def _deal(self) -> int:
        for lane, weight in enumerate(self._weights):
            self._credit[lane] += weight
        winner = max(range(len(self._credit)), key=self._credit.__getitem__)
        self._credit[winner] -= self._total
        return winner
