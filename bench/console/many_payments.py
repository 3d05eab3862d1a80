"""Part e: the time of every page in a database with a million payments."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import psycopg

from bench.console.filling import fill_everything
from bench.console.options import PARTS, ConsoleBenchOptions
from bench.console.served import ServedConsole, served
from bench.console.visitor import Visitor
from bench.progress import say
from bench.report import Collector, Part
from bench.system import Provider, System

SLOWEST = "slowest page, p99"
SLOWEST_SEARCH = "slowest bounded search, p99"
_EVENTS = 200_000
_SEARCHES = 20  # each may take its second
_SOME = (
    "SELECT id::text, idempotency_key FROM payments TABLESAMPLE BERNOULLI (%s) WHERE account_id = 'default' LIMIT %s"
)
_ENDPOINT = "SELECT id::text FROM webhook_endpoints WHERE account_id = 'default' ORDER BY id LIMIT 1"


def measure(system: System, charged: Provider, options: ConsoleBenchOptions) -> Part:
    """Each page many times, of other payments each time."""
    found = Collector("e", PARTS["e"])
    url = system.new_database()
    say(f"e: filling in {options.payments:,} payments")
    fill_everything(url, options.payments, events=min(_EVENTS, options.payments))
    with served(system, charged, options, database_url=url) as console, console.visiting() as visitor:
        _measure_all(found, "pages", visitor, _pages(console, options), options.requests)
        bounded = {name: itertools.cycle(paths) for name, paths in searches(options.payments).items()}
        _measure_all(found, "searches", visitor, bounded, min(options.requests, _SEARCHES))
    system.drop_database(url)
    found.note(f"{options.payments:,} payments; from the request to the last byte of the answer, one at a time, warm")
    return found.part()


def _measure_all(
    found: Collector, kind: str, visitor: Visitor, pages: Mapping[str, Iterator[str]], requests: int
) -> None:
    slowest = 0.0
    for name, paths in pages.items():
        say(f"e: {name}")
        visitor.get(next(paths))
        times = sorted(visitor.get(next(paths)).took_ms for _ in range(requests))
        found.add(f"{name}, p50", "ms", times[len(times) // 2])
        slowest = max(slowest, found.add(f"{name}, p99", "ms", times[len(times) * 99 // 100]))
    found.add(SLOWEST if kind == "pages" else SLOWEST_SEARCH, "ms", slowest)


def _pages(console: ServedConsole, options: ConsoleBenchOptions) -> Mapping[str, Iterator[str]]:
    """Return the addresses of each kind of page, without an end."""
    with psycopg.connect(console.deployment.database_url) as connection:
        count = options.requests + 1
        # Twice as many as are needed and some more, since rows are drawn at random. Of whole blocks there might be none.
        share = min(100.0, 200 * count / options.payments + 1)
        some = connection.execute(_SOME, (share, count)).fetchall()
        [endpoint] = connection.execute(_ENDPOINT).fetchone() or [""]
    return {name: itertools.cycle(paths) for name, paths in pages(some, endpoint, options.payments).items()}


def pages(some: Sequence[tuple[str, str]], endpoint: str, payments: int) -> Mapping[str, Sequence[str]]:
    """Return the addresses of each kind of page among so many payments, of which `some` are ids and keys."""
    now = datetime.now(UTC)
    hours = [now - timedelta(hours=1) - timedelta(seconds=payments / 10 * part / 24) for part in range(24)]
    return {
        "overview": ["/"],
        "payments, newest": ["/payments"],
        "payments, somewhere": [f"/payments?after={payment_id}" for payment_id, _ in some],
        "payments of an hour": [
            f"/payments?from={hour:%Y-%m-%dT%H:%M:%S}&to={hour + timedelta(hours=1):%Y-%m-%dT%H:%M:%S}"
            for hour in hours
        ],
        "payments of a rare status": ["/payments?status=failed_final", "/payments?status=canceled"],
        "a payment by its key": [f"/payments?q=key:{key}" for _, key in some],
        "one payment": [f"/payments/{payment_id}" for payment_id, _ in some],
        "streams": ["/streams"],
        "pending": ["/streams/low/pending"],
        "delayed": ["/streams/delayed"],
        "dead letters": ["/dead"],
        "reviews": ["/reviews"],
        "disputes": ["/disputes"],
        "disputes, somewhere": [f"/disputes?after={payment_id}" for payment_id, _ in some],
        "disputes to answer": ["/disputes?status=needs_response", "/disputes?status=won&provider=http"],
        "disputes of a payment": [f"/disputes?payment={payment_id}" for payment_id, _ in some],
        "providers": ["/providers"],
        "webhooks": ["/webhooks"],
        "endpoint": [f"/webhooks/{endpoint}"],
        "endpoint, given up": [f"/webhooks/{endpoint}?state=given_up", f"/webhooks/{endpoint}?state=waiting"],
        "workers": ["/workers"],
        "keys": ["/keys"],
        "doctor": ["/doctor"],
        "audit": ["/audit"],
    }


def searches(payments: int) -> Mapping[str, Sequence[str]]:
    """Return the addresses of the searches that read for a while, and then say how far they have come."""
    numbers = [payments * part // 20 for part in range(1, 21)]
    return {
        "search by metadata": [f"/payments?q=metadata.order=A-{number}" for number in numbers],
        "search by reference": [f"/payments?q=ref:ch_{number}" for number in numbers],
        "search by amount": [f"/payments?currency=USD&amount_from={number % 400 + 100}.99" for number in numbers],
        "search by provider": ["/payments?provider=stripe"],
        "dead letters of a currency": ["/dead?currency=JPY", "/dead?currency=EUR&lane=low"],
        "dry run of a replay": ["/dead/replay?limit=500"],
        "dry run of a purge": ["/dead/purge?limit=500"],
        "search for none": ["/payments?status=unknown&status=pending"],
    }
