"""The ways in which the way to a server can break. Pure values; `proxy.py` makes them happen."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import assert_never


class Direction(enum.Enum):
    """The direction that a fault strikes."""

    BOTH = "both"
    TO_SERVER = "to server"
    TO_CLIENT = "to client"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Every chunk comes later by `delay_ms`, and by up to `jitter_ms` more; never out of order."""

    delay_ms: float
    jitter_ms: float = 0.0
    direction: Direction = Direction.BOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """Nothing gets through; all of it is kept, and delivered when the proxy is healed."""

    direction: Direction = Direction.BOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Blackhole:
    """Bytes vanish and connections hang, new ones included. Those that lost bytes are reset when the proxy is healed."""

    direction: Direction = Direction.BOTH


@dataclass(frozen=True, slots=True)
class Refuse:
    """New connections are refused, as by a server that is not there. Present ones go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoseReplies:
    """Requests get through, replies do not: the connection is reset once `after_bytes` of them were swallowed."""

    after_bytes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Drip:
    """`chunk_bytes` get through every `every_ms`."""

    chunk_bytes: int = 1
    every_ms: float = 10.0
    direction: Direction = Direction.BOTH


Fault = Latency | Stall | Blackhole | Refuse | LoseReplies | Drip


def strikes(fault: Fault | None, direction: Direction) -> bool:
    """Return True if this fault strikes the bytes in this direction (one of the two, not BOTH)."""
    match fault:
        case None | Refuse():
            return False
        case LoseReplies():
            return direction is Direction.TO_CLIENT
        case Latency() | Stall() | Blackhole() | Drip():
            return fault.direction in (Direction.BOTH, direction)
        case _:
            assert_never(fault)
