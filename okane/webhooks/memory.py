"""The memory that events take in a dispatcher, by bytes: a limit for each endpoint queue, and one for all of them. Pure.

Guarantee: a queue that holds nothing of a kind may always read a few events, so that no other queue can stop it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

QUEUE_BYTES = 5_000_000  # of one queue: a full buffer of the largest events
TOTAL_BYTES = 256_000_000  # of all queues of a process
PAGE = 64  # events that a read is worth its cost for
FEW = 8  # events of a kind that a queue may hold beyond the limits

_PLAIN_BYTES = 1_200  # of an event without metadata: its row, its delivery and their strings
MAX_EVENT_BYTES = 16_000  # with 2 kB of metadata as jsonb in 50 members, whose strings may take four bytes a letter


def event_bytes(metadata: Mapping[str, str] | None) -> int:
    """Return about how much memory an event with this metadata takes."""
    if not metadata:
        return _PLAIN_BYTES
    strings = sum(sys.getsizeof(name) + sys.getsizeof(text) for name, text in metadata.items())
    return _PLAIN_BYTES + sys.getsizeof(metadata) + strings


class Memory:
    """The memory of a process."""

    def __init__(self, most_bytes: int = TOTAL_BYTES) -> None:
        self.most_bytes = most_bytes
        self.used_bytes = 0


class QueueMemory:
    """The memory of one queue, a part of its process's."""

    def __init__(self, whole: Memory, most_bytes: int = QUEUE_BYTES) -> None:
        self.used_bytes = 0
        self._whole = whole
        self._most_bytes = most_bytes
        self._is_closed = False

    def room(self, most: int, *, has_none: bool) -> int:
        """Return how many of `most` events may be read. `has_none`: the queue holds no event of their kind."""
        return max(min(most, self._left_bytes // MAX_EVENT_BYTES), min(most, FEW) if has_none else 0)

    @property
    def is_short(self) -> bool:
        """True if a usual page would not fit."""
        return self._left_bytes < PAGE * MAX_EVENT_BYTES

    @property
    def _left_bytes(self) -> int:
        return min(self._most_bytes - self.used_bytes, self._whole.most_bytes - self._whole.used_bytes)

    def take(self, size: int) -> None:
        """Count an event of so many bytes."""
        if not self._is_closed:
            self.used_bytes += size
            self._whole.used_bytes += size

    def give(self, size: int) -> None:
        """Count an event as ended."""
        self.take(-size)

    def close(self) -> None:
        """Give everything back: the queue is left."""
        self.give(self.used_bytes)
        self._is_closed = True
