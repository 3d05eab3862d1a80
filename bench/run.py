"""Run the requested parts, one after the other, on one pair of servers."""

from __future__ import annotations

from collections.abc import Iterator

from bench.machine import facts
from bench.options import BenchOptions
from bench.parts import accept, end_to_end, growth, library, light
from bench.report import Part, Report
from bench.system import System, running


def run(options: BenchOptions) -> Report:
    """Measure. Raises SetupError if the servers don't start, TimeoutError if payments don't settle."""
    machine = facts()
    with running() as system:
        parts = list(_parts(system, options))
    return Report(machine=machine, quick=options.quick, parts=sorted(parts, key=lambda part: part.letter))


def _parts(system: System, options: BenchOptions) -> Iterator[Part]:
    letters = set(options.letters)
    if "a" in letters:
        yield accept.measure(system, options)
    if letters & {"b", "d"}:
        yield from end_to_end.measure(system, options)
    if "c" in letters:
        yield library.measure(system, options)
    if "e" in letters:
        yield growth.measure(system, options)
    if "f" in letters:
        yield light.measure(system, options)
