"""Measure what a payment costs Postgres: `python -m bench.store_cost [--before CHECKOUT] [--rounds 9] [--batch 256]`.

Accept, claim and settle, in batches of one size, through the store alone: no API, Redis or provider. With --before another
version does the same work beside it on the same server, by turns; a ratio is the median over the rounds. With --refunds each
payment is refunded, too: the last line is the rate at which refunds are claimed and settled, as a part of the payments', by
the time that passes, with the work of the store itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psutil
import psycopg
from psycopg import sql

from okane.payment import NewPayment, Status
from okane.store import AcceptedRow, Claim, PaymentStore, Settlement
from okane.store.schema import migrate

PAYMENTS = 5_120
STEPS = ("accept", "claim", "settle", "all")
REFUND_STEPS = ("request", "claim of a refund", "settle of a refund")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The payments of one round, and how many are in one statement. With `subscribed` their changes go to the outbox."""

    batch: int
    payments: int = PAYMENTS
    subscribed: bool = False
    refunds: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=256, help="payments in one statement")
    parser.add_argument("--before", type=Path, help="a checkout of another version, to compare with")
    parser.add_argument("--payments", type=int, default=PAYMENTS, help="in one round")
    parser.add_argument("--subscribed", action="store_true", help="the account has a webhook endpoint")
    parser.add_argument("--refunds", action="store_true", help="refund each payment, too (not with --before)")
    parser.add_argument("--round-of", nargs=2, metavar=("URL", "PID"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.round_of is None:
        _compare(options)
    else:
        url, pid = options.round_of
        print(json.dumps(asyncio.run(_round(url, int(pid), options))))


def _compare(options: argparse.Namespace) -> None:
    # Imported here: a round of another version has that version's packages, without these.
    from bench.machine import describe  # noqa: PLC0415 - as said
    from bench.progress import say  # noqa: PLC0415 - as said
    from bench.system import running  # noqa: PLC0415 - as said

    print(describe())
    versions = {"now": Path(__file__).parents[1]}
    if options.before is not None:
        versions["before"] = options.before.resolve()
    found: dict[str, list[Mapping[str, float]]] = {version: [] for version in versions}
    with running() as system:
        assert system.postgres.child is not None
        with psycopg.connect(system.postgres.url, autocommit=True) as connection:
            # Images of whole pages after a checkpoint depend on when it comes: without them the log is the same each time.
            connection.execute("ALTER SYSTEM SET full_page_writes = off")
            connection.execute("SELECT pg_reload_conf()")
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            for version in list(versions)[:: 1 if number % 2 else -1]:
                name = f"{version}_{number}"
                with psycopg.connect(system.postgres.url, autocommit=True) as connection:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
                url = system.postgres.database_url(name)
                subscribed = options.subscribed and version == "now"
                pid = system.postgres.child.pid
                shape = Shape(
                    batch=options.batch,
                    payments=options.payments,
                    subscribed=subscribed,
                    refunds=options.refunds and options.before is None,
                )
                found[version].append(ask(versions[version], url, pid, shape))
                system.drop_database(url)
    for what in found["now"][0]:
        _print(what, {version: [one[what] for one in rounds] for version, rounds in found.items()})
    if options.refunds and options.before is None:
        print(f"refunds settle at {statistics.median(map(_refund_rate, found['now'])):.2f} of the payments' rate")


def _refund_rate(figures: Mapping[str, float]) -> float:
    payment, refund = (
        sum(figures[f"{step}{suffix}: time, us a payment"] for step in ("claim", "settle"))
        for suffix in ("", " of a refund")
    )
    return payment / refund


def _print(what: str, found: Mapping[str, Sequence[float]]) -> None:
    line = f"{what:<28}{statistics.median(found['now']):10.1f}"
    if "before" in found:
        ratios = [one / other for one, other in zip(found["now"], found["before"], strict=True)]
        line += f"   before {statistics.median(found['before']):10.1f}   {statistics.median(ratios):6.3f}"
        line += f" ({min(ratios):.2f} to {max(ratios):.2f})"
    print(line)


def ask(version: Path, url: str, pid: int, shape: Shape) -> Mapping[str, float]:
    """Return the figures of one round in a process of that version."""
    command = [sys.executable, "-P", __file__, "--batch", str(shape.batch), "--payments", str(shape.payments)]
    command += ["--round-of", url, str(pid), *(["--subscribed"] if shape.subscribed else [])]
    command += ["--refunds"] if shape.refunds else []
    done = subprocess.run(  # noqa: S603 - our own program
        command, env={**os.environ, "PYTHONPATH": str(version)}, stdout=subprocess.PIPE, check=True, text=True
    )
    figures: Mapping[str, float] = json.loads(done.stdout)
    return figures


async def _round(url: str, pid: int, options: argparse.Namespace) -> Mapping[str, float]:
    await migrate(url)
    if options.subscribed:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("INSERT INTO webhook_accounts VALUES ('default')")
    store = PaymentStore(url, actor="bench", lease=timedelta(seconds=30), grace=timedelta(seconds=10))
    meter = Meter(url, pid, (*STEPS, *REFUND_STEPS) if options.refunds else STEPS)
    await pay(store, meter, options.batch, options.batch)  # connections, prepared statements
    meter.reset()
    paid = await pay(store, meter, options.payments, options.batch)
    await store.aclose()
    if options.refunds:
        await _refund(url, meter, paid, options.batch)
    return meter.figures(options.payments // options.batch * options.batch)


async def pay(store: PaymentStore, meter: Meter, count: int, batch: int) -> list[UUID]:
    """Accept, claim and settle so many payments in batches; return their ids."""
    paid: list[UUID] = []
    for _ in range(count // batch):
        news = [
            NewPayment(
                account_id="default",
                idempotency_key=str(uuid4()),
                fingerprint=b"f" * 32,
                amount_minor=440,
                currency="USD",
                lane="low",
                metadata={},
            )
            for _ in range(batch)
        ]
        meter.begin()
        rows = [row for row in await store.accept_many(news, wakes=batch) if isinstance(row, AcceptedRow)]
        meter.end("accept")
        meter.begin()
        claims = await asyncio.gather(*(store.claim(row.payment.id) for row in rows))
        meter.end("claim")
        settlements = [
            Settlement(
                payment_id=claim.payment.id,
                attempt=claim.payment.attempts,
                status=Status.SUCCESS,
                event="success",
                call="charge",
                provider="http",
                latency=timedelta(milliseconds=20),
                provider_ref="ch_0123456789abcdef",
            )
            for claim in claims
            if isinstance(claim, Claim)
        ]
        assert len(settlements) == batch
        meter.begin()
        await asyncio.gather(*map(store.settle, settlements))
        meter.end("settle")
        paid += [one.payment_id for one in settlements]
    return paid


async def _refund(url: str, meter: Meter, paid: Sequence[UUID], batch: int) -> None:
    # Imported here: a round of another version may have no operations.
    from okane.operation import NewOperation, OperationKind, OperationStatus  # noqa: PLC0415 - as said
    from okane.store.operation_records import OperationClaim, OperationSettlement  # noqa: PLC0415 - as said
    from okane.store.operations import OperationStore  # noqa: PLC0415 - as said

    def refund(payment_id: UUID) -> NewOperation:
        return NewOperation(
            payment_id=payment_id,
            account_id="default",
            kind=OperationKind.REFUND,
            idempotency_key=str(uuid4()),
            fingerprint=b"f" * 32,
        )

    store = OperationStore(url, actor="bench", lease=timedelta(seconds=30), grace=timedelta(seconds=10))
    for start in range(0, len(paid), batch):
        news = [refund(one) for one in paid[start : start + batch]]
        meter.begin()
        requested = await asyncio.gather(*map(store.request, news))
        meter.end("request")
        meter.begin()
        claims = await asyncio.gather(*(store.claim(one.operation.id) for one in requested))
        meter.end("claim of a refund")
        settlements = [
            OperationSettlement(
                operation_id=claim.operation.id,
                attempt=claim.operation.attempts,
                status=OperationStatus.SUCCESS,
                event="success",
                call="operate",
                provider="http",
                latency=timedelta(milliseconds=20),
                provider_ref="re_0123456789abcdef",
            )
            for claim in claims
            if isinstance(claim, OperationClaim)
        ]
        assert len(settlements) == len(news)
        meter.begin()
        await asyncio.gather(*map(store.settle, settlements))
        meter.end("settle of a refund")
    await store.aclose()


class Meter:
    """CPU of all processes of the server and bytes of its log, by step."""

    def __init__(self, url: str, pid: int, steps: Sequence[str]) -> None:
        self._steps = steps
        self._connection = psycopg.connect(url, autocommit=True)
        self._server = psutil.Process(pid)
        self.reset()

    def reset(self) -> None:
        self._passed_s = dict.fromkeys(self._steps, 0.0)
        self._cpu_s = dict.fromkeys(self._steps, 0.0)
        self._log_bytes = dict.fromkeys(self._steps, 0)

    def begin(self) -> None:
        self._began = self._log_position(), self._cpu_now_s(), time.perf_counter()

    def end(self, step: str) -> None:
        passed_s = time.perf_counter() - self._began[2]
        cpu_s, position = self._cpu_now_s(), self._log_position()
        for one in (step,) if step in REFUND_STEPS else (step, "all"):
            self._passed_s[one] += passed_s
            self._cpu_s[one] += cpu_s - self._began[1]
            self._log_bytes[one] += position - self._began[0]

    def figures(self, count: int) -> Mapping[str, float]:
        cpu = {f"{step}: CPU, us a payment": self._cpu_s[step] / count * 1e6 for step in self._steps}
        passed = {f"{step}: time, us a payment": self._passed_s[step] / count * 1e6 for step in self._steps}
        return cpu | passed | {f"{step}: log, bytes a payment": self._log_bytes[step] / count for step in self._steps}

    def _log_position(self) -> int:
        row = self._connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
        assert row is not None
        return int(row[0])

    def _cpu_now_s(self) -> float:
        return sum(map(_cpu_s, (self._server, *self._server.children(recursive=True))))


def _cpu_s(process: psutil.Process) -> float:
    """Return the CPU time of a process, in nanoseconds where the kernel counts them: a step takes about one clock tick."""
    try:
        return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        pass
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:  # a worker of autovacuum that has ended since it was listed
        return 0.0
    return times.user + times.system


if __name__ == "__main__":
    main()
