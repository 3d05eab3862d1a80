"""Compare this version end to end with an earlier one: `python -m bench.versions --before CHECKOUT [--rounds 10] [--json]`.

Both run side by side all the time, each with a schema of its own, and get short loads by turns: a machine that is slower for
a minute is so for both. Compare a checkout of this very version first: its ratio shows how much the machine varies.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench import costs, database, flow, load
from bench.chosen_parts import chosen
from bench.command import measure_and_print, parser_of
from bench.machine import facts
from bench.progress import say
from bench.report import Collector, Part, Report
from bench.system import OKANE, Deployment, Provider, System, deployed, provider, running
from bench.targets import Target

PARTS = {"a": "automatic payments, the provider answers at once", "b": "automatic payments, the provider takes 20 ms"}
LATENCY_MS = {"a": 0.0, "b": 20.0}
NOW_VS_BEFORE = "end to end, now vs before"
TARGETS = tuple(
    Target(what=f"{NOW_VS_BEFORE} ({letter})", letter=letter, figure=NOW_VS_BEFORE, reach=0.98, moonshot=1.0)
    for letter in PARTS
)
_NOW, _BEFORE = "now", "before"
_ALL = "all together"
_FILLED = 10_000  # rows that are there before: no table is empty for long


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionBenchOptions:
    """`before` is a checkout of another version."""

    before: Path
    only: str = ",".join(PARTS)
    rounds: int = 10
    seconds: float = 3.0
    workers: int = 2
    connections: int = 64
    quick: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        chosen(self.only, PARTS)
        if min(self.rounds, self.workers, self.connections) < 1:
            raise ValueError("rounds, workers and connections must be at least 1")
        if not 1 <= self.seconds <= 3_600:
            raise ValueError("a load lasts a second to an hour")
        if not (self.before / "okane").is_dir():
            raise ValueError(f"{self.before} is no checkout of okane")

    def made_quick(self) -> VersionBenchOptions:
        """Return these options with the smallest numbers that exercise everything."""
        return replace(self, rounds=1, seconds=1.0, workers=1, connections=8, quick=True)


def run(options: VersionBenchOptions) -> Report:
    """Measure the requested parts, one after the other, on one pair of servers."""
    machine = facts()
    with running() as system:
        parts = [measure(system, letter, options) for letter in chosen(options.only, PARTS)]
    return Report(machine=machine, quick=options.quick, parts=parts)


def measure(system: System, letter: str, options: VersionBenchOptions) -> Part:
    """Load both versions by turns; every second round begins with the other one."""
    found = Collector(letter, PARTS[letter])
    before = {"PYTHONPATH": str(options.before.resolve())}
    with (
        provider(system, latency_ms=LATENCY_MS[letter]) as charged,
        _deployed(system, charged, options, {}) as now,
        _deployed(system, charged, options, before) as then,
    ):
        pids = {_NOW: _pids(system, now, charged), _BEFORE: _pids(system, then, charged)}
        turns = [(_NOW, now), (_BEFORE, then)]
        for number in range(options.rounds):
            for name, deployment in turns[:: 1 if number % 2 else -1]:
                say(f"{letter}: {name}, round {number + 1} of {options.rounds}")
                _measure_one(found, name, deployment, pids[name], options)
    found.ratio(NOW_VS_BEFORE, of=_NOW, to=_BEFORE)
    for kind in (*costs.OURS, _ALL):
        found.ratio(f"{kind}, now vs before", of=f"{_NOW}, {kind}", to=f"{_BEFORE}, {kind}")
    return found.part()


def _pids(system: System, deployment: Deployment, charged: Provider) -> costs.Pids:
    return costs.pids_of(system, deployment, charged)


def _measure_one(
    found: Collector, name: str, deployment: Deployment, pids: costs.Pids, options: VersionBenchOptions
) -> None:
    url = deployment.database_url
    since, before_s = database.mark(url), costs.cpu_s(pids)
    load.generate(deployment.api_ports, connections=options.connections, seconds=options.seconds)
    count = flow.wait(deployment, since)
    after_s = costs.cpu_s(pids)
    found.add(name, "payments/s", database.throughput_per_s(url, since))
    used_us = {kind: (after_s[kind] - before_s[kind]) / count * 1e6 for kind in costs.OURS}
    for kind, us in {**used_us, _ALL: sum(used_us.values())}.items():
        found.add(f"{name}, {kind}", "us CPU", us)


@contextlib.contextmanager
def _deployed(
    system: System, charged: Provider, options: VersionBenchOptions, env: Mapping[str, str]
) -> Iterator[Deployment]:
    """One API and its workers of the version that `env` chooses, warmed up, over its own schema."""
    url = system.empty_database()
    migrated = {**os.environ, **env, "OKANE_DATABASE_URL": url}
    command = [sys.executable, "-P", "-m", "okane", "migrate"]
    subprocess.run(command, env=migrated, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - ours
    database.fill(url, 1_000 if options.quick else _FILLED)
    with deployed(system, OKANE, database_url=url, provider_url=charged.url, env=env) as deployment:
        deployment.start_apis()
        deployment.start_workers(options.workers)
        flow.warm_up(deployment)
        yield deployment
    system.drop_database(url)


def main() -> None:
    default = VersionBenchOptions(before=Path(__file__).resolve().parents[1])
    parser = parser_of("python -m bench.versions", __doc__, PARTS, default)
    parser.add_argument("--seconds", type=float, default=default.seconds, help="of one load")
    parser.add_argument("--workers", type=int, default=default.workers, help="worker processes of each version")
    parser.add_argument("--connections", type=int, default=default.connections, help="of the load generator")
    parser.add_argument("--before", type=Path, required=True, help="a checkout of another version")
    measure_and_print(parser, VersionBenchOptions, run, TARGETS)


if __name__ == "__main__":
    main()
