"""Part f: the CPU that endpoints cost which get no events."""

from __future__ import annotations

import time
from collections.abc import Mapping

from bench import costs
from bench.progress import say
from bench.report import Collector, Part
from bench.system import OKANE, Provider, System, deployed, provider, receiver
from bench.webhook.endpoints import SETTINGS, add_idle, owned
from bench.webhook.options import PARTS, WebhookBenchOptions

IDLE = "dispatcher's CPU with idle endpoints"
_WITHIN_S = 120.0


def measure(system: System, options: WebhookBenchOptions) -> Part:
    """A dispatcher that holds all of them, and one that has none."""
    found = Collector("f", PARTS["f"])
    with provider(system) as charged, receiver(system) as target:
        for number in range(min(options.rounds, 3)):
            for count in (0, options.endpoints):
                say(f"f: {count:,} endpoints, round {number + 1}")
                shares = _round(system, charged, f"{target.url}/hook", count, during_s=1.0 if options.quick else 10.0)
                found.add(IDLE if count else "dispatcher's CPU with none", "% of a core", shares["dispatchers"])
                found.add(f"Postgres' CPU with {count:,}", "% of a core", shares["Postgres"])
    found.note(f"{options.endpoints:,} endpoints, of as many accounts")
    return found.part()


def _round(system: System, charged: Provider, url: str, count: int, *, during_s: float) -> Mapping[str, float]:
    """Return the CPU of each kind of process as a percentage of a core."""
    database_url = system.new_database()
    if count:
        add_idle(database_url, url, count)
    with deployed(system, OKANE, database_url=database_url, provider_url=charged.url, env=SETTINGS) as deployment:
        deployment.start_dispatcher()
        deadline_s = time.monotonic() + _WITHIN_S
        while (held := owned(database_url)) < count:
            deployment.check_alive()
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"a dispatcher holds {held:,} of {count:,} queues after {_WITHIN_S:.0f} s")
            time.sleep(0.2)
        time.sleep(during_s / 2)
        pids = costs.pids_of(system, deployment, charged)
        began_s, before_s = time.monotonic(), costs.cpu_s(pids)
        time.sleep(during_s)
        elapsed_s, after_s = time.monotonic() - began_s, costs.cpu_s(pids)
    system.drop_database(database_url)
    return {kind: (after_s[kind] - before_s[kind]) / elapsed_s * 100 for kind in pids}
