"""Part d: payments settled per second, without a tab and with many that are live."""

from __future__ import annotations

import contextlib
import time

from bench import database, flow, load
from bench.console.options import PARTS, ConsoleBenchOptions
from bench.console.served import ServedConsole
from bench.console.tabs import tabs_open
from bench.progress import say
from bench.report import Collector, Part

_NONE, _OVERVIEW, _MIXED = "no tab", "tabs on the overview", "tabs on overview, list and payments"
OVERVIEW_VS_NONE = "settled/s, tabs on the overview vs none"
MIXED_VS_NONE = "settled/s, tabs on all three vs none"
_UNIT = "payments/s"


def measure(console: ServedConsole, options: ConsoleBenchOptions) -> Part:
    """The same load by turns, on the same processes: what is compared are the tabs."""
    found = Collector("d", PARTS["d"])
    modes = (_NONE, _OVERVIEW, _MIXED)
    for number in range(options.rounds):
        for mode in modes[:: 1 if number % 2 else -1]:
            say(f"d: {mode}, round {number + 1} of {options.rounds}")
            found.add(mode, _UNIT, _settled_per_s(console, mode, options))
    found.ratio(OVERVIEW_VS_NONE, of=_OVERVIEW, to=_NONE)
    found.ratio(MIXED_VS_NONE, of=_MIXED, to=_NONE)
    found.note(f"{options.tabs} tabs; their process, the load generator and the provider share the cores")
    return found.part()


def _settled_per_s(console: ServedConsole, mode: str, options: ConsoleBenchOptions) -> float:
    deployment, url = console.deployment, console.deployment.database_url
    with contextlib.ExitStack() as stack:
        if mode != _NONE:
            cookie = stack.enter_context(console.visiting()).cookie
            stack.enter_context(tabs_open(console.port, cookie, _paths(console, mode, options.tabs)))
        time.sleep(options.settling_s)
        since = database.mark(url)
        load.generate(deployment.api_ports, connections=options.connections, seconds=options.seconds)
        flow.wait(deployment, since)
        return database.throughput_per_s(url, since)


def _paths(console: ServedConsole, mode: str, tabs: int) -> list[str]:
    kinds = console.paths(tabs)
    if mode == _OVERVIEW:
        return list(kinds["overview"]) * tabs
    turns = (kinds["overview"], kinds["list"], kinds["payment"])
    return [turns[number % 3][number % len(turns[number % 3])] for number in range(tabs)]
