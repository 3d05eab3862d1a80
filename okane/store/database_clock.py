"""The database's clock as a process knows it: time that a client gave is compared with this one, never with its own."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class DatabaseClock:
    """Set by every answer that brings the database's time; goes on by itself meanwhile. Late by a round trip at most."""

    def __init__(self) -> None:
        self._read_at = datetime.now(UTC)  # until the database has said
        self._read_s = time.monotonic()

    def set(self, now: datetime) -> None:
        """Take over what the database has just said."""
        self._read_at, self._read_s = now, time.monotonic()

    def now(self) -> datetime:
        """The database's time."""
        return self._read_at + timedelta(seconds=time.monotonic() - self._read_s)
