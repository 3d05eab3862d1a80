"""The scenario of a seed: the number of processes, their settings, the payments, and the faults with their times."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Final, Literal

from tests.simulation.redis import Refusal

# What can go wrong, and how often it is chosen.
FAULTS: Final = {
    "kill": 4,
    "kill at request": 10,
    "kill at step": 6,
    "stop at request": 12,
    "stop": 4,
    "terminate": 3,
    "cut off": 3,
    "redis down": 3,
    "redis flushed": 3,
    "redis failover": 3,
    "redis full": 3,
    "redis lossy": 5,
    "redis slow": 3,
    "redis refuses": 3,
    "postgres down": 4,
    "postgres lossy": 5,
    "postgres slow": 3,
    "postgres busy": 2,
    "provider lossy": 4,
    "provider refuses": 3,
    "provider slow": 3,
    "provider holds": 4,
    "provider limits": 3,
    "provider fails": 3,
    "provider away": 2,
    "provider switched": 4,
    "circuit open": 2,
}


# How a world's workers choose between two providers; in the other worlds there is one.
CHOICES: Final = (("simulated", "stripe"), ("stripe", "simulated"), ("stripe",))

HELD_S: Final = 6.0  # how long at most a request that is held back arrives after its sender has given up

# Where the first payment kills every worker that takes it: before it is claimed, or when the provider is called.
Poison = Literal["handler", "provider"]


# What a Redis may refuse that answers: everything (a cluster's node that does not own the slot), or what this user has no
# right to any more, while everything else works.
REFUSALS: Final = {
    "everything": Refusal("MOVED 866 127.0.0.1:1"),
    "its keys": Refusal("NOPERM No permissions to access a key"),
    "reading": Refusal(
        "NOPERM User okane has no permissions to run the 'xreadgroup' command", frozenset([b"XREADGROUP"])
    ),
    "acknowledging": Refusal("NOPERM User okane has no permissions to run the 'xack' command", frozenset([b"XACK"])),
    "adding": Refusal("NOPERM User okane has no permissions to run the 'xadd' command", frozenset([b"XADD"])),
    "taking over": Refusal("ERR unknown command 'XAUTOCLAIM'", frozenset([b"XAUTOCLAIM"])),
    "scripts": Refusal(
        "NOPERM User okane has no permissions to run the 'evalsha' command", frozenset([b"EVALSHA", b"EVAL"])
    ),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, `at_s` after the start. What it hits is decided when it comes."""

    kind: str
    at_s: float
    lasts_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run."""

    seed: int
    apis: int
    workers: int
    payments: int
    arrivals_s: float  # all payments come within this time
    concurrency: int
    lease: timedelta
    grace: timedelta
    sweep_interval: timedelta
    drain: timedelta
    poll: timedelta
    retry_base: timedelta
    retry_cap: timedelta
    max_retries: int
    max_deliveries: int
    max_length: int
    consistency_lag: timedelta
    provider_timeout: timedelta
    look_up_delays: tuple[timedelta, ...]
    unknown_deadline: timedelta
    late_look_ups: tuple[timedelta, ...]
    stable_names: bool
    quiet_provider: bool
    providers: tuple[str, ...]  # the candidates of a payment that asks for none, in their order
    breakers: bool  # whether workers have circuit breakers
    gateway_deadline: timedelta  # the deadline of an open outcome there: a saved failure ends it
    key_lifetime: timedelta  # of a gateway's keys, as its adapter says
    key_kept: timedelta  # and as the gateway keeps them
    pending_deadline: timedelta
    poll_delays: tuple[timedelta, ...]
    poison: Poison | None
    tidy: bool  # wait until the janitor has been round, too
    refuses: str | None  # what Redis refuses from some moment on, until all payments have come to rest without it
    faults: tuple[Fault, ...]

    @property
    def spares_innocents(self) -> bool:
        """True if only poison kills workers, and no outcome is given up before it is found out."""
        return (
            self.poison is not None
            and not self.faults
            and not self.refuses
            and self.unknown_deadline > timedelta(hours=1)
            and "stripe" not in self.providers  # idle customers, and failures that are saved
        )


def scenario(seed: int) -> Scenario:
    """Return the scenario of a seed."""
    dice = Random(f"scenario {seed}")
    lease_s = dice.choices((2.0, 4.0, 8.0, 30.0), (10, 50, 35, 5))[0]
    lag_s = dice.choice((0.2, 0.5, 1.0))
    # Settings allow only less than the lease; the pipeline must stand more.
    timeout_s = lease_s * dice.choice((0.3, 0.6, 0.9, 0.9, 1.6))
    busy_s = dice.choice((1.0, 2.0, 5.0))
    poison: Poison | None = dice.choice(("handler", "provider")) if dice.random() < 0.06 else None
    refuses = dice.choice(list(REFUSALS)) if dice.random() < 0.06 else None
    gateways = Random(f"gateways {seed}")
    key_s = gateways.choice((2.0, 4.0, 3600.0))
    return Scenario(
        seed=seed,
        apis=dice.choice((1, 2)),
        workers=dice.choice((2, 2, 3)),
        payments=dice.randint(5, 20),
        arrivals_s=busy_s * dice.random(),
        concurrency=dice.choice((1, 2, 4, 16)),
        lease=timedelta(seconds=lease_s),
        grace=timedelta(seconds=dice.choice((1.0, 2.0, 5.0))),
        sweep_interval=timedelta(seconds=dice.choice((1.0, 2.0))),
        drain=timedelta(seconds=dice.choice((0.2, 2.0, 10.0))),
        poll=timedelta(seconds=dice.choice((0.25, 1.0, 1.0))),
        retry_base=timedelta(seconds=dice.choice((0.1, 0.5))),
        retry_cap=timedelta(seconds=4),
        max_retries=dice.choice((0, 1, 2, 7)),
        max_deliveries=dice.choice((3, 5)),
        max_length=dice.choice((5, 100_000, 100_000)),
        consistency_lag=timedelta(seconds=lag_s),
        provider_timeout=timedelta(seconds=timeout_s),
        look_up_delays=tuple(timedelta(seconds=each) for each in (lag_s * 0.6, 1.0, 3.0)),
        unknown_deadline=timedelta(seconds=dice.choice((5, 86_400, 86_400, 86_400))),
        late_look_ups=tuple(timedelta(seconds=each) for each in (1.0, 4.0, timeout_s + lag_s * 2 + HELD_S)),
        stable_names=dice.random() < 0.5,
        quiet_provider=dice.random() < 0.3,
        providers=gateways.choice(CHOICES) if gateways.random() < 0.5 else ("simulated",),
        breakers=gateways.random() < 0.5,
        # Shorter than a long lifetime, as the adapter demands; the pipeline must stand a lifetime that is shorter, too.
        gateway_deadline=timedelta(seconds=gateways.choice((5, 60))),
        key_lifetime=timedelta(seconds=key_s),
        # Every request under a key that lives arrives before the key is forgotten, however long it is held back.
        key_kept=timedelta(seconds=key_s + 2 * lease_s + timeout_s + lag_s + HELD_S),
        pending_deadline=timedelta(seconds=30),
        poll_delays=tuple(timedelta(seconds=each) for each in (0.5, 2.0, 5.0)),
        poison=poison,
        tidy=lease_s < 10 and dice.random() < 0.05,
        # Only Redis counts what dies before its claim, and only if messages are taken over there (docs/guarantees.md).
        refuses=None if poison == "handler" else refuses,
        faults=_faults(dice, busy_s, timeout_s + HELD_S, key_s + 2 * lease_s + timeout_s + HELD_S),
    )


def _faults(dice: Random, busy_s: float, held_s: float, key_s: float) -> tuple[Fault, ...]:
    """Draw the faults. A provider that holds requests back does so until the first of them are tried again; one that is away
    stays so until it has forgotten its keys, if that is soon."""
    longer_s = {"provider holds": held_s, "provider away": key_s if key_s < 100 else 0.0}
    count = dice.choice((0, 1, 2, 2, 3, 3, 4, 5))
    kinds = dice.choices(list(FAULTS), list(FAULTS.values()), k=count)
    return tuple(
        Fault(
            kind,
            at_s=busy_s * dice.random() ** 2,
            lasts_s=dice.choice((0.3, 1.0, 2.0, 5.0)) * (0.3 + dice.random()) + longer_s.get(kind, 0.0),
        )
        for kind in kinds
    )
