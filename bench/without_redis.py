"""Measure how fast payments settle without Redis, against the same with Redis: `python -m bench.without_redis`.

Payments are accepted with no worker running, then workers are started and the rate at which they settle is taken from the
events. In turns: with Redis; with Redis killed before the payments come (the API notices, and their rows record it); with
Redis killed after they came, so that their wake-ups are lost and the sweep has to detect that (it waits for its grace
first, which is no part of the rate).
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, get_args

from bench import database, load
from bench.machine import describe
from bench.progress import say
from bench.system import OKANE, System, deployed, provider, running

Scenario = Literal["with Redis", "killed before", "killed after"]

SCENARIOS: Sequence[Scenario] = get_args(Scenario)
GRACE_S = 2.0


def measure(system: System, scenario: Scenario, *, provider_url: str, payments: int, workers: int) -> float:
    """Payments settled per second."""
    url = system.new_database()
    database.fill(url, 10_000)
    since = database.mark(url)
    env = {"OKANE_SWEEP_GRACE": str(GRACE_S), "OKANE_MAX_STREAM_LENGTH": "10000000"}
    with deployed(system, OKANE, database_url=url, provider_url=provider_url, env=env) as deployment:
        deployment.start_apis()
        if scenario == "killed before":
            system.redis.kill()
        while (accepted := database.accepted(url, since)) < payments:
            load.generate(deployment.api_ports, connections=64, seconds=1)
        if scenario == "killed after":
            system.redis.kill()
        deployment.launch_workers(workers)
        try:
            database.wait_settled(url, since, accepted, within_s=300, check=deployment.check_alive)
        finally:
            if scenario != "with Redis":
                system.redis.start()
    rate = database.settling_per_s(url, since)
    say(f"{scenario}: {accepted:,} payments, {rate:,.0f} settled/s")
    system.drop_database(url)
    return rate


def run(*, payments: int, rounds: int, workers: int) -> dict[Scenario, list[float]]:
    """The rates of every scenario, one a round."""
    rates: defaultdict[Scenario, list[float]] = defaultdict(list)
    with running() as system, provider(system) as charged:
        for _ in range(rounds):
            for scenario in SCENARIOS:
                rate = measure(system, scenario, provider_url=charged.url, payments=payments, workers=workers)
                rates[scenario].append(rate)
    return dict(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--payments", type=int, default=20_000, help="at least so many in every turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    options = parser.parse_args()
    print(describe())
    rates = run(payments=options.payments, rounds=options.rounds, workers=options.workers)
    normal = rates["with Redis"]
    for scenario in SCENARIOS:
        ratio = statistics.median(rate / base for rate, base in zip(rates[scenario], normal, strict=True))
        print(f"{scenario:<14} {statistics.median(rates[scenario]):>8,.0f} settled/s   {ratio:.2f} of normal")


if __name__ == "__main__":
    main()
