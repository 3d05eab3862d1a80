"""The database's clock, estimated by a process: times from clients are compared with it, never with the process's clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class DatabaseClock:
    """The last time read from the database, advanced by the monotonic clock. Late by a round trip at most."""

    def __init__(self) -> None:
        self._read_at = datetime.now(UTC)  # until the first `set`
        self._read_s = time.monotonic()

    def set(self, now: datetime) -> None:
        """Set the time that the database has just returned."""
        self._read_at, self._read_s = now, time.monotonic()

    def now(self) -> datetime:
        """Return the database's time."""
        return self._read_at + timedelta(seconds=time.monotonic() - self._read_s)
