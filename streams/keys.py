"""A stream, its lanes, and the builders of all its Redis keys.

The stream's name is the hash tag of every key: in a cluster they share one slot, so that one script may use all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """One work queue: a Redis stream per lane, a set of delayed messages and a dead-letter stream."""

    name: str
    lanes: Sequence[Lane] = (Lane("default"),)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lanes", tuple(self.lanes))
        if not self.name or set(self.name) & set("{}"):
            raise ValueError(f"a stream's name has no braces and is not empty: {self.name!r}")
        if not self.lanes or len({lane.name for lane in self.lanes}) < len(self.lanes):
            raise ValueError("a stream has at least one lane, and lanes have different names")

    @property
    def lane_names(self) -> tuple[str, ...]:
        return tuple(lane.name for lane in self.lanes)

    @property
    def lane_keys(self) -> tuple[str, ...]:
        """The keys of all lanes, in the order of `lanes`."""
        return tuple(self.lane_key(lane.name) for lane in self.lanes)

    def lane_key(self, lane: str) -> str:
        return f"{{{self.name}}}:{lane}"

    @property
    def delayed_key(self) -> str:
        """The sorted set of delayed messages. The score is their due time by the server's clock, in ms."""
        return self.key("delayed")

    @property
    def dead_key(self) -> str:
        """The dead-letter stream."""
        return self.key("dead")

    def key(self, rest: str) -> str:
        """Return the key of this name in the stream's slot; also for a program's own keys beside the stream."""
        return f"{{{self.name}}}:{rest}"
