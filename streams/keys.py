"""A stream, its lanes, and the builders of all its Redis keys.

The stream's name is the hash tag of every key: in a cluster they share one slot, so that one script may use all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

_RESERVED = frozenset({"delayed", "dead"})


@dataclass(frozen=True, slots=True)
class Lane:
    """One priority. While every lane has work, each is served in proportion to its `weight`."""

    name: str
    weight: int = 1

    def __post_init__(self) -> None:
        if not self.name or self.name in _RESERVED or set(self.name) & set("{}:"):
            raise ValueError(f"a lane's name has no braces or colons and is none of {sorted(_RESERVED)}: {self.name!r}")
        if self.weight < 1:
            raise ValueError(f"a lane's weight is at least 1: {self.weight}")


@dataclass(frozen=True, slots=True)
class Stream:
    """One work queue: a Redis stream per lane, a set of delayed messages and a dead-letter stream.

    `delayed_key` is a sorted set whose scores are due times by the server's clock, in ms. The keys are built once.
    """

    name: str
    lanes: Sequence[Lane] = (Lane("default"),)
    lane_names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    lane_keys: tuple[str, ...] = field(init=False, repr=False, compare=False)
    delayed_key: str = field(init=False, repr=False, compare=False)
    dead_key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lanes = tuple(self.lanes)
        if not self.name or set(self.name) & set("{}"):
            raise ValueError(f"a stream's name has no braces and is not empty: {self.name!r}")
        if not lanes or len({lane.name for lane in lanes}) < len(lanes):
            raise ValueError("a stream has at least one lane, and lanes have different names")
        derived = {
            "lanes": lanes,
            "lane_names": tuple(lane.name for lane in lanes),
            "lane_keys": tuple(self.key(lane.name) for lane in lanes),
            "delayed_key": self.key("delayed"),
            "dead_key": self.key("dead"),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def lane_key(self, lane: str) -> str:
        return self.key(lane)

    def key(self, rest: str) -> str:
        """Return the key of this name in the stream's slot; also for a program's own keys beside the stream."""
        return f"{{{self.name}}}:{rest}"
