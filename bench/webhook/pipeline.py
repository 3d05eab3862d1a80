"""Part b: payments per second from POST to settled, and to delivered where every account subscribes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench import costs, database, flow, load
from bench import receiver as receiving
from bench.progress import say
from bench.report import Collector, Part
from bench.system import OKANE, Deployment, Provider, System, deployed, provider, receiver
from bench.webhook.delivered import wait_delivered
from bench.webhook.endpoints import ACCOUNT, MAX_IN_FLIGHT, SETTINGS, Subscription, subscribe
from bench.webhook.options import PARTS, WebhookBenchOptions

NONE_VS_TODAY = "end to end, none subscribe, vs today"
ALL_VS_TODAY = "end to end, all subscribe and deliver, vs today"
_TODAY, _NONE, _ALL = "today", "none subscribe", "all subscribe"
_FILLED = 10_000  # rows that are there before: no table of ours is empty for long
_UNIT = "payments/s"


@dataclass(frozen=True, slots=True)
class _Bench:
    """All that the modes share."""

    system: System
    charged: Provider
    target: Provider
    options: WebhookBenchOptions


def measure(system: System, options: WebhookBenchOptions) -> Part:
    """Each mode with processes and a database of its own, by turns."""
    found = Collector("b", PARTS["b"])
    modes = [_NONE, _ALL] if options.before is None else [_TODAY, _NONE, _ALL]
    with provider(system) as charged, receiver(system) as target:
        shared = _Bench(system, charged, target, options)
        for number in range(options.rounds):
            for mode in modes[:: 1 if number % 2 else -1]:
                say(f"b: {mode}, round {number + 1} of {options.rounds}")
                with _warm(shared, mode) as deployment:
                    _measure_one(shared, mode, deployment, found)
    today = _NONE if options.before is None else _TODAY
    if options.before is not None:
        found.ratio(NONE_VS_TODAY, of=_NONE, to=_TODAY)
    else:
        found.note("without --before CHECKOUT, today's figures are those without a subscriber")
    found.ratio(ALL_VS_TODAY, of=_ALL, to=today)
    found.note("the receiver is on this machine, and takes its share of the cores")
    return found.part()


def _measure_one(shared: _Bench, mode: str, deployment: Deployment, found: Collector) -> None:
    url, target, options = deployment.database_url, shared.target, shared.options
    pids = {
        **costs.pids_of(shared.system, deployment, shared.charged),
        **costs.pids_of_server("receiver", target),
    }
    since, before_s = database.mark(url), costs.cpu_s(pids)
    load.generate(deployment.api_ports, connections=options.connections, seconds=options.seconds)
    count = flow.wait(deployment, since)
    if mode == _ALL:
        wait_delivered(deployment, target, count)
        arrived = receiving.arrivals(target.url)
        found.add(mode, _UNIT, count / (max(one.arrived_s for one in arrived) - database.first_accepted_s(url, since)))
        ages = sorted(one.age_ms for one in arrived)
        found.add(f"{mode}, change to request, p50", "ms", ages[len(ages) // 2])
        found.add(f"{mode}, repeats", "requests", len(arrived) - len({one.id for one in arrived}))
    else:
        found.add(mode, _UNIT, database.throughput_per_s(url, since))
    _add_costs(found, mode, before_s, costs.cpu_s(pids), count)


def _add_costs(
    found: Collector, mode: str, before_s: Mapping[str, float], after_s: Mapping[str, float], count: int
) -> None:
    for kind in after_s:
        if (used_s := after_s[kind] - before_s[kind]) > 0:
            found.add(f"{mode}, {kind}", "us CPU", used_s / count * 1e6)


@contextlib.contextmanager
def _warm(shared: _Bench, mode: str) -> Iterator[Deployment]:
    """The processes of one mode, warmed up, with an empty journal at the receiver."""
    system, target, options = shared.system, shared.target, shared.options
    url = system.new_database()
    database.fill(url, 1_000 if options.quick else _FILLED)
    env = dict(SETTINGS)
    if mode == _TODAY:
        assert options.before is not None
        env = {"PYTHONPATH": str(options.before.resolve())}
    with deployed(system, OKANE, database_url=url, provider_url=shared.charged.url, env=env) as deployment:
        if mode == _ALL:
            subscribe(url, [Subscription(ACCOUNT, f"{target.url}/hook")], max_in_flight=MAX_IN_FLIGHT)
            deployment.start_dispatcher()
        deployment.start_apis()
        deployment.start_workers(options.workers)
        receiving.clear(target.url)
        since = database.mark(url)
        flow.warm_up(deployment)
        if mode == _ALL:
            wait_delivered(deployment, target, database.accepted(url, since))
        receiving.clear(target.url)
        yield deployment
    system.drop_database(url)
