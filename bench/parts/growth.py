"""Part e: what payments cost when the tables, the streams and the waiting grow, and what more processes bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from bench import database, load, redis_state
from bench.drain import Drained, drain
from bench.options import PARTS, BenchOptions
from bench.progress import say
from bench.report import Collector, Part
from bench.system import OKANE, Provider, System, deployed, provider

ROWS_COST = "Postgres' cost, most rows / fewest"
BACKLOG_COST = "cost, longest backlog / shortest"
SECOND_WORKER = "second worker adds, of the first"

API_COUNTS = (1, 2)
_LONG_LEASE = {"VISIBILITY_TIMEOUT": "3600"}  # what another holds stays with it
_ACCEPT_ENV = {"OKANE_MAX_STREAM_LENGTH": "100000000"}


def measure(system: System, options: BenchOptions) -> Part:
    """Everything but the APIs is measured by draining payments that wait already."""
    found = Collector("e", PARTS["e"])
    with provider(system) as charged:
        _rows(found, system, charged, options)
        _backlogs(found, system, charged, options)
        _beside(found, system, charged, options)
        _workers(found, system, charged, options)
        _apis(found, system, charged, options)
    return found.part()


def _rows(found: Collector, system: System, charged: Provider, options: BenchOptions) -> None:
    """The databases are filled once, and take turns."""
    urls = {}
    for rows in options.row_counts:
        say(f"e: filling a table with {rows:,} settled payments")
        urls[rows] = system.new_database()
        database.fill(urls[rows], rows)
    for number in range(_rounds(options)):
        for rows, url in urls.items():
            say(f"e: {rows:,} rows, round {number + 1}")
            done = drain(system, charged, url, payments=_sample(options))
            _add(found, f"{rows:,} rows", done)
            found.add(f"{rows:,} rows, Postgres alone", "us CPU", done.cpu_us["Postgres"])
    for url in urls.values():
        system.drop_database(url)
    fewest, most = min(urls), max(urls)
    found.ratio(ROWS_COST, of=f"{most:,} rows, Postgres alone", to=f"{fewest:,} rows, Postgres alone")


def _backlogs(found: Collector, system: System, charged: Provider, options: BenchOptions) -> None:
    """Settle as many payments of every backlog as the shortest has: only the length of the rest differs."""
    for number in range(_rounds(options)):
        for size in options.backlog_sizes:
            say(f"e: backlog of {size:,}, round {number + 1}")
            done = _drained(system, charged, payments=size, until=_sample(options))
            _add(found, f"backlog of {size:,}", done)
    shortest, longest = min(options.backlog_sizes), max(options.backlog_sizes)
    found.ratio(BACKLOG_COST, of=f"backlog of {longest:,}, cost", to=f"backlog of {shortest:,}, cost")


def _beside(found: Collector, system: System, charged: Provider, options: BenchOptions) -> None:
    """Measure the same work beside messages that are pending or delayed."""
    count = options.waiting
    additions: Mapping[str, Callable[[str], None] | None] = {
        "nothing beside": None,
        f"{count:,} held elsewhere": partial(_held_elsewhere, system, count),
        f"{count:,} delayed": partial(_delayed, system, count),
    }
    for number in range(_rounds(options)):
        for name, beside in additions.items():
            say(f"e: {name}, round {number + 1}")
            _add(found, name, _drained(system, charged, payments=_sample(options), beside=beside, env=_LONG_LEASE))


def _held_elsewhere(system: System, count: int, stream: str) -> None:
    redis_state.add_held_elsewhere(system, stream, count)


def _delayed(system: System, count: int, stream: str) -> None:
    redis_state.add_delayed(system, stream, count)


def _workers(found: Collector, system: System, charged: Provider, options: BenchOptions) -> None:
    for number in range(_rounds(options)):
        for workers in options.worker_counts:
            say(f"e: {workers} worker processes, round {number + 1}")
            done = _drained(system, charged, payments=workers * _sample(options), workers=workers)
            _add(found, f"{workers} worker processes", done)
    found.ratio("two workers / one", of="2 worker processes", to="1 worker processes")
    if (both := found.medians().get("two workers / one")) is not None:
        found.add(SECOND_WORKER, "x", both - 1)


def _apis(found: Collector, system: System, charged: Provider, options: BenchOptions) -> None:
    for number in range(_rounds(options)):
        for apis in API_COUNTS:
            say(f"e: {apis} API processes, round {number + 1}")
            url = system.new_database()
            database.fill(url, 0)
            with deployed(system, OKANE, database_url=url, provider_url=charged.url, env=_ACCEPT_ENV) as deployment:
                deployment.start_sharing_apis(apis)
                load.generate(deployment.api_ports, connections=16, seconds=1)
                seen = load.generate(deployment.api_ports, connections=options.connections, seconds=options.seconds)
            found.add(f"{apis} API processes", "req/s", seen.per_s)
            system.drop_database(url)
    found.ratio("two APIs / one", of="2 API processes", to="1 API processes")
    found.note("API processes share a port: the kernel deals the connections out")


def _drained(
    system: System,
    charged: Provider,
    *,
    payments: int,
    until: int | None = None,
    workers: int = 1,
    beside: Callable[[str], None] | None = None,
    env: Mapping[str, str] | None = None,
) -> Drained:
    """A drain in a database of its own."""
    url = system.new_database()
    database.fill(url, 0)
    done = drain(system, charged, url, payments=payments, until=until, workers=workers, beside=beside, env=env)
    system.drop_database(url)
    return done


def _rounds(options: BenchOptions) -> int:
    """Fewer than of the other parts: one round here takes two minutes."""
    return min(options.rounds, 2)


def _sample(options: BenchOptions) -> int:
    return min(options.backlog_sizes)


def _add(found: Collector, name: str, done: Drained) -> None:
    found.add(name, "settled/s", done.per_s)
    found.add(f"{name}, cost", "us CPU", done.ours_us)
