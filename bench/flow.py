"""One run of a whole pipeline under full load: how fast, how long a payment waits, what everything costs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from bench import costs, database, load
from bench.database import Ages
from bench.system import Contender, Deployment, Provider, System, deployed

_FILLED = 10_000  # rows that are there before: no table of ours is empty for long
_SETTLE_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The result of one run. Costs are microseconds of CPU per settled payment, by kind of process."""

    payments: int
    per_s: float
    ages: Ages
    cpu_us: Mapping[str, float]
    memory_mb: Mapping[str, float]
    log_bytes: float

    @property
    def ours_us(self) -> float:
        """Everything but the provider and the load generator."""
        return sum(self.cpu_us[kind] for kind in costs.OURS)


def measure(
    system: System, contender: Contender, provider: Provider, *, workers: int, connections: int, seconds: float
) -> Flow:
    """POST as fast as it goes for so long, then wait until all is settled."""
    with _warm(system, contender, provider, workers=workers) as deployment:
        url = deployment.database_url
        pids = costs.pids_of(system, deployment, provider)
        since, before_s, log_before = database.mark(url), costs.cpu_s(pids), database.log_position(url)
        load.generate(deployment.api_ports, connections=connections, seconds=seconds)
        count = wait(deployment, since)
        after_s, log_after = costs.cpu_s(pids), database.log_position(url)
        return Flow(
            payments=count,
            per_s=database.throughput_per_s(url, since),
            ages=database.ages(url, since),
            cpu_us={kind: (after_s[kind] - before_s[kind]) / count * 1e6 for kind in pids},
            memory_mb=costs.memory_mb(pids),
            log_bytes=(log_after - log_before) / count,
        )


def drip(
    system: System, contender: Contender, provider: Provider, *, workers: int, rate: float, seconds: float
) -> tuple[load.Load, Ages]:
    """POST at a steady rate: what the clients waited for their 202, and the payments for their settlement."""
    with _warm(system, contender, provider, workers=workers) as deployment:
        since = database.mark(deployment.database_url)
        sent = load.drip(deployment.api_ports[0], rate=rate, seconds=seconds)
        wait(deployment, since)
        return sent, database.ages(deployment.database_url, since)


@contextlib.contextmanager
def _warm(system: System, contender: Contender, provider: Provider, *, workers: int) -> Iterator[Deployment]:
    """One API and its workers, warmed up, over a database of their own that is gone after the block."""
    url = system.new_database()
    database.fill(url, _FILLED)
    with deployed(system, contender, database_url=url, provider_url=provider.url) as deployment:
        deployment.start_apis()
        deployment.start_workers(workers)
        warm_up(deployment)
        yield deployment
    system.drop_database(url)


def warm_up(deployment: Deployment) -> None:
    """Connections, prepared statements and scripts are there before the clock starts."""
    since = database.mark(deployment.database_url)
    load.generate(deployment.api_ports, connections=16, seconds=1)
    wait(deployment, since)


def wait(deployment: Deployment, since: UUID) -> int:
    """Until all payments are settled; how many they are. Requests cut off at the end of a load made payments, too."""
    url = deployment.database_url
    while True:
        count = database.accepted(url, since)
        database.wait_settled(url, since, count, within_s=_SETTLE_S, check=deployment.check_alive)
        if database.accepted(url, since) == count:
            return count
