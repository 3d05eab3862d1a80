"""Measure the cost of traces: `python -m bench.tracing_cost [--rounds 9] [--seconds 3] [--rate 200] [--before CHECKOUT]`.

An API and a worker each without tracing, with 1 % of the traces kept, and with all of them, over the same servers, at the
same time and at the same rate: what else the machine does slows all of them alike. A collector takes what they send, and does
nothing with it. Costs are CPU for a settled payment; a ratio is the median over the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench import costs, database, flow, load
from bench.machine import describe
from bench.progress import say
from bench.system import OKANE, Deployment, Provider, System, deployed, provider, running
from okane.local.ports import LOOPBACK

OFF = "off"
CONNECTIONS = 32
OWN = ("API", "workers")  # what runs the code that traces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round")
    parser.add_argument("--rate", type=float, default=200.0, help="payments a second for each; 0: all it can take")
    parser.add_argument("--before", type=Path, help="a checkout of another version, to compare with")
    options = parser.parse_args()
    print(describe())
    with (
        running() as system,
        provider(system) as charged,
        _collector() as endpoint,
        _deployments(system, charged, _modes(endpoint, options.before)) as deployments,
    ):
        found = _measure(system, charged, deployments, options)
    base = found[OFF]
    for mode, rounds in found.items():
        ratios = [one / other for one, other in zip(rounds, base, strict=True)]
        cost = f"{statistics.median(rounds):7.0f} us of the API and the worker"
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"{mode:<8} {cost}  {statistics.median(ratios):6.3f} of {OFF} ({spread})")


def _modes(endpoint: str, before: Path | None) -> Mapping[str, Mapping[str, str]]:
    """The settings of each."""
    on = {"OKANE_TRACING": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    some = {**on, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
    modes: dict[str, Mapping[str, str]] = {OFF: {}, "1 %": some, "100 %": on}
    return modes if before is None else {"before": {"PYTHONPATH": str(before.resolve())}, **modes}


@contextlib.contextmanager
def _deployments(
    system: System, charged: Provider, modes: Mapping[str, Mapping[str, str]]
) -> Iterator[Mapping[str, Deployment]]:
    """One for each mode, warmed up."""
    with contextlib.ExitStack() as stack:
        made: dict[str, Deployment] = {}
        for mode, env in modes.items():
            url = system.new_database()
            database.fill(url, 1_000)
            deployment = deployed(system, OKANE, database_url=url, provider_url=charged.url, env=env)
            made[mode] = stack.enter_context(deployment)
            made[mode].start_apis()
            made[mode].start_workers()
            flow.warm_up(made[mode])
        yield made


def _measure(
    system: System, charged: Provider, deployments: Mapping[str, Deployment], options: argparse.Namespace
) -> Mapping[str, Sequence[float]]:
    """Microseconds for a payment, by mode and round."""
    found: dict[str, list[float]] = {mode: [] for mode in deployments}
    with ThreadPoolExecutor(len(deployments)) as threads:
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            costs_us = threads.map(lambda one: _round(system, charged, one, options), deployments.values())
            for mode, cost_us in zip(deployments, costs_us, strict=True):
                found[mode].append(cost_us)
    return found


def _round(system: System, charged: Provider, deployment: Deployment, options: argparse.Namespace) -> float:
    since, pids = database.mark(deployment.database_url), costs.pids_of(system, deployment, charged)
    before_s = costs.cpu_s(pids)
    if options.rate:
        load.drip(deployment.api_ports[0], rate=options.rate, seconds=options.seconds, connections=CONNECTIONS)
    else:
        load.generate(deployment.api_ports, connections=CONNECTIONS, seconds=options.seconds)
    count = flow.wait(deployment, since)
    after_s = costs.cpu_s(pids)
    return sum(after_s[kind] - before_s[kind] for kind in OWN) / count * 1e6


@contextlib.contextmanager
def _collector() -> Iterator[str]:
    """The address of one that takes everything."""

    class Taking(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Taking)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


if __name__ == "__main__":
    main()
