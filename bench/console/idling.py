"""Part c: what tabs cost that are open while nothing happens."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence

from bench import costs
from bench.console.options import PARTS, ConsoleBenchOptions
from bench.console.served import ServedConsole
from bench.console.tabs import INTERVAL_S, OpenTabs, tabs_open
from bench.progress import say
from bench.report import Collector, Part

KINDS = ("overview", "list", "payment")
_NONE = "no tab"


def console_cpu(kind: str) -> str:
    """Return the name of the figure of the console."""
    return f"{kind}: console"


def postgres_cpu(kind: str) -> str:
    """Return the name of the figure of Postgres."""
    return f"{kind}: Postgres, beyond no tab"


def measure(console: ServedConsole, options: ConsoleBenchOptions) -> Part:
    """No tab and each kind of tabs by turns; 50 payments for as many tabs."""
    found = Collector("c", PARTS["c"])
    with console.visiting() as visitor:
        addresses = console.paths(options.tabs)
        for number in range(min(options.rounds, 3)):
            idle: Mapping[str, float] = {}
            for kind in (_NONE, *KINDS):
                say(f"c: {kind}, round {number + 1}")
                paths = _paths(addresses.get(kind, ()), options.tabs)
                opening = tabs_open(console.port, visitor.cookie, paths) if paths else contextlib.nullcontext()
                with opening as tabs:
                    time.sleep(options.settling_s)
                    shares = _shares(console, options.seconds)
                if kind == _NONE:
                    idle = shares
                    found.add("no tab: console", "% of a core", shares["console"])
                    found.add("no tab: Postgres", "% of a core", shares["Postgres"])
                    continue
                found.add(console_cpu(kind), "% of a core", shares["console"])
                found.add(postgres_cpu(kind), "% of a core", max(0.0, shares["Postgres"] - idle["Postgres"]))
                found.add(f"{kind}: Redis, beyond no tab", "% of a core", max(0.0, shares["Redis"] - idle["Redis"]))
                _check(found, tabs, kind)
    found.note(f"{options.tabs} tabs, each of which polls every {INTERVAL_S:.0f} s; no payment comes meanwhile")
    found.note("the console's share is all that its process used")
    return found.part()


def _paths(addresses: Sequence[str], tabs: int) -> list[str]:
    return [addresses[number % len(addresses)] for number in range(tabs)] if addresses else []


def _check(found: Collector, tabs: OpenTabs | None, kind: str) -> None:
    assert tabs is not None
    if tabs.counts.failed or not tabs.counts.polls:
        raise RuntimeError(f"{tabs.counts.failed} of {tabs.counts.polls} polls failed")
    found.add(f"{kind}: polls that found nothing new", "%", 100 * tabs.counts.unchanged / tabs.counts.polls)


def _shares(console: ServedConsole, seconds: float) -> Mapping[str, float]:
    """Return the CPU of each kind of process as a percentage of a core."""
    pids = console.pids
    began_s, before_s = time.monotonic(), costs.cpu_s(pids)
    time.sleep(seconds)
    console.deployment.check_alive()
    elapsed_s, after_s = time.monotonic() - began_s, costs.cpu_s(pids)
    return {kind: (after_s[kind] - before_s[kind]) / elapsed_s * 100 for kind in pids}
