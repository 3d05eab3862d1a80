"""Measure the space of events and the cost of a scrape: `python -m bench.webhook_size [--events 200000] [--endpoints 10000]`.

Events come in batches of sequencing, each of another account, and each is delivered to one endpoint at the first attempt. The
payments' ids are those of new payments. A scrape is the part of /metrics/system that reads events and endpoint queues; at the
end every hundredth endpoint is disabled and has a backlog.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg

from bench.machine import describe
from bench.progress import say
from bench.system import running
from okane.payment_id import PaymentId
from okane.store import Overview

BATCH = 256
ROUNDS = 20
DAY_S = timedelta(days=1).total_seconds()
RATES = (1, 100, 8_000)
_EVENTS = "COPY webhook_events (position, account_id, payment_id, version, type, at) FROM STDIN"
_DELIVERIES = "COPY webhook_deliveries (endpoint_id, position, state, attempts, status, ms, at) FROM STDIN"
_SIZE = "SELECT sum(pg_relation_size(relid)), sum(pg_total_relation_size(relid)) FROM pg_partition_tree(%s)"
_NOW = "2026-11-22T01:19:52.796174Z"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--endpoints", type=int, default=10_000)
    options = parser.parse_args()
    print(describe())
    with running() as system:
        url = system.new_database()
        endpoints = [uuid4() for _ in range(options.endpoints)]
        with psycopg.connect(url) as connection:
            _add_endpoints(connection, endpoints)
            say(f"{options.events:,} events of {options.endpoints:,} accounts")
            _add_events(connection, endpoints, options.events)
            total = _print_sizes(connection, options.events)
            connection.execute("VACUUM ANALYZE")
        for rate in RATES:
            print(f"{f'{rate:,} events a second':<28}{rate * DAY_S * total / 1e9:10.2f} GB a day")
        asyncio.run(_print_scrapes(url))


def _add_endpoints(connection: psycopg.Connection, endpoints: list[UUID]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO webhook_endpoints (id, account_id, url, types, api_version, starts_after)"
            " VALUES (%s, %s, 'https://example.com/hook', '{payment.*}', '2026-12-01', 0)",
            [(one, f"acct_{number}") for number, one in enumerate(endpoints)],
        )
    connection.execute(
        "INSERT INTO webhook_queues (endpoint_id, done_to, lease_until)"
        " SELECT id, 0, now() + interval '1 hour' FROM webhook_endpoints"
    )
    connection.commit()


def _add_events(connection: psycopg.Connection, endpoints: list[UUID], events: int) -> None:
    """Write the events, and their deliveries, as sequencing and results do: batch by batch."""
    for first in range(1, events + 1, BATCH):
        positions = range(first, min(first + BATCH, events + 1))
        with connection.cursor() as cursor, cursor.copy(_EVENTS) as copy:
            for position in positions:
                account = f"acct_{position % len(endpoints)}"
                copy.write_row((position, account, UUID(str(PaymentId())), 2, "payment.succeeded", _NOW))
        with connection.cursor() as cursor, cursor.copy(_DELIVERIES) as copy:
            for position in positions:
                copy.write_row((endpoints[position % len(endpoints)], position, "delivered", 1, 200, 12, _NOW))
        connection.commit()
    connection.execute("UPDATE webhook_sequencer SET last = %s", [events])
    connection.execute("UPDATE webhook_queues SET done_to = %s", [events])
    connection.commit()
    connection.autocommit = True


def _print_sizes(connection: psycopg.Connection, events: int) -> float:
    """Print the bytes of an event and of a delivery; return their sum."""
    total = 0.0
    for name, table in (("event in the log", "webhook_events"), ("its delivery", "webhook_deliveries")):
        row = connection.execute(_SIZE, [table]).fetchone()
        assert row is not None
        print(f"{name:<28}{row[1] / events:10.0f} bytes, {row[0] / events:.0f} of them without indexes")
        total += float(row[1]) / events
    print(f"{'both':<28}{total:10.0f} bytes")
    return total


async def _print_scrapes(url: str) -> None:
    overview = Overview(url)
    print(f"{'a scrape, all idle':<28}{await _scrape_ms(overview):10.1f} ms")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(
            "WITH off AS (UPDATE webhook_endpoints SET status = 'disabled'"
            " WHERE substr(account_id, 6)::integer % 100 = 0 RETURNING id)"
            " UPDATE webhook_queues SET done_to = 0 FROM off WHERE endpoint_id = off.id"
        )
    print(f"{'a scrape, 1 in 100 disabled':<28}{await _scrape_ms(overview):10.1f} ms")
    await overview.aclose()


async def _scrape_ms(overview: Overview) -> float:
    await overview.webhooks()
    started_s = time.perf_counter()
    for _ in range(ROUNDS):
        await overview.webhooks()
    return (time.perf_counter() - started_s) / ROUNDS * 1000


if __name__ == "__main__":
    main()
