"""The simulation: many seeds, or one seed with its trace. `python -m tests.simulation --help`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Literal

from tests.simulation import mutants, world
from tests.simulation.operations import mutants as operation_mutants
from tests.simulation.operations import world as operation_world
from tests.simulation.webhooks import mutants as webhook_mutants
from tests.simulation.webhooks import world as webhook_world
from tests.simulation.world import Result

# What is simulated: the run of a seed, and the bugs that can be planted.
Kind = Literal["payments", "operations", "webhooks"]
RUNS: Final[Mapping[Kind, Callable[..., Result]]] = {
    "payments": world.run,
    "operations": operation_world.run,
    "webhooks": webhook_world.run,
}
PLANTED: Final[Mapping[Kind, Mapping[str, Callable[[], contextlib.AbstractContextManager[object]]]]] = {
    "payments": mutants.MUTANTS,
    "operations": operation_mutants.MUTANTS,
    "webhooks": webhook_mutants.MUTANTS,
}
CHUNK = 25  # seeds a process takes at a time
SHOWN = 10  # failures that are written out


@dataclass(slots=True)
class Total:
    """The totals over many seeds."""

    seeds: int = 0
    payments: int = 0
    simulated_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    failures: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.payments += result.payments
        self.simulated_s += result.simulated_s
        self.faults.update(result.faults)
        self.repairs.update(result.repairs)
        if result.found:
            self.failures.append(result)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if no seed failed, else 1."""
    options = _parser().parse_args(arguments)
    kind: Kind = options.kind
    if options.seed is not None:
        return _replay(options.seed, options.mutant, kind)
    started_s = time.monotonic()
    total = Total()
    for result in _results(options.first, options.seeds, options.jobs, options.mutant, kind):
        total.add(result)
        _show_progress(total, options.seeds, time.monotonic() - started_s)
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    again = () if kind == "payments" else (f"--{kind}",)
    again += () if options.mutant is None else ("--mutant", options.mutant)
    _report(total, time.monotonic() - started_s, as_json=options.json, again=again)
    return 1 if total.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2_000, help="how many (2,000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once (one per core)")
    parser.add_argument("--seed", type=int, help="replay this one and write down what it does")
    kinds = parser.add_mutually_exclusive_group()
    kinds.set_defaults(kind="payments")
    for kind, what in (
        ("operations", "captures, voids and refunds, too"),
        ("webhooks", "their delivery, instead of payments"),
    ):
        kinds.add_argument(f"--{kind}", dest="kind", action="store_const", const=kind, help=what)
    all_of_them = sorted({name for planted in PLANTED.values() for name in planted})
    parser.add_argument("--mutant", choices=all_of_them, help="with this bug planted")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    return parser


def _results(first: int, seeds: int, jobs: int, mutant: str | None, kind: Kind) -> Iterator[Result]:
    starts = range(first, first + seeds, CHUNK)
    sizes = [min(CHUNK, first + seeds - start) for start in starts]
    with ProcessPoolExecutor(max_workers=jobs) as pool:
        for chunk in pool.map(_run_chunk, starts, sizes, [mutant] * len(sizes), [kind] * len(sizes)):
            yield from chunk


def _run_chunk(first: int, count: int, mutant: str | None, kind: Kind) -> list[Result]:
    with _planted(mutant, kind):
        return [RUNS[kind](seed) for seed in range(first, first + count)]


def _replay(seed: int, mutant: str | None, kind: Kind) -> int:
    with _planted(mutant, kind):
        result = RUNS[kind](seed, verbose=True)
    _write("\n".join(result.trace))
    _write(f"\nseed {seed}, digest {result.digest}, {result.payments} payments, {result.simulated_s:.1f} s")
    _write(f"faults: {_listed(result.faults)}")
    _write("\n".join(result.found) or "nothing found")
    return 1 if result.found else 0


def _planted(mutant: str | None, kind: Kind) -> contextlib.AbstractContextManager[object]:
    return contextlib.nullcontext() if mutant is None else PLANTED[kind][mutant]()


def _show_progress(total: Total, seeds: int, passed_s: float) -> None:
    if sys.stderr.isatty() and passed_s > 2 and (total.seeds % CHUNK == 0 or total.seeds == seeds):
        found = f", {len(total.failures)} failed" if total.failures else ""
        line = f"\r\033[K{total.seeds:,} of {seeds:,} seeds, {_rate(total, passed_s):,.0f} a minute{found}"
        sys.stderr.write(line)
        sys.stderr.flush()


def _report(total: Total, passed_s: float, *, as_json: bool, again: Sequence[str]) -> None:
    if as_json:
        _write(json.dumps(_facts(total, passed_s), indent=2))
        return
    for failure in total.failures[:SHOWN]:
        _write(f"seed {failure.seed}:")
        for each in failure.found[:4]:
            _write(f"  {each}")
        _write(" ".join((f"  replay: python -m tests.simulation --seed {failure.seed}", *again)))
    _write(
        f"{total.seeds:,} seeds in {passed_s:.1f} s ({_rate(total, passed_s):,.0f} a minute): "
        f"{total.payments:,} payments in {total.simulated_s / 3600:.1f} simulated hours, "
        f"{sum(total.faults.values()):,} faults, {len(total.failures)} seeds failed"
    )
    _write(f"faults: {_listed(total.faults)}")
    _write(f"repairs: {_listed(total.repairs)}")


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _facts(total: Total, passed_s: float) -> dict[str, object]:
    return {
        "seeds": total.seeds,
        "seeds_per_minute": round(_rate(total, passed_s)),
        "payments": total.payments,
        "simulated_s": round(total.simulated_s),
        "faults": dict(total.faults.most_common()),
        "repairs": dict(total.repairs.most_common()),
        "failures": [{"seed": failure.seed, "found": failure.found} for failure in total.failures],
    }


def _rate(total: Total, passed_s: float) -> float:
    return total.seeds / passed_s * 60


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.most_common()) or "none"


if __name__ == "__main__":
    raise SystemExit(main())
