"""Measure payments in table partitions against one table: `python -m bench.partition_cost [--rows 5000000] [--batch 16]`.

Through the store alone: accept, claim and settle, and the sweep, which takes payments without a wake-up (`take`) and looks
where nothing is due (`look`, us each). CPU of all of Postgres in us a payment, as the median over the rounds, and the ratio
to one empty table. With --rows so many settled payments are in 64 table partitions.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg

from bench import database
from bench.machine import describe
from bench.progress import say
from bench.store_cost import Meter, pay
from bench.system import System, running
from okane.lanes import LANES
from okane.payment import NewPayment
from okane.store import PaymentStore, SweepStore
from okane.store.partition_bounds import DAY
from okane.store.partition_conversion import convert

LOOKS = 100
STEPS = ("accept", "claim", "settle", "take", "look", "all")
GRACE = timedelta(seconds=10)
AHEAD = 2 * DAY  # as `okane partitions` makes them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--payments", type=int, default=2_048, help="in one round")
    parser.add_argument("--batch", type=int, action="append", help="payments in one statement; repeatable (16, 256)")
    parser.add_argument("--rows", type=int, default=0, help="settled payments in 64 table partitions")
    options = parser.parse_args()
    print(describe())
    with running() as system:
        urls = {"one table": system.new_database()}
        for parts in (8, 64):
            urls[f"{parts} parts"] = _in_parts(system, parts, rows=0)
        if options.rows:
            say(f"filling 64 table partitions with {options.rows:,} payments")
            urls[f"64 parts, {options.rows:,} rows"] = _in_parts(system, 64, rows=options.rows)
        for batch in options.batch or (16, 256):
            found: dict[str, list[Mapping[str, float]]] = defaultdict(list)
            for number in range(options.rounds):
                say(f"batches of {batch}: round {number + 1} of {options.rounds}")
                for name, url in list(urls.items())[:: 1 if number % 2 else -1]:
                    found[name].append(asyncio.run(_round(system, url, options.payments, batch)))
            _print(batch, found)


def _print(batch: int, found: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    for name in sorted(found):
        line = f"batches of {batch:<4} {name:<26}"
        for step in STEPS:
            ratios = [one[step] / other[step] for one, other in zip(found[name], found["one table"], strict=True)]
            line += f"{step} {statistics.median(one[step] for one in found[name]):6.1f} ({statistics.median(ratios):4.2f})  "
        print(line)


def _in_parts(system: System, parts: int, *, rows: int) -> str:
    """Return a database with so many table partitions, two of them in the future."""
    url = system.new_database()
    span = (parts - 2) * DAY - AHEAD
    with psycopg.connect(url, autocommit=True) as connection:
        convert(connection, every=DAY, ahead=(parts - 1) * DAY, now=datetime.now(UTC) - span)
        if rows:
            database.fill_rows(connection, rows, span)
            connection.execute("INSERT INTO payment_keys SELECT gen_random_uuid(), id FROM payments")
            connection.execute("VACUUM (ANALYZE) payments, payment_events, payment_keys")
            connection.execute("CHECKPOINT")
        connection.execute(
            "INSERT INTO sweep_cursors SELECT lane, uuidv7('-1 hour') FROM unnest(%s::text[]) AS lane",
            ([lane.name for lane in LANES],),
        )
    return url


async def _round(system: System, url: str, count: int, batch: int) -> Mapping[str, float]:
    assert system.postgres.child is not None
    store = PaymentStore(url, actor="bench", lease=timedelta(seconds=30), grace=GRACE)
    sweep = SweepStore(url, grace=GRACE)
    meter = Meter(url, system.postgres.child.pid, STEPS)
    await pay(store, meter, batch, batch)  # connections, prepared statements
    await _sweep(store, sweep, meter, batch, batch)
    meter.reset()
    await pay(store, meter, count, batch)
    await _sweep(store, sweep, meter, count, batch)
    await store.aclose()
    await sweep.aclose()
    found = meter.figures(count // batch * batch)
    figures = {step: found[f"{step}: CPU, us a payment"] for step in STEPS}
    return {**figures, "look": figures["look"] * count / LOOKS}


async def _sweep(store: PaymentStore, sweep: SweepStore, meter: Meter, count: int, batch: int) -> None:
    """Take payments whose wake-up was lost, and settle none of them: they are due again in an hour."""
    lanes = {lane.name: timedelta(hours=1) for lane in LANES}
    for _ in range(count // batch):
        news = [
            NewPayment(account_id="default", idempotency_key=str(uuid4()), fingerprint=b"f" * 32, amount_minor=440,
                       currency="USD", lane="low", metadata={})
            for _ in range(batch)
        ]  # fmt: skip
        await store.accept_many(news, wakes=0)
        meter.begin()
        taken = await sweep.take_due(lanes, limit=batch)
        meter.end("take")
        assert len(taken) == batch
    meter.begin()
    for _ in range(LOOKS):
        await sweep.take_due(lanes, limit=batch)
    meter.end("look")


if __name__ == "__main__":
    main()
