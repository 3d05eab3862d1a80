"""Durations and moments as the statements take them."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID


def milliseconds(duration: timedelta) -> int:
    """Return the duration in whole milliseconds."""
    return round(duration.total_seconds() * 1000)


def first_id(at_s: float) -> UUID:
    """Return the smallest uuid v7 of a moment, in seconds since the epoch (RFC 9562: 48 bits of milliseconds come first)."""
    at_ms = int(max(at_s, 0.0) * 1000)  # -infinity comes from a new `sweep_horizon`
    return UUID(int=min(at_ms, 2**48 - 1) << 80)
