"""Since when Postgres and Redis have not answered, as the requests to them have noticed.

Guarantee: a server that hangs costs one page at a time its time-outs. The others say at once that it does not answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

SLOW_S = 0.5  # a server that refuses at once may be asked by every page
SILENT_S = 4.0  # after a request that waited in vain; then one page tries again


class Outage:
    """The state of one server. `since` is the time at which it was first noticed to be away, None while it answers."""

    def __init__(self, now: Callable[[], datetime], clock: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._clock = clock
        self._silent_until_s = 0.0
        self.since: datetime | None = None

    def notice(self, waited_s: float = 0.0) -> datetime:
        """Note that a request, which has waited for so long, had no answer; return since when that is so."""
        if waited_s >= SLOW_S:
            self._silent_until_s = self._clock() + SILENT_S
        self.since = self.since or self._now()
        return self.since

    def end(self) -> None:
        """Note that the server answers."""
        self.since = None

    def is_silent(self) -> bool:
        """Tell whether a page should not wait for the server. After a while it is False for one page, which tries again."""
        now_s = self._clock()
        if self.since is None or not self._silent_until_s:
            return False
        if now_s < self._silent_until_s:
            return True
        self._silent_until_s = now_s + SILENT_S
        return False


@dataclass(frozen=True, slots=True)
class Outages:
    """The servers."""

    postgres: Outage
    redis: Outage

    @classmethod
    def none(cls, now: Callable[[], datetime], clock: Callable[[], float] = time.monotonic) -> Outages:
        """Return the state in which both answer."""
        return cls(Outage(now, clock), Outage(now, clock))
