"""Payments that wait already, worked off by workers alone: what claim, charge and settlement cost, acceptance left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench import costs, database, redis_state
from bench.system import OKANE, Provider, System, deployed

NO_LIMIT = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """The result of a drain. `cpu_us` is the cost of a settled payment by kind of process, without the start of workers."""

    entries: int
    per_s: float
    cpu_us: Mapping[str, float]

    @property
    def ours_us(self) -> float:
        return sum(self.cpu_us[kind] for kind in costs.OURS)


def drain(
    system: System,
    charged: Provider,
    url: str,
    *,
    payments: int,
    until: int | None = None,
    workers: int = 1,
    lane_limit: int = NO_LIMIT,
    beside: Callable[[str], None] | None = None,
    env: Mapping[str, str] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Drained:
    """Put so many payments and their wake-ups in, and let workers settle them, or the first `until` of them.

    `beside` is called with the name of the stream before the wake-ups are there, to put other things in. Redis is empty
    before, and what it counts begins when the workers do.
    """
    with system.redis_client() as client:
        client.flushall()
    since = database.add_pending(url, payments)
    with deployed(system, OKANE, database_url=url, provider_url=charged.url, env=env) as deployment:
        if beside is not None:
            beside(deployment.stream)
        entries = redis_state.add_wake_ups(system, url, since, deployment.stream, lane_limit=lane_limit)
        redis_state.reset(system)
        deployment.start_workers(workers)
        pids = costs.pids_of(system, deployment, charged)
        before, before_s = database.settled(url, since), costs.cpu_s(pids)
        within_s = 120 + payments / 50
        check = deployment.check_alive
        database.wait_settled(url, since, until or payments, within_s=within_s, check=check, on_progress=on_progress)
        after, after_s = database.settled(url, since), costs.cpu_s(pids)
        count = max(1, after - before)  # a handful is settled before the workers are known to be ready
    return Drained(
        entries=entries,
        per_s=database.settling_per_s(url, since),
        cpu_us={kind: (after_s[kind] - before_s[kind]) / count * 1e6 for kind in pids},
    )
