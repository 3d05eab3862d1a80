"""Measure events and webhooks: `python -m bench.webhooks [--only a,b] [--before CHECKOUT] [--rounds 5] [--json]`.

Everything is compared by turns in one run, on real servers and processes of this machine, loopback only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from bench.command import measure_and_print, parser_of
from bench.machine import facts
from bench.report import Part, Report
from bench.system import System, running
from bench.webhook import draining, idling, neighbours, pipeline, requesting, settling
from bench.webhook.options import PARTS, WebhookBenchOptions
from bench.webhook.targets import TARGETS

MEASURES: Mapping[str, Callable[[System, WebhookBenchOptions], Part]] = {
    "a": settling.measure,
    "b": pipeline.measure,
    "c": draining.measure,
    "d": neighbours.measure,
    "e": requesting.measure,
    "f": idling.measure,
}


def run(options: WebhookBenchOptions) -> Report:
    """Measure the requested parts, one after the other, on one pair of servers."""
    machine = facts()
    with running() as system:
        parts = [MEASURES[letter](system, options) for letter in PARTS if letter in options.letters]
    return Report(machine=machine, quick=options.quick, parts=parts)


def main() -> None:
    default = WebhookBenchOptions()
    parser = parser_of("python -m bench.webhooks", __doc__, PARTS, default)
    parser.add_argument("--seconds", type=float, default=default.seconds, help="of one load")
    parser.add_argument("--workers", type=int, default=default.workers, help="part b: worker processes")
    parser.add_argument("--connections", type=int, default=default.connections, help="of the load generator")
    parser.add_argument("--events", type=int, default=default.events, help="part c: the backlog")
    parser.add_argument("--endpoints", type=int, default=default.endpoints, help="part f: how many are idle")
    parser.add_argument("--rate", type=float, default=default.rate, help="part d: changes a second of the 19 endpoints")
    parser.add_argument("--before", type=Path, help="parts a, b: a checkout of a version without webhooks")
    measure_and_print(parser, WebhookBenchOptions, run, TARGETS)


if __name__ == "__main__":
    main()
