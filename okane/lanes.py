"""The lanes of the two stream families, with their weights, and the lane of an amount."""

from __future__ import annotations

from dataclasses import dataclass

from streams import Lane, Stream

CRITICAL, DEFAULT, LOW = "critical", "default", "low"

# Of ten free places six go to the critical lane, three to the default one and one to the low one, as long as each has
# that many waiting; what a lane leaves unused goes to the others.
LANES = (Lane(CRITICAL, 6), Lane(DEFAULT, 3), Lane(LOW, 1))


# One lane for each kind of operation, so that a storm of refunds delays no capture and no void.
OPERATION_LANES = (Lane("capture", 5), Lane("void", 3), Lane("refund", 2))


def payments_stream(name: str) -> Stream:
    """Return the stream family of the payments: one stream a lane, delayed wake-ups and dead letters."""
    return Stream(name, lanes=LANES)


def operations_stream(name: str) -> Stream:
    """Return the stream family of captures, voids and refunds. An entry's body is the id of the operation, 16 bytes."""
    return Stream(name, lanes=OPERATION_LANES)


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
