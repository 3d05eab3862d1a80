"""The options of `okane torture`, and the short time-outs of the system under test. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from okane.config import parse_duration

# Every wait of the product, shortened so that a repair takes seconds. The network faults assume that a charge is delayed on
# its way by less than the consistency lag, as the setting promises (see faults/network.py).
SMALL: Mapping[str, str] = {
    "VISIBILITY_TIMEOUT": "2s",
    "OKANE_PROVIDER_TIMEOUT": "1s",
    "OKANE_SWEEP_GRACE": "1s",
    "OKANE_SWEEP_INTERVAL": "250ms",
    "OKANE_RETRY_BASE": "50ms",
    "OKANE_RETRY_CAP": "500ms",
    "OKANE_CONSISTENCY_LAG": "1500ms",
    "OKANE_LOOK_UP_DELAYS": "200ms,500ms,1s",
    "OKANE_LATE_LOOK_UPS": "1s,4s,12s",  # the last one after every request that the provider holds back (9 s)
    "OKANE_DRAIN": "5s",
    "MAX_RETRIES": "4",
    "WORKER_COUNT": "32",
    "OKANE_AUTH": "none",  # its clients carry no keys
}
_KILLS, _PAYMENTS = 50, 5_000
ONE, STANDBY, SENTINEL, CLUSTER = "one", "standby", "sentinel", "cluster"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _environment(texts: Sequence[str]) -> Mapping[str, str]:
    """Split each NAME=VALUE. Raises ValueError."""
    pairs = [text.partition("=") for text in texts]
    if not all(name and equals for name, equals, _ in pairs):
        raise ValueError("expected NAME=VALUE")
    return {name: value for name, _, value in pairs}


@dataclass(frozen=True, slots=True, kw_only=True)
class TortureOptions:
    """The options of `okane torture`. It runs until each of `minutes`, `kills` and `payments` is reached.

    None of the three means the short run: 50 kills, 5,000 payments. Raises ValueError for values that cannot be run.
    """

    minutes: float = field(default=0.0, metadata={"help": "minimum duration", "min": 0, "max": 1e6})
    kills: int = field(
        default=0, metadata={"help": f"minimum number of kill -9 (default: {_KILLS})", "min": 0, "max": 1_000_000}
    )
    payments: int = field(
        default=0,
        metadata={"help": f"minimum number of payments (default: {_PAYMENTS})", "min": 0, "max": 1_000_000_000},
    )
    rate: float = field(default=150.0, metadata={"help": "payments per second", "min": 0.1, "max": 1e6})
    workers: int = field(default=3, metadata={"help": "worker processes", "min": 2, "max": 64})
    apis: int = field(default=2, metadata={"help": "API processes", "min": 1, "max": 16})
    dispatchers: int = field(
        default=2, metadata={"help": "dispatcher processes; 0: no events and no webhooks", "min": 0, "max": 16}
    )
    partitions: bool = field(
        default=False, metadata={"help": "keep payments in table partitions of a day, not in one table"}
    )
    postgres: str = field(
        default=ONE,
        metadata={
            "help": f"{ONE}, or {STANDBY}: a primary with two standbys, of which one has to have each commit, and promotions"
        },
    )
    redis: str = field(
        default=ONE,
        metadata={
            "help": f"{ONE}; {SENTINEL}: a primary with a replica, and three sentinels that fail over; "
            f"or {CLUSTER}: three primaries, each with a replica"
        },
    )
    faults: Sequence[str] = field(
        default=(),
        metadata={"help": "only these, by name, separated by commas; `none` for no faults", "parse": _names},
    )
    list_faults: bool = field(default=False, metadata={"help": "list all faults and exit"})
    seed: int = field(default=0, metadata={"help": "seed of the schedule of faults and of the payments"})
    settings: Mapping[str, str] = field(
        default_factory=dict,
        metadata={
            "help": "NAME=VALUE in the environment of every okane process",
            "flag": "--set",
            "repeated": True,
            "parse": _environment,
        },
    )  # on top of SMALL
    rest_s: float = field(
        default=120.0,
        metadata={
            "help": "seconds that the healed system may take to come to rest",
            "flag": "--rest",
            "min": 1,
            "max": 1e6,
        },
    )
    data: Path | None = field(
        default=None, metadata={"help": "folder (default: a temporary one, kept if an invariant is violated)"}
    )
    json: bool = field(default=False, metadata={"help": "print JSON instead of text"})

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
        if self.postgres not in (ONE, STANDBY):
            raise ValueError(f"Postgres is `{ONE}` or `{STANDBY}`, not `{self.postgres}`")
        if self.redis not in (ONE, SENTINEL, CLUSTER):
            raise ValueError(f"Redis is `{ONE}`, `{SENTINEL}` or `{CLUSTER}`, not `{self.redis}`")
        if self.dispatchers == 1:
            raise ValueError("there must be two dispatchers or none: one of them may be dead")

    @property
    def env(self) -> Mapping[str, str]:
        """Return the settings of every okane process."""
        return {**SMALL, **self.settings}

    @property
    def lease_s(self) -> float:
        """Return the lease in seconds: a process that stops for longer loses its claims."""
        lease = parse_duration(self.env["VISIBILITY_TIMEOUT"])
        assert isinstance(lease, timedelta), "parse_duration raises for text that is none"
        return lease.total_seconds()

    @property
    def expected_payments(self) -> int:
        """Return the approximate number of payments, for the size of the disks."""
        # The schedule kills about once a second.
        return max(self.payments, int(self.rate * max(self.minutes * 60, self.kills * 1.5)))
