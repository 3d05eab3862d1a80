"""The turns of searches that no index answers.

Guarantee: no search takes payments down. Each reads for a second at most, then says how far it came; two run at a time, one
of each session, and the next is refused with a time to wait.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

BUDGET_S = 1.0  # of one search
SEARCHES = 2  # at a time, of all sessions
WAIT_S = 2  # until the next may run


class SearchTurns:
    """The searches that run in this process."""

    def __init__(self) -> None:
        self._running: set[str] = set()  # their sessions

    @contextlib.contextmanager
    def take(self, session_id: str) -> Iterator[bool]:
        """Hold a turn inside the block; yield False if there is none."""
        if session_id in self._running or len(self._running) >= SEARCHES:
            yield False
            return
        self._running.add(session_id)
        try:
            yield True
        finally:
            self._running.discard(session_id)
