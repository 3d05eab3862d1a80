"""The tally of a run: kills, faults, unexpected exits. Mutable."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Death:
    """A process that was killed, by the clock that the database and we share (seconds since the epoch)."""

    process: str
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The end of a process, of whatever cause: when it was last seen alive, and when it was seen to be gone (since the
    epoch). `code` is negative for a signal."""

    process: str
    alive_s: float
    gone_s: float
    code: int


@dataclass(frozen=True, slots=True)
class Stall:
    """A time in which this program got no processor, and so perhaps no other one (since the epoch)."""

    since_s: float
    until_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchedTime:
    """A time in which a provider was switched to `off` or `drain` for sure, by Postgres' clock, since the epoch."""

    provider: str
    mode: str
    since_s: float
    until_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultTime:
    """The time of a fault, since the epoch, from before it was made until it had healed; `touched` is what it struck."""

    fault: str
    touched: frozenset[str]
    since_s: float
    until_s: float


@dataclass(slots=True, kw_only=True)
class Strike:
    """A failpoint that struck in a process, between two times since the epoch.

    One that stops lasts until the process was woken; one that delays or raises may strike from its arming to the end of the
    process, once.
    """

    process: str
    action: str
    since_s: float
    until_s: float = math.inf


@dataclass(slots=True)
class Tally:
    """Counts by kind, and the moments that repairs are measured from."""

    kills: Counter[str] = field(default_factory=Counter)  # kill -9 by kind of process
    made: Counter[str] = field(default_factory=Counter)  # faults by name
    failed: dict[str, str] = field(default_factory=dict)  # faults that went wrong themselves: why
    points: Counter[str] = field(default_factory=Counter)  # failpoints that struck
    times: list[FaultTime] = field(default_factory=list)
    strikes: list[Strike] = field(default_factory=list)
    dead_endpoint: tuple[float, float, float] | None = (
        None  # when the repairs began, when it died, and when it was back
    )
    deaths: list[Death] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    stalls: list[Stall] = field(default_factory=list)
    rights_missing_until_s: float = -math.inf  # by the monotonic clock
    redis_lost: list[float] = field(default_factory=list)  # when a primary went away until another one was promoted
    redis_back: list[float] = field(default_factory=list)  # seconds since the epoch
    promoted: list[float] = field(default_factory=list)  # when a standby of Postgres took writes, since the epoch
    calm_from_s: float = float("inf")  # what died later died alone
    unexpected: Counter[str] = field(default_factory=Counter)  # unintended exits
    helped: Counter[str] = field(default_factory=Counter)  # programs that started only after a repair by hand
    switched: list[SwitchedTime] = field(default_factory=list)
    now: dict[int, str] = field(default_factory=dict)  # faults in force, by step

    @property
    def kill_count(self) -> int:
        return self.kills.total()

    @contextlib.contextmanager
    def rights_missing(self) -> Iterator[None]:
        """Note that the processes lack a right to Redis inside the block: one that starts meanwhile says so, and ends."""
        self.rights_missing_until_s = math.inf
        try:
            yield
        finally:
            self.rights_missing_until_s = time.monotonic()

    def killed(self, kind: str, name: str) -> None:
        """A process was ended by kill -9."""
        self.kills[kind] += 1
        self.deaths.append(Death(name, time.time()))
