"""Measure the shapes that payments may have in table partitions: `python -m bench.partition_shapes [--batch 16 --batch 256]`.

The statements of accept, claim and settle run on each shape in turn, on one connection with the settings of a worker. The
figures are CPU of that connection's process, in us a payment, as the median over the rounds; in brackets the ratio to one
table. Of accept: the keys' uniqueness in one table of digests, or by a look into the older table partitions that a key's
lifetime covers. Of claim and settle: through the partitioned table, or on the table partition itself.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg

from bench.machine import describe
from bench.progress import say
from bench.system import running
from okane.payment import MAX_SCHEDULE_AHEAD, NewPayment
from okane.payment_id import PaymentId
from okane.store import columns, sql_files
from okane.store.prepared_statements import PreparedStatement
from okane.store.session import Session

SQL = sql_files.load_statements("payments.sql")
WEEK = timedelta(days=7)
ON_CONFLICT = "ON CONFLICT ON CONSTRAINT payments_idempotency_key DO NOTHING"
KEYED = """WITH keyed AS (
    INSERT INTO payment_keys (digest, id)
    SELECT w.digest, w.id FROM unnest(%(digests)s::uuid[], %(id)s::uuid[]) AS w (digest, id)
    ORDER BY w.digest ON CONFLICT DO NOTHING RETURNING id
)
"""
UNTAKEN = """WHERE NOT EXISTS (SELECT FROM payments o WHERE o.account_id = w.account_id
    AND o.idempotency_key = w.idempotency_key AND o.id >= %(since)s::uuid AND o.id < %(before)s::uuid) AND """


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """`partitions` is 0 for one table. `looks` is the number of older table partitions that are searched for a key, 0 for
    a table of digests. With `directly` claim and settle name the table partition."""

    partitions: int = 0
    looks: int = 0
    directly: bool = False


SHAPES: Mapping[str, Shape] = {
    "one table": Shape(),
    "8, digests": Shape(partitions=8),
    "64, digests": Shape(partitions=64),
    "64, digests, directly": Shape(partitions=64, directly=True),
    "64, looks into 5": Shape(partitions=64, looks=5),
    "64, looks into 30": Shape(partitions=64, looks=30),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--payments", type=int, default=2_048, help="of one shape in one round")
    parser.add_argument("--batch", type=int, action="append", help="payments in one statement; repeatable")
    options = parser.parse_args()
    print(describe())
    with running() as system:
        urls = {name: system.new_database() for name in SHAPES}
        for name, url in urls.items():
            with psycopg.connect(url, autocommit=True) as connection:
                _partition(connection, SHAPES[name])
        for batch in options.batch or (1, 16, 256):
            found: dict[str, list[Mapping[str, float]]] = defaultdict(list)
            for number in range(options.rounds):
                say(f"batches of {batch}: round {number + 1} of {options.rounds}")
                for name in list(SHAPES)[:: 1 if number % 2 else -1]:
                    count = max(batch, options.payments // (8 if batch == 1 else 1))
                    found[name].append(asyncio.run(_round(urls[name], SHAPES[name], count, batch)))
            _print(batch, found)


def _print(batch: int, found: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    for name, rounds in found.items():
        line = f"batches of {batch:<4} {name:<22}"
        for step in rounds[0]:
            ratios = [one[step] / other[step] for one, other in zip(rounds, found["one table"], strict=True)]
            line += f"{step} {statistics.median(one[step] for one in rounds):6.1f} ({statistics.median(ratios):4.2f})  "
        print(line)


def _partition(connection: psycopg.Connection[Any], shape: Shape) -> None:
    """Give empty tables that many table partitions of a week. The newest but one is in use."""
    if not shape.partitions:
        return
    connection.execute("CREATE TABLE payment_keys (digest uuid PRIMARY KEY, id uuid NOT NULL)")
    for table, column, is_keyed in (("payments", "id", shape.looks > 0), ("payment_events", "payment_id", False)):
        connection.execute(f"ALTER TABLE {table} RENAME TO pattern")
        if table == "payments" and not is_keyed:
            connection.execute("ALTER TABLE pattern DROP CONSTRAINT payments_idempotency_key")
        connection.execute(
            f"CREATE TABLE {table} (LIKE pattern INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE ({column})"
        )
        bounds = _bounds(shape)
        for number, (begin, end) in enumerate(itertools.pairwise(bounds)):
            connection.execute(f"CREATE TABLE {table}_{number} (LIKE pattern INCLUDING ALL) WITH (fillfactor = 42)")
            connection.execute(
                f"ALTER TABLE {table} ATTACH PARTITION {table}_{number} FOR VALUES FROM ('{begin}') TO ('{end}')"
            )
        connection.execute("DROP TABLE pattern")


def _bounds(shape: Shape) -> Sequence[UUID]:
    now_ms = PaymentId().int >> 80
    week_ms = int(WEEK.total_seconds() * 1000)
    end_ms = (now_ms // week_ms + 2) * week_ms
    return [UUID(int=(end_ms - n * week_ms) << 80) for n in range(shape.partitions, -1, -1)]


def _texts(shape: Shape) -> Mapping[str, str]:
    accept, claim, settle = (str(SQL[name]) for name in ("accept", "claim", "settle"))
    if shape.partitions:
        accept = accept.replace(ON_CONFLICT, "ON CONFLICT DO NOTHING")
    if shape.partitions and not shape.looks:
        accept = KEYED + accept.replace(
            "WHERE (w.execute_at", "WHERE w.id IN (SELECT k.id FROM keyed k) AND (w.execute_at"
        )
    if shape.looks:
        accept = accept.replace("WHERE (w.execute_at", UNTAKEN + "(w.execute_at")
    if shape.directly:
        used = shape.partitions - 2
        for table, alias in (("payments", "p"), ("payment_events", "e")):
            claim, settle = (
                one.replace(f"{table} {alias}", f"{table}_{used} {alias}").replace(
                    f"INTO {table} ", f"INTO {table}_{used} "
                )
                for one in (claim, settle)
            )
    return {"accept": accept, "claim": claim, "settle": settle}


async def _round(url: str, shape: Shape, count: int, batch: int) -> Mapping[str, float]:
    session = Session(url, name="bench", index_only=True)
    statements = {name: PreparedStatement.of(name, text) for name, text in _texts(shape).items()}
    [[pid]] = await session.fetch("SELECT pg_backend_pid()")
    spent_s = dict.fromkeys(statements, 0.0)

    async def run(name: str, parameters: Mapping[str, Any]) -> None:
        before_s = _cpu_s(pid)
        rows = await session.fetch(statements[name], parameters)
        spent_s[name] += _cpu_s(pid) - before_s
        assert len(rows) == batch, (name, len(rows))

    for number in range(count // batch + 1):
        if number == 1:  # after the first, which plans
            spent_s = dict.fromkeys(statements, 0.0)
        await _pay(run, shape, batch)
    await session.aclose()
    return {name: one / (count // batch * batch) * 1e6 for name, one in spent_s.items()}


async def _pay(run: Callable[..., Any], shape: Shape, batch: int) -> None:
    keys = [str(uuid4()) for _ in range(batch)]
    ids = [PaymentId() for _ in keys]
    news = [
        NewPayment(account_id="a", idempotency_key=key, fingerprint=b"f" * 32, amount_minor=1, currency="USD", lane="low",
                   metadata={})
        for key in keys
    ]  # fmt: skip
    accepted = {
        **columns.new_columns(news),
        "id": ids,
        "wake": [True] * batch,
        "clock_s": (ids[0].int >> 80) / 1000,
        "grace_s": 10.0,
        "farthest_s": MAX_SCHEDULE_AHEAD.total_seconds(),
        "digests": [UUID(bytes=hashlib.sha256(f"1:a{key}".encode()).digest()[:16]) for key in keys],
    }
    if shape.looks:
        bounds = _bounds(shape)
        accepted |= {"since": bounds[-3 - shape.looks], "before": bounds[-3]}
    await run("accept", accepted)
    rest = {"actor": "bench", "grace_ms": 10_000, "late_ms": 60_000, "lease_ms": 30_000}
    ids.sort(key=columns.INT)
    await run("claim", {"ids": ids, "usable": ["http"], "first_default": "http", **rest})
    nothing = [None] * batch
    await run(
        "settle",
        {
            "ids": ids,
            "attempts": [1] * batch,
            "statuses": ["success"] * batch,
            "events": ["success"] * batch,
            "provider_refs": ["ch_0123456789abcdef"] * batch,
            "calls": ["charge"] * batch,
            "providers": ["http"] * batch,
            "latencies_ms": [20] * batch,
            **dict.fromkeys(("decline_codes", "reasons", "delays_ms", "attempt_refs", "next_actions", "captures_before"),
                            nothing),
            **rest,
        },
    )  # fmt: skip


def _cpu_s(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


if __name__ == "__main__":
    main()
