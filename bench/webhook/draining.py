"""Part c: deliveries per second of one dispatcher with a backlog, beside the payments per second that one API accepts."""

from __future__ import annotations

from collections.abc import Sequence

from bench import costs, database, load
from bench import receiver as receiving
from bench.progress import say
from bench.report import Collector, Part
from bench.system import OKANE, Provider, System, deployed, provider, receiver
from bench.webhook.delivered import wait_delivered
from bench.webhook.endpoints import SETTINGS, add_backlog
from bench.webhook.options import PARTS, WebhookBenchOptions

VS_API = "one dispatcher's deliveries/s, of an API's accepts/s"
_ACCEPTED, _DELIVERED = "one API accepts", "one dispatcher delivers"


def measure(system: System, options: WebhookBenchOptions) -> Part:
    """One endpoint that answers at once, and an API that takes all it can, by turns."""
    found = Collector("c", PARTS["c"])
    with provider(system) as charged, receiver(system) as target:
        for number in range(options.rounds):
            say(f"c: round {number + 1} of {options.rounds}")
            found.add(_ACCEPTED, "payments/s", _accept(system, charged, options))
            _deliver(found, system, charged, target, options.events)
    found.ratio(VS_API, of=_DELIVERED, to=_ACCEPTED)
    return found.part()


def _accept(system: System, charged: Provider, options: WebhookBenchOptions) -> float:
    url = system.new_database()
    database.fill(url, 10_000)
    with deployed(system, OKANE, database_url=url, provider_url=charged.url, env=SETTINGS) as deployment:
        deployment.start_apis()
        load.generate(deployment.api_ports, connections=16, seconds=1)
        per_s = load.generate(deployment.api_ports, connections=options.connections, seconds=options.seconds).per_s
    system.drop_database(url)
    return per_s


def _deliver(found: Collector, system: System, charged: Provider, target: Provider, events: int) -> None:
    url = system.new_database()
    database.fill(url, events)
    receiving.clear(target.url)
    count = add_backlog(url, f"{target.url}/hook")
    with deployed(system, OKANE, database_url=url, provider_url=charged.url, env=SETTINGS) as deployment:
        deployment.start_dispatcher()
        pids = {**costs.pids_of(system, deployment, charged), **costs.pids_of_server("receiver", target)}
        before, before_s = receiving.count(target.url), costs.cpu_s(pids)
        wait_delivered(deployment, target, count)
        after_s = costs.cpu_s(pids)
    arrived = receiving.arrivals(target.url)
    found.add(_DELIVERED, "deliveries/s", _rate([one.arrived_s for one in arrived]))
    for kind in ("dispatchers", "Postgres", "receiver"):
        found.add(f"a delivery, {kind}", "us CPU", (after_s[kind] - before_s[kind]) / (count - before) * 1e6)
    if repeats := len(arrived) - len({one.id for one in arrived}):
        found.note(f"{repeats} requests were repeats")
    system.drop_database(url)


def _rate(arrived_s: Sequence[float]) -> float:
    """Return the rate from the end of the first tenth to the end of the ninth: neither the start nor stragglers count."""
    ordered = sorted(arrived_s)
    first, last = len(ordered) // 10, len(ordered) * 9 // 10
    return (last - first) / (ordered[last] - ordered[first])
