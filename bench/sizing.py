"""Compute the table of docs/sizing.md: `python -m bench.sizing [--figures bench.json] [--rates 1000,10000,100000]`.

It derives the servers that a rate needs from the measured cost of one payment: those of docs/sizing.md, or those of your own
machine, from the report of `okane bench --only a,b,d --json > bench.json`. The result is Markdown, or JSON. A rate beyond the
measured one was never run: its column is arithmetic, and says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cells import USED
from bench.parts import end_to_end

RATES = (1_000, 10_000, 100_000)
DAY_S = 86_400
IN_FLIGHT = 256  # WORKER_COUNT, of one worker process
API_CONNECTIONS, WORKER_CONNECTIONS = 22, 14  # to Postgres, at most, of one process: docs/operations.md


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The measured cost of one payment, and the rate of the machine on which it was measured."""

    api_us: float
    worker_us: float
    postgres_us: float
    redis_us: float
    log_bytes: float
    row_bytes: float  # at rest: the row, its events, their indexes
    per_s: float  # end to end, all on one machine
    process_mb: float


# Of the machine in docs/sizing.md; a test holds the two together.
MEASURED = Costs(
    api_us=100,
    worker_us=167,
    postgres_us=118,
    redis_us=32,
    log_bytes=1_500,
    row_bytes=1_134,
    per_s=8_449,
    process_mb=66,
)

