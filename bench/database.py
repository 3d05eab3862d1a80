"""Write and read the benchmarks' payments in Postgres. Rates come from the times of the events, by the database's clock.

The time in the ids separates the payments of a measurement from earlier ones: every function takes the time (`since`) from
which payments count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID

import psycopg

_FILL = """
INSERT INTO payments (id, account_id, idempotency_key, fingerprint, amount_minor, currency, lane, provider_key,
                      status, version, attempts, provider_ref, created_at, updated_at, called_at)
SELECT id, 'default', gen_random_uuid()::text, sha256(int4send(i)), 5000, 'USD', 'default', id::text,
       'success', 2, 1, 'ch_filled', at, at, at
FROM (SELECT i, uuidv7(shift) AS id, now() + shift AS at
      FROM generate_series(1, %(rows)s::integer) AS i,
           LATERAL (SELECT interval '-1 hour' - (%(rows)s::integer - i) * (%(span)s::interval / %(rows)s)) AS s (shift))
"""
_FILL_EVENTS = """
INSERT INTO payment_events (payment_id, version, event, status, attempt, actor)
SELECT p.id, e.version, e.event, e.status, 1, 'filled'
FROM payments p, (VALUES (1, 'claimed', 'processing'), (2, 'success', 'success')) AS e (version, event, status)
"""
# Where a system that has run for as long has its sweep: otherwise that would walk over all of the table now.
_FILL_CURSORS = """
INSERT INTO sweep_cursors (lane, passed)
SELECT lane, uuidv7(interval '-1 hour') FROM unnest(ARRAY['critical', 'default', 'low']) AS lane
"""
_PENDING = """
INSERT INTO payments (id, account_id, idempotency_key, fingerprint, amount_minor, currency, lane, provider_key, created_at,
                      updated_at)
SELECT id, 'default', gen_random_uuid()::text, sha256(int4send(i)), amount, 'USD', lane, id::text, at, at
FROM (SELECT i, uuidv7(shift) AS id, now() + shift AS at, lanes.lane, lanes.amount
      FROM generate_series(1, %(rows)s::integer) AS i
      JOIN (VALUES (0, 'low', 440), (1, 'default', 5000), (2, 'critical', 20000)) AS lanes (number, lane, amount)
        ON lanes.number = i %% 3,
           LATERAL (SELECT (i - %(rows)s::integer) * interval '10 microseconds') AS s (shift)
      ORDER BY i)
"""
_BEFORE_PENDING = "SELECT uuidv7(-%s * interval '10 microseconds' - interval '2 milliseconds')"
_SETTLED = "SELECT count(*) FROM payment_events WHERE payment_id >= %(since)s AND event = 'success'"
_ACCEPTED = "SELECT count(*) FROM payments WHERE id >= %(since)s"
_FIRST_ACCEPTED = "SELECT extract(epoch FROM min(created_at)) FROM payments WHERE id >= %(since)s"
_WHOLE_RATE = """
SELECT count(*) / extract(epoch FROM max(e.at) - min(p.created_at))
FROM payment_events e JOIN payments p ON p.id = e.payment_id
WHERE e.payment_id >= %(since)s AND e.event = 'success'
"""
# From the end of the first tenth to the end of the ninth: neither the start of the workers nor the last stragglers count.
_RATE = """
SELECT count(*) * 0.8 / nullif(extract(epoch FROM percentile_disc(0.9) WITHIN GROUP (ORDER BY at)
                                                - percentile_disc(0.1) WITHIN GROUP (ORDER BY at)), 0)
FROM payment_events WHERE payment_id >= %(since)s AND event = 'success'
"""
_AGES = """
SELECT percentile_disc(ARRAY[0.5, 0.99]::float8[]) WITHIN GROUP (ORDER BY extract(epoch FROM e.at - p.created_at) * 1000)
FROM payment_events e JOIN payments p ON p.id = e.payment_id
WHERE e.payment_id >= %(since)s AND e.event = 'success'
"""
_SIZE = "SELECT pg_total_relation_size('payments') + pg_total_relation_size('payment_events')"
_SIZED_ROWS = 20_000
_POLL_S = 0.2
_LONGEST_POLL_S = 1.0

Check = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Ages:
    """From acceptance to settlement, as the database's clock has it."""

    p50_ms: float
    p99_ms: float


