"""Part a: how fast payments are accepted, against a textbook handler and one that does nothing with them."""

from __future__ import annotations

import contextlib

from bench import costs, database, load
from bench.options import PARTS, BenchOptions
from bench.progress import say
from bench.report import Collector, Part
from bench.system import BARE, OKANE, TEXTBOOK, Deployment, Provider, System, deployed, provider

CONTENDERS = (BARE, TEXTBOOK, OKANE)
VS_TEXTBOOK = "okane / textbook, many connections"
VS_BARE = "okane / bare handler, many connections"
P50_VS_TEXTBOOK = "p50 of okane / textbook, one connection"

_FILLED = 10_000
# No worker consumes here: the lanes must hold more entries than in production.
_ENV = {"OKANE_MAX_STREAM_LENGTH": "100000000"}


def measure(system: System, options: BenchOptions) -> Part:
    """All contenders are up, and take their turns."""
    found = Collector("a", PARTS["a"])
    with contextlib.ExitStack() as closing:
        charged = closing.enter_context(provider(system))
        _measure_ceiling(found, charged, options)
        deployments = []
        for contender in CONTENDERS:
            url = system.new_database()
            database.fill(url, _FILLED)
            one = deployed(system, contender, database_url=url, provider_url=charged.url, env=_ENV)
            deployments.append(closing.enter_context(one))
            deployments[-1].start_apis()
            load.generate(deployments[-1].api_ports, connections=8, seconds=1)
        for number in range(options.rounds):
            for deployment in deployments:
                say(f"a: {deployment.contender.name}, round {number + 1}")
                _measure_one(found, deployment, options)
                _empty(system)
    found.ratio(VS_TEXTBOOK, of="okane", to="textbook")
    found.ratio(VS_BARE, of="okane", to="bare handler")
    found.ratio(P50_VS_TEXTBOOK, of="okane, p50 of one connection", to="textbook, p50 of one connection")
    return found.part()


def _measure_one(found: Collector, deployment: Deployment, options: BenchOptions) -> None:
    name = deployment.contender.name
    pids = {"API": [process.child.pid for process in deployment.apis if process.child is not None]}
    before_s = costs.cpu_s(pids)["API"]
    many = load.generate(deployment.api_ports, connections=options.connections, seconds=options.seconds)
    used_s = costs.cpu_s(pids)["API"] - before_s
    single = load.generate(deployment.api_ports, connections=1, seconds=max(1.0, options.seconds / 2))
    deployment.check_alive()
    found.add(name, "req/s", many.per_s)
    found.add(f"{name}, API process", "us CPU", used_s / max(1, many.accepted) * 1e6)
    found.add(f"{name}, p50 of one connection", "ms", single.p50_ms)
    if many.other or many.broken:
        found.note(f"{name}: {many.other:,} answers other than 202, {many.broken:,} requests without an answer")


def _measure_ceiling(found: Collector, charged: Provider, options: BenchOptions) -> None:
    """Measure the generator against a server that is faster than any API here: it must not be the limit."""
    seen = load.generate([charged.port], connections=options.connections, seconds=1)
    found.add("load generator alone", "req/s", (seen.accepted + seen.other) / seen.elapsed_s)
    found.note(f"load by {load.best_generator()}, {options.connections} connections")


def _empty(system: System) -> None:
    """Every turn begins with empty streams."""
    with system.redis_client() as client:
        client.flushall()
