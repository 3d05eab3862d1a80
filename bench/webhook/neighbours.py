"""Part d: the time from a change to its request at 19 endpoints, alone and beside one that never answers."""

from __future__ import annotations

import time

from bench import receiver as receiving
from bench.progress import say
from bench.receiver import Arrival
from bench.report import Collector, Part
from bench.system import OKANE, Deployment, Provider, System, deployed, provider, receiver
from bench.webhook.changes import settle_steadily
from bench.webhook.endpoints import SETTINGS, Subscription, subscribe
from bench.webhook.options import PARTS, WebhookBenchOptions

P99_RATIO = "p99 of 19 beside a silent endpoint, of theirs alone"
P50 = "19 alone, change to request, p50"
HEALTHY = 19
_WITHIN_S = 60.0
_WARM_UP_S = 2.0


def measure(system: System, options: WebhookBenchOptions) -> Part:
    """The same changes a second for each endpoint, by turns."""
    found = Collector("d", PARTS["d"])
    with provider(system) as charged, receiver(system) as target:
        for number in range(options.rounds):
            for beside in (False, True)[:: 1 if number % 2 else -1]:
                name = "19 beside a silent one" if beside else "19 alone"
                say(f"d: {name}, round {number + 1} of {options.rounds}")
                ages = _round(system, charged, target, options, beside=beside)
                found.add(f"{name}, change to request, p50", "ms", ages[len(ages) // 2])
                found.add(f"{name}, change to request, p99", "ms", ages[len(ages) * 99 // 100])
    found.ratio(P99_RATIO, of="19 beside a silent one, change to request, p99", to="19 alone, change to request, p99")
    found.note("a change counts from the start of its transaction, which is before its commit")
    return found.part()


def _round(
    system: System, charged: Provider, target: Provider, options: WebhookBenchOptions, *, beside: bool
) -> list[float]:
    """Return the ages of the healthy endpoints' events on arrival, in order, in milliseconds."""
    url = system.new_database()
    names = [f"account_{number}" for number in range(HEALTHY + beside)]
    subscriptions = [Subscription(name, f"{target.url}/{name}/hook") for name in names[:HEALTHY]]
    if beside:
        subscriptions.append(Subscription(names[HEALTHY], f"{target.url}/silent"))
    subscribe(url, subscriptions)
    rate = options.rate / HEALTHY * len(names)
    with deployed(system, OKANE, database_url=url, provider_url=charged.url, env=SETTINGS) as deployment:
        deployment.start_dispatcher()
        # Connections and prepared statements are there before the clock starts, and the silent endpoint has taken its slots.
        _wait_healthy(deployment, target, settle_steadily(url, names, rate=rate, seconds=_WARM_UP_S), len(names))
        receiving.clear(target.url)
        changes = settle_steadily(url, names, rate=rate, seconds=2 * options.seconds)
        arrived = _wait_healthy(deployment, target, changes, len(names))
        deployment.dispatchers[0].kill()  # its end would wait for the silent endpoint
    system.drop_database(url)
    return sorted(one.age_ms for one in arrived)


def _wait_healthy(deployment: Deployment, target: Provider, changes: int, accounts: int) -> list[Arrival]:
    """Return the requests at the healthy endpoints once all have come: the accounts take turns, the silent one last."""
    expected = sum(number % accounts < HEALTHY for number in range(changes))
    deadline_s = time.monotonic() + _WITHIN_S
    while True:
        deployment.check_alive()
        arrived = [one for one in receiving.arrivals(target.url) if not one.path.endswith("/silent")]
        if len(arrived) >= expected:
            return arrived
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{len(arrived):,} of {expected:,} events delivered after {_WITHIN_S:.0f} s")
        time.sleep(0.2)
