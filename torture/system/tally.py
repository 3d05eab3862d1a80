"""The tally of a run: kills, faults, unexpected exits. Mutable."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Death:
    """A process that was killed, by the clock that the database and we share (seconds since the epoch)."""

    process: str
    at_s: float


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


@dataclass(frozen=True, slots=True)
class Strike:
    """A failpoint that struck in a process, or was armed there if it delays or raises, and when (since the epoch)."""

    process: str
    action: str
    at_s: float


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
    redis_back: list[float] = field(default_factory=list)  # seconds since the epoch
    calm_from_s: float = float("inf")  # what died later died alone
    unexpected: Counter[str] = field(default_factory=Counter)  # unintended exits
    helped: Counter[str] = field(default_factory=Counter)  # programs that started only after a repair by hand
    switched: list[SwitchedTime] = field(default_factory=list)
    now: dict[int, str] = field(default_factory=dict)  # faults in force, by step

    @property
    def kill_count(self) -> int:
        return self.kills.total()

    def killed(self, kind: str, name: str) -> None:
        """A process was ended by kill -9."""
        self.kills[kind] += 1
        self.deaths.append(Death(name, time.time()))
