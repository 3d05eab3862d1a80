"""Part b: the CPU of the console's process for one page."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

from bench import costs
from bench.console.options import PARTS, ConsoleBenchOptions
from bench.console.served import ServedConsole
from bench.console.visitor import BASE, Visitor
from bench.progress import say
from bench.report import Collector, Part

PAGES = ("overview", "list", "payment")
SAMPLED = "overview with a sample of its own"
YARDSTICK = "for comparison: a million additions in Python"
_SAMPLES = 12
_SAMPLE_S = 2.0  # a page that comes so much later than the one before takes a new sample


def page(name: str) -> str:
    """Return the name of the figure of a page."""
    return f"{name}, a page"


def measure(console: ServedConsole, options: ConsoleBenchOptions) -> Part:
    """Pages and polls by turns, on one connection."""
    found = Collector("b", PARTS["b"])
    with console.visiting() as visitor:
        kinds = console.paths(min(50, options.requests))
        for number in range(options.rounds):
            found.add(YARDSTICK, "ms CPU", _additions_ms())
            for name, paths in kinds.items():
                say(f"b: {name}, round {number + 1} of {options.rounds}")
                cost_ms = _cost(console, options.requests, _requesting(visitor, paths))
                found.add(page(name), "ms CPU", cost_ms)
                cost_ms = _cost(console, options.requests, _polling(visitor, paths[0]))
                found.add(f"{name}, a poll that finds nothing new", "ms CPU", cost_ms)
        say("b: the overview, with samples")
        count = 1 if options.quick else _SAMPLES
        found.add(SAMPLED, "ms CPU", _cost(console, count, _sampling(visitor)))
        cost_ms = _cost(console, 1, lambda: time.sleep(count * _SAMPLE_S))
        found.add("without a visitor", "ms CPU in 2 s", cost_ms / count)
    found.note("user and system time of the console's process; beside other work a core does less in a millisecond")
    return found.part()


def _additions_ms() -> float:
    """Return the CPU that this process needs for them: it tells how fast the core is at this moment."""
    began_s, total = time.process_time(), 0
    for number in range(1_000_000):
        total += number
    return (time.process_time() - began_s) * 1000


def _requesting(visitor: Visitor, paths: Sequence[str]) -> Callable[[], object]:
    turns = itertools.cycle(paths)
    return lambda: visitor.get(next(turns))


def _polling(visitor: Visitor, path: str) -> Callable[[], object]:
    address = f"{path}?part=1"
    etag = visitor.get(address).etag
    return lambda: visitor.get(address, etag)


def _sampling(visitor: Visitor) -> Callable[[], object]:
    def visit() -> None:
        time.sleep(_SAMPLE_S)
        visitor.get(f"{BASE}/")

    return visit


def _cost(console: ServedConsole, count: int, visit: Callable[[], object]) -> float:
    """Return the milliseconds of CPU of one visit."""
    pids = {"console": console.pids["console"]}
    visit()  # a plan is made, a statement prepared
    before_s = costs.cpu_s(pids)["console"]
    for _ in range(count):
        visit()
    console.deployment.check_alive()
    return (costs.cpu_s(pids)["console"] - before_s) / count * 1000
