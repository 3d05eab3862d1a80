"""The cursor of one endpoint queue in the log: every event up to `done_to` is delivered, given up, or has a row. Pure."""

from __future__ import annotations

from collections import deque


class Cursor:
    """Positions are taken in rising order and finished in any."""

    def __init__(self, done_to: int) -> None:
        self.read_to = done_to  # every event up to it was taken, or is not for this endpoint
        self._taken: deque[int] = deque()
        self._finished: set[int] = set()  # behind the oldest open one

    @property
    def done_to(self) -> int:
        """The position before the oldest one that is open."""
        return self._taken[0] - 1 if self._taken else self.read_to

    @property
    def open(self) -> int:
        """The number of positions that are taken and not finished."""
        return len(self._taken) - len(self._finished)

    def take(self, position: int) -> None:
        """Take a position. Raises ValueError if it is not above the others."""
        if position <= self.read_to:
            raise ValueError(f"position {position} was read before: the cursor is at {self.read_to}")
        self._taken.append(position)
        self.read_to = position

    def skip_to(self, position: int) -> None:
        """Note that no event up to here is for this endpoint, besides those taken."""
        self.read_to = max(self.read_to, position)

    def finish(self, position: int) -> None:
        """Finish a position that was taken."""
        self._finished.add(position)
        while self._taken and self._taken[0] in self._finished:
            self._finished.discard(self._taken.popleft())
