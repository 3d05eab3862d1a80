"""The scenario of a seed: dispatchers, endpoints, changes of payments, what owners do to their endpoints, and faults."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final, Literal

# What can go wrong, and how often it is chosen.
FAULTS: Final = {
    "kill": 4,
    "kill at request": 10,
    "kill at step": 8,
    "stop": 4,
    "stop at request": 14,
    "terminate": 4,
    "cut off": 4,
    "postgres down": 3,
    "postgres lossy": 5,
    "postgres slow": 3,
    "receiver away": 4,
    "receiver lossy": 4,
    "receiver refuses": 5,
    "receiver slow": 4,
    "receiver silent": 3,
    "receiver limits": 3,
    "receiver gone": 2,
}
Act = Literal["rotate", "pause", "delete", "create", "replay"]
ACTS: Final[tuple[Act, ...]] = ("rotate", "rotate", "pause", "pause", "delete", "create", "replay")
DELAYS_S: Final = (1.0, 3.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0, 60.0, 60.0)  # a run lasts minutes, not days


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, `at_s` after the start. Its target is decided when it comes."""

    kind: str
    at_s: float
    lasts_s: float


@dataclass(frozen=True, slots=True)
class EndpointPlan:
    """One endpoint."""

    types: tuple[str, ...]
    account: str
    max_in_flight: int
    hold_s: int
    timeout_s: int
    rate_limit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run."""

    seed: int
    dispatchers: int
    endpoints: tuple[EndpointPlan, ...]
    payments: int
    changes: int  # of each payment, at most
    arrivals_s: float
    lease_s: float
    acts: tuple[tuple[float, Act], ...]
    faults: tuple[Fault, ...]


def scenario(seed: int) -> Scenario:
    """Return the scenario of a seed."""
    dice = Random(f"webhooks {seed}")
    busy_s = dice.choice((3.0, 8.0, 15.0))
    count = dice.choice((0, 1, 2, 2, 3, 3, 4, 5))
    kinds = dice.choices(list(FAULTS), list(FAULTS.values()), k=count)
    return Scenario(
        seed=seed,
        dispatchers=dice.choice((1, 2, 2, 3)),
        endpoints=tuple(endpoint(dice) for _ in range(dice.randint(1, 4))),
        payments=dice.randint(3, 15),
        changes=dice.choice((1, 3, 6)),
        arrivals_s=busy_s * dice.random(),
        lease_s=dice.choice((4.0, 4.0, 10.0)),
        acts=tuple(sorted((busy_s * dice.random(), dice.choice(ACTS)) for _ in range(dice.choice((0, 0, 1, 2, 3))))),
        faults=tuple(
            Fault(
                kind,
                at_s=busy_s * dice.random() ** 2,
                lasts_s=dice.choice((0.3, 1.0, 3.0, 12.0)) * (0.3 + dice.random()),
            )
            for kind in kinds
        ),
    )


def endpoint(dice: Random) -> EndpointPlan:
    """Draw an endpoint."""
    return EndpointPlan(
        types=dice.choice(
            (("payment.*",), ("payment.*",), ("payment.succeeded",), ("payment.retry_scheduled", "payment.failed"))
        ),
        account=dice.choice(("a", "a", "b")),
        max_in_flight=dice.choice((1, 2, 8)),
        hold_s=dice.choice((0, 5, 300, 259_200)),
        timeout_s=dice.choice((1, 3, 15)),
        rate_limit=dice.choice((None, None, None, 5, 50)),
    )
