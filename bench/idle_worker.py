"""Measure what a worker without work costs: `python -m bench.idle_worker [--seconds 20] [--before CHECKOUT]`.

One worker over an empty database, and its share of Postgres and Redis. With --before another version is measured after it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

from bench import costs
from bench.machine import describe
from bench.system import OKANE, Provider, System, deployed, provider, running

SETTLING_S = 3.0  # after the start, before the measurement


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--before", type=Path, help="a checkout of another version, to compare with")
    options = parser.parse_args()
    print(describe())
    versions: dict[str, Mapping[str, str]] = {"now": {}}
    if options.before is not None:
        versions["before"] = {"PYTHONPATH": str(options.before.resolve())}
    with running() as system, provider(system) as charged:
        for version, env in versions.items():
            print(f"{version:<7}", _cost(system, charged, env, options.seconds))


def _cost(system: System, charged: Provider, env: Mapping[str, str], seconds: float) -> str:
    url = system.new_database()
    with deployed(system, OKANE, database_url=url, provider_url=charged.url, env=env) as deployment:
        deployment.start_workers()
        time.sleep(SETTLING_S)
        pids = costs.pids_of(system, deployment, charged)
        before_s, began_s = costs.cpu_s(pids), time.monotonic()
        time.sleep(seconds)
        after_s, took_s = costs.cpu_s(pids), time.monotonic() - began_s
    system.drop_database(url)
    shares = {kind: (after_s[kind] - before_s[kind]) / took_s for kind in ("workers", "Postgres", "Redis")}
    return "   ".join(f"{kind} {share * 100:5.2f} % of a core" for kind, share in shares.items())


if __name__ == "__main__":
    main()
