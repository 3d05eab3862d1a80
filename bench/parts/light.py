"""Part f: how long a payment takes when there is little to do."""

from __future__ import annotations

from bench import flow
from bench.options import PARTS, BenchOptions
from bench.progress import say
from bench.report import Collector, Part
from bench.system import OKANE, TEXTBOOK, System, provider

RATE = 50.0
CONTENDERS = (TEXTBOOK, OKANE)
SETTLED_P50 = "okane, accepted to settled, p50"


def measure(system: System, options: BenchOptions) -> Part:
    """Both contenders at 50 payments a second, whatever they do."""
    found = Collector("f", PARTS["f"])
    with provider(system) as charged:
        for number in range(options.rounds):
            for contender in CONTENDERS:
                say(f"f: {contender.name} at {RATE:.0f}/s, round {number + 1}")
                sent, ages = flow.drip(
                    system, contender, charged, workers=options.workers, rate=RATE, seconds=2 * options.seconds
                )
                name = contender.name
                found.add(f"{name}, POST to 202, p50", "ms", sent.p50_ms)
                found.add(f"{name}, POST to 202, p99", "ms", sent.p99_ms)
                found.add(f"{name}, accepted to settled, p50", "ms", ages.p50_ms)
                found.add(f"{name}, accepted to settled, p99", "ms", ages.p99_ms)
    found.note("accepted to settled: by the database's clock, from the row to its outcome")
    return found.part()