# Field -> part and figure of `okane bench`.
FIGURES: Mapping[str, tuple[str, str]] = {
    "api_us": ("a", "okane, API process"),
    "worker_us": ("d", "okane, workers"),
    "postgres_us": ("d", "okane, Postgres"),
    "redis_us": ("d", "okane, Redis"),
    "log_bytes": ("d", "okane, write-ahead log"),
    "row_bytes": ("d", end_to_end.AT_REST),
    "per_s": ("b", end_to_end.PER_S),
    "process_mb": ("d", "okane, API memory"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Assumptions that no measurement of okane supplies."""

    provider_ms: float = 200.0  # of one call
    keep_days: int = 90  # rows are kept for so long: okane itself deletes none
    disk_tb: float = 10.0  # of one Postgres server


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The servers that one rate needs. Cores are busy cores; a cell is the measured machine, used at 70 %."""

    per_s: int
    api_cores: float
    api_processes: int
    worker_cores: float
    in_flight: int
    worker_processes: int
    postgres_cores: float
    log_mb_per_s: float
    connections: int
    disk_gb_per_day: float
    disk_tb_kept: float
    redis_threads: float
    memory_gb: float
    cells: int
    was_run: bool
    limits: tuple[str, ...]  # names of those that are reached


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound of one okane that more processes do not move, the rate at which it is reached, and the answer."""

    name: str
    bound: str
    per_s: float
    answer: str


_DISK_ANSWER = "a larger disk, or export and delete old rows yourself: okane deletes none"
_MACHINE_ANSWER = "Postgres, Redis, APIs and workers on machines of their own"
_REDIS_ANSWER = "[cells](scale.md#cells): one Redis each"


def limits(costs: Costs, wish: Wish) -> Sequence[Limit]:
    """Return the bounds, lowest rate first."""
    disk = wish.disk_tb * 1e12 / (costs.row_bytes * wish.keep_days * DAY_S)
    found = (
        Limit("disk", f"{wish.keep_days} days of rows on {wish.disk_tb:g} TB", disk, _DISK_ANSWER),
        Limit("machine", "all that the measured machine settled, end to end", costs.per_s, _MACHINE_ANSWER),
        Limit("Redis", f"{USED * 100:.0f} % of its one thread", USED * 1e6 / costs.redis_us, _REDIS_ANSWER),
    )
    return sorted(found, key=lambda limit: limit.per_s)


def size(per_s: int, costs: Costs, wish: Wish) -> Size:
    """Return the needs of `per_s` payments a second."""
    api_cores, worker_cores = per_s * costs.api_us / 1e6, per_s * costs.worker_us / 1e6
    in_flight = math.ceil(per_s * wish.provider_ms / 1000)
    # One more than needed: one may die or drain.
    apis = 1 + math.ceil(api_cores / USED)
    workers = 1 + max(math.ceil(worker_cores / USED), math.ceil(in_flight / IN_FLIGHT))
    day_bytes = per_s * costs.row_bytes * DAY_S
    return Size(
        per_s=per_s,
        api_cores=api_cores,
        api_processes=apis,
        worker_cores=worker_cores,
        in_flight=in_flight,
        worker_processes=workers,
        postgres_cores=per_s * costs.postgres_us / 1e6,
        log_mb_per_s=per_s * costs.log_bytes / 1e6,
        connections=apis * API_CONNECTIONS + workers * WORKER_CONNECTIONS,
        disk_gb_per_day=day_bytes / 1e9,
        disk_tb_kept=day_bytes * wish.keep_days / 1e12,
        redis_threads=per_s * costs.redis_us / 1e6,
        memory_gb=(apis + workers) * costs.process_mb / 1000,
        cells=math.ceil(per_s / (costs.per_s * USED)),
        was_run=per_s <= costs.per_s,
        limits=tuple(limit.name for limit in limits(costs, wish) if limit.per_s < per_s),
    )


def table(costs: Costs, wish: Wish, rates: Sequence[int] = RATES) -> str:
    """Return the sizes as Markdown, and the rates at which each bound is reached."""
    sizes = [size(rate, costs, wish) for rate in rates]
    kept = f"disk for a day; for {wish.keep_days} days"
    rows: Sequence[tuple[str, Sequence[str]]] = (
        ("**run?**", [_run(one) for one in sizes]),
        ("API: busy cores; processes", [f"{_number(one.api_cores)}; {one.api_processes:,}" for one in sizes]),
        (
            f"workers: busy cores; in flight ({wish.provider_ms:g} ms); processes",
            [f"{_number(one.worker_cores)}; {one.in_flight:,}; {one.worker_processes:,}" for one in sizes],
        ),
        ("memory of these processes", [f"{_number(one.memory_gb)} GB" for one in sizes]),
        ("Postgres: busy cores", [_number(one.postgres_cores) for one in sizes]),
        ("write-ahead log", [f"{_number(one.log_mb_per_s)} MB/s" for one in sizes]),
        ("connections to Postgres, at most", [f"{one.connections:,}" for one in sizes]),
        (kept, [f"{_bytes(one.disk_gb_per_day)}; {_bytes(one.disk_tb_kept * 1000)}" for one in sizes]),
        ("Redis: busy threads, of one", [_number(one.redis_threads) for one in sizes]),
        ("limits that are reached, first to last", [", ".join(one.limits) or "none" for one in sizes]),
        ("cells of the measured machine, at 70 %", [f"{one.cells:,}" for one in sizes]),
    )
    head = ["payments a second", *(f"{rate:,}" for rate in rates)]
    lines = [head, ["---"] * len(head), *([name, *values] for name, values in rows)]
    bounds = [["limit of one okane", "is", "reached at", "answer"], ["---"] * 4]
    bounds += [[one.name, one.bound, f"{_rounded(one.per_s):,}/s", one.answer] for one in limits(costs, wish)]
    return "\n\n".join("\n".join(f"| {' | '.join(line)} |" for line in part) for part in (lines, bounds))


def _run(one: Size) -> str:
    return "below the measured rate" if one.was_run else "never: computed"


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 0.1 else f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _bytes(gigabytes: float) -> str:
    return f"{gigabytes:,.0f} GB" if gigabytes < 1000 else f"{_number(gigabytes / 1000)} TB"


def _rounded(per_s: float) -> int:
    return round(per_s / 100) * 100 if per_s >= 1000 else round(per_s)


def measured(report: Path) -> Costs:
    """Return the costs in a report of `okane bench --only a,b,d --json`. Raise ValueError for a figure that it lacks."""
    parts = json.loads(report.read_text())["parts"]
    found: dict[str, float] = {}
    for field, (letter, name) in FIGURES.items():
        figures = parts.get(letter, {"figures": ()})["figures"]
        medians = [float(one["median"]) for one in figures if one["name"] == name]
        if not medians:
            raise ValueError(f"{report} has no figure {name!r} of part {letter}: okane bench --only a,b,d --json")
        found[field] = medians[0]
    return Costs(**found)


def main(arguments: list[str] | None = None) -> None:
    default = Wish()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=Path, help="a report of `okane bench --only a,b,d --json` [docs/sizing.md]")
    parser.add_argument("--rates", default=",".join(map(str, RATES)), help="payments a second [%(default)s]")
    parser.add_argument("--provider-ms", type=float, default=default.provider_ms, help="of one call [%(default)s]")
    parser.add_argument("--keep-days", type=int, default=default.keep_days, help="how long rows stay [%(default)s]")
    parser.add_argument("--disk-tb", type=float, default=default.disk_tb, help="of one Postgres [%(default)s]")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        costs = measured(options.figures) if options.figures else MEASURED
        rates = [int(rate) for rate in options.rates.split(",")]
    except (ValueError, OSError) as error:
        parser.error(str(error))
    wish = Wish(provider_ms=options.provider_ms, keep_days=options.keep_days, disk_tb=options.disk_tb)
    if options.json:
        print(json.dumps([dataclasses.asdict(size(rate, costs, wish)) for rate in rates]))
    else:
        print(table(costs, wish, rates))


if __name__ == "__main__":
    main()
