"""The priority lanes: their weights, and the lane of an amount."""

from __future__ import annotations

from dataclasses import dataclass

from streams import Lane, Stream

CRITICAL, DEFAULT, LOW = "critical", "default", "low"

# Of ten free places six go to the critical lane, three to the default one and one to the low one, as long as each has
# that many waiting; what a lane leaves unused goes to the others.
LANES = (Lane(CRITICAL, 6), Lane(DEFAULT, 3), Lane(LOW, 1))


def payments_stream(name: str) -> Stream:
    """Return the stream family of the payments: one stream a lane, delayed wake-ups and dead letters."""
    return Stream(name, lanes=LANES)


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Amounts from `critical_from_minor` on are critical, amounts under `low_below_minor` low."""

    critical_from_minor: int
    low_below_minor: int

    def lane_for(self, amount_minor: int) -> str:
        """Return the lane of an amount in minor units, of any currency (as the older systems did)."""
        if amount_minor >= self.critical_from_minor:
            return CRITICAL
        return LOW if amount_minor < self.low_below_minor else DEFAULT