def fill(url: str, rows: int) -> None:
    """Put in settled payments and their events; then bring the planner's statistics up to date.

    Also without any rows worth speaking of the statistics matter: on a table that it believes to be empty Postgres
    plans sequential scans.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        if rows:
            fill_rows(connection, rows, timedelta(milliseconds=rows))
            connection.execute(_FILL_CURSORS)
        connection.execute("VACUUM (ANALYZE) payments, payment_events")
        connection.execute("CHECKPOINT")


def fill_rows(connection: psycopg.Connection[Any], rows: int, span: timedelta) -> None:
    """Put in settled payments, spread evenly over the `span` until an hour ago, and their events."""
    connection.execute(_FILL, {"rows": rows, "span": span})
    connection.execute(_FILL_EVENTS)


def bytes_per_payment(url: str) -> float:
    """Return the disk of a settled payment in an empty database: its row, two events, and their indexes."""
    with psycopg.connect(url, autocommit=True) as connection:
        before = int(_asked(connection, _SIZE))
        fill(url, _SIZED_ROWS)
        return (int(_asked(connection, _SIZE)) - before) / _SIZED_ROWS


def add_pending(url: str, rows: int) -> UUID:
    """Put in payments of all lanes as acceptance leaves them, a hundred a millisecond. The point in the ids before them."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(_BEFORE_PENDING, (rows,)).fetchone()
        assert row is not None
        connection.execute(_PENDING, {"rows": rows})
        connection.execute("VACUUM (ANALYZE) payments")
        connection.execute("CHECKPOINT")
        return UUID(str(row[0]))


def mark(url: str) -> UUID:
    """A point in the ids: what is accepted from now on is on its far side."""
    with psycopg.connect(url) as connection:
        return UUID(str(_asked(connection, "SELECT uuidv7()")))


def accepted(url: str, since: UUID) -> int:
    """Return the number of payments."""
    with psycopg.connect(url) as connection:
        return int(_since(connection, _ACCEPTED, since))


def settled(url: str, since: UUID) -> int:
    """Return the number of payments with status success."""
    with psycopg.connect(url) as connection:
        return int(_since(connection, _SETTLED, since))


def wait_settled(
    url: str,
    since: UUID,
    expected: int,
    *,
    within_s: float,
    check: Check,
    on_progress: Callable[[int], None] | None = None,
) -> None:
    """Wait until so many payments have succeeded. `check` raises if that is impossible; `on_progress` gets the count."""
    started_s = time.monotonic()
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            done = int(_since(connection, _SETTLED, since))
            elapsed_s = time.monotonic() - started_s
            if on_progress is not None:
                on_progress(done)
            if done >= expected:
                return
            check()
            if elapsed_s > within_s:
                raise TimeoutError(f"{done:,} of {expected:,} payments settled after {within_s:.0f} s")
            # Counting costs the server that is measured: the less there is to wait for, the closer a look.
            left_s = (expected - done) * elapsed_s / done if done else 0.0
            time.sleep(min(max(left_s / 2, _POLL_S), _LONGEST_POLL_S))


def settling_per_s(url: str, since: UUID) -> float:
    """Payments settled per second, between the first tenth and the last."""
    with psycopg.connect(url) as connection:
        rate = _since(connection, _RATE, since)
    # So few that they were settled in one transaction have no rate of their own.
    return throughput_per_s(url, since) if rate is None else float(rate)


def throughput_per_s(url: str, since: UUID) -> float:
    """Payments per second from the first acceptance to the last settlement."""
    with psycopg.connect(url) as connection:
        return float(_since(connection, _WHOLE_RATE, since))


def first_accepted_s(url: str, since: UUID) -> float:
    """Return the time of the first acceptance, in seconds since 1970."""
    with psycopg.connect(url) as connection:
        return float(_since(connection, _FIRST_ACCEPTED, since))


def ages(url: str, since: UUID) -> Ages:
    """Return the ages of payments when they were settled."""
    with psycopg.connect(url) as connection:
        p50_ms, p99_ms = _since(connection, _AGES, since)
    return Ages(float(p50_ms), float(p99_ms))


def log_position(url: str) -> int:
    """Bytes of write-ahead log so far, of the whole server."""
    with psycopg.connect(url) as connection:
        return int(_asked(connection, "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))


def _since(connection: psycopg.Connection[Any], statement: LiteralString, since: UUID) -> Any:
    row = connection.execute(statement, {"since": since}).fetchone()
    assert row is not None
    return row[0]


def _asked(connection: psycopg.Connection[Any], statement: LiteralString) -> Any:
    row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0]
