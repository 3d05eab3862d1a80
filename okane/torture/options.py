"""What `okane torture` is asked to do, and the small numbers that the system under it runs on. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from okane.config import parse_duration

# Every wait of the product, shortened so that a repair takes seconds. What the network faults assume: a charge may be held
# up on its way for less than the consistency lag, as the setting's own promise says (see faults/network.py).
SMALL: Mapping[str, str] = {
    "VISIBILITY_TIMEOUT": "2s",
    "OKANE_PROVIDER_TIMEOUT": "1s",
    "OKANE_SWEEP_GRACE": "1s",
    "OKANE_SWEEP_INTERVAL": "250ms",
    "OKANE_RETRY_BASE": "50ms",
    "OKANE_RETRY_CAP": "500ms",
    "OKANE_CONSISTENCY_LAG": "1500ms",
    "OKANE_LOOK_UP_DELAYS": "200ms,500ms,1s",
    "OKANE_LATE_LOOK_UPS": "1s,4s,12s",  # the last after all that the provider holds back (9 s)
    "OKANE_DRAIN": "5s",
    "MAX_RETRIES": "4",
    "WORKER_COUNT": "32",
    "OKANE_AUTH": "none",  # its clients carry no keys
}
_KILLS, _PAYMENTS = 50, 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TortureOptions:
    """Everything `okane torture` takes. It runs until each of `minutes`, `kills` and `payments` is reached.

    None of the three means the short run: 50 kills, 5,000 payments. Raises ValueError for what cannot be run.
    """

    data: Path | None = None  # None: a temporary folder, kept when the verdict is bad
    seed: int = 0
    minutes: float = 0.0
    kills: int = 0
    payments: int = 0
    rate: float = 150.0  # payments a second
    workers: int = 3
    apis: int = 2
    faults: Sequence[str] = ()  # their names; empty: all; "none": not any
    settings: Mapping[str, str] = field(default_factory=dict)  # of the okane processes, on top of SMALL
    rest_s: float = 120.0  # how long the healed system may take to come to rest
    json: bool = False

    def __post_init__(self) -> None:
        if min(self.minutes, self.kills, self.payments) < 0:
            raise ValueError("minutes, kills and payments must not be negative")
        if not (self.minutes or self.kills or self.payments):
            object.__setattr__(self, "kills", _KILLS)
            object.__setattr__(self, "payments", _PAYMENTS)
        if not self.rate > 0 or not self.rest_s > 0:
            raise ValueError("the rate and the time to come to rest must be above 0")
        if not all(name.isidentifier() for name in self.settings):
            raise ValueError("settings are named as in the environment: VISIBILITY_TIMEOUT, OKANE_SWEEP_GRACE, ...")
        if self.lease_s <= 0:
            raise ValueError("VISIBILITY_TIMEOUT, the lease, must be above 0")
        if self.workers < 2 or self.apis < 1:
            raise ValueError("there must be two workers and one API at least: one of them may be dead")

    @property
    def env(self) -> Mapping[str, str]:
        """The settings of every okane process."""
        return {**SMALL, **self.settings}

    @property
    def lease_s(self) -> float:
        """How long a claim holds: what stops a process longer than this is a fault."""
        lease = parse_duration(self.env["VISIBILITY_TIMEOUT"])
        assert isinstance(lease, timedelta), "parse_duration raises for text that is none"
        return lease.total_seconds()

    @property
    def expected_payments(self) -> int:
        """About how many payments will be made, for the size of the disks."""
        # A kill a second is what the schedule comes to.
        return max(self.payments, int(self.rate * max(self.minutes * 60, self.kills * 1.5)))
