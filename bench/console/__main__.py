"""Measure the console: `python -m bench.console [--only a,b] [--rounds 5] [--json]`.

Real servers and processes of this machine, loopback only. What is compared is measured by turns in one run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.command import measure_and_print, parser_of
from bench.console import idling, loading, many_payments, rendering_cost, settling
from bench.console.options import PARTS, ConsoleBenchOptions
from bench.console.served import ServedConsole, served
from bench.console.targets import TARGETS
from bench.machine import facts
from bench.report import Part, Report
from bench.system import provider, running

MEASURES: Mapping[str, Callable[[ServedConsole, ConsoleBenchOptions], Part]] = {
    "a": loading.measure,
    "b": rendering_cost.measure,
    "c": idling.measure,
    "d": settling.measure,
}


def run(options: ConsoleBenchOptions) -> Report:
    """Measure the requested parts, one after the other, on one pair of servers."""
    machine = facts()
    parts: list[Part] = []
    with running() as system, provider(system) as charged:
        if letters := [letter for letter in MEASURES if letter in options.letters]:
            with served(system, charged, options) as console:
                parts += [MEASURES[letter](console, options) for letter in letters]
        if "e" in options.letters:
            parts.append(many_payments.measure(system, charged, options))
    return Report(machine=machine, quick=options.quick, parts=parts)


def main() -> None:
    default = ConsoleBenchOptions()
    parser = parser_of("python -m bench.console", __doc__, PARTS, default)
    parser.add_argument("--requests", type=int, default=default.requests, help="parts b, e: of each page")
    parser.add_argument("--tabs", type=int, default=default.tabs, help="parts c, d: how many are open")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="parts c, d: of one load, or of none")
    parser.add_argument("--workers", type=int, default=default.workers, help="worker processes")
    parser.add_argument("--connections", type=int, default=default.connections, help="part d: of the load generator")
    parser.add_argument("--payments", type=int, default=default.payments, help="part e: how many there are")
    measure_and_print(parser, ConsoleBenchOptions, run, TARGETS)


if __name__ == "__main__":
    main()
