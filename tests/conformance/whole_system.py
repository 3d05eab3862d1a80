"""`python -m tests.conformance.whole_system`: `okane up --stripe`, payments, a worker killed by -9, and the books compared.

The simulator is stopped for a moment, so that the worker dies with calls under way: their requests are executed afterwards,
and their answers are lost.
The books are the simulator's own list of PaymentIntents, read as Stripe's API shows it, and okane's list of payments.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from okane.local.data_folder import DataFolder, Endpoints
from tests.okane_commands import LONGEST_S, endpoints_of, running

MIX = (
    "pm_card_visa=8,pm_card_visa_chargeDeclinedInsufficientFunds=1,"
    "pm_card_visa_chargeDeclinedStolenCard=1,pm_card_threeDSecure2Required=2"
)
_PORTS = [f"--{name}port=0" for name in ("", "provider-", "postgres-", "redis-", "metrics-")]
_HANG_S = 2.0
_MAY_MOVE = frozenset({"processing", "requires_action", "requires_capture", "requires_confirmation"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The payments of okane and the PaymentIntents of the simulator, compared."""

    payments: Counter[str]  # by status
    intents: Counter[str]  # by status
    lost: int  # successes without a succeeded intent
    doubled: int  # payments with two intents that moved money, or may
    unasked: int  # succeeded intents whose payment is no success
    wrong_amount: int

    @property
    def are_right(self) -> bool:
        return not (self.lost or self.doubled or self.unasked or self.wrong_amount)

    def __str__(self) -> str:
        def listed(counts: Counter[str]) -> str:
            return ", ".join(f"{status} {count}" for status, count in counts.most_common())

        return (
            f"okane:  {self.payments.total()} payments: {listed(self.payments)}\n"
            f"Stripe: {self.intents.total()} PaymentIntents: {listed(self.intents)}\n"
            f"{self.lost} lost, {self.doubled} doubled, {self.unasked} without a success, "
            f"{self.wrong_amount} of another amount"
        )


def compare(payments: Sequence[dict[str, Any]], intents: Sequence[dict[str, Any]]) -> Books:
    """Compare documents of okane's API with documents of Stripe's."""
    by_payment: dict[str, list[dict[str, Any]]] = {}
    for intent in intents:
        if intent["status"] == "succeeded" or intent["status"] in _MAY_MOVE:
            by_payment.setdefault(intent["metadata"].get("payment_id", ""), []).append(intent)
    moved = {id_: [one for one in found if one["status"] == "succeeded"] for id_, found in by_payment.items()}
    success = {payment["id"]: payment["amount"] for payment in payments if payment["status"] == "success"}
    return Books(
        payments=Counter(payment["status"] for payment in payments),
        intents=Counter(intent["status"] for intent in intents),
        lost=sum(not moved.get(id_) for id_ in success),
        doubled=sum(len(found) > 1 for found in by_payment.values()),
        unasked=sum(len(found) for id_, found in moved.items() if id_ not in success),
        wrong_amount=sum(one["amount_received"] != success.get(id_) for id_, found in moved.items() for one in found),
    )


async def run(*, payments: int, rate: float, env: dict[str, str]) -> Books:
    """Run the whole system once; print what its commands print. Raises AssertionError if a command fails."""
    with TemporaryDirectory(prefix="okane-stripe-") as folder:
        data = DataFolder(Path(folder) / "data")
        async with running("up", "--stripe", "--data", str(data.path), *_PORTS, env=env) as up:
            where = await endpoints_of(data, up)
            arguments = ["--payments", str(payments), "--rate", str(rate), "--payment-method", MIX, "--timeout", "300"]
            arguments += ["--return-url", "https://shop.example/back", "--data", str(data.path)]
            async with running("load", *arguments, env=env) as load:
                while await _count(where, "success") < payments // 10:
                    assert load.returncode is None, "okane load has ended"
                    await asyncio.sleep(0.1)
                await _kill_worker(data, where)
                code = await asyncio.wait_for(load.wait(), LONGEST_S)
            books = await asyncio.to_thread(_compared, where)
            assert code == 0, f"okane load: exit code {code}"
            up.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(up.wait(), LONGEST_S) == 0
    return books


async def _kill_worker(data: DataFolder, where: Endpoints) -> None:
    """Kill the first worker while the gateway hangs with its calls."""
    pids = {record.name: record.pid for record in data.roster.load()}
    os.kill(pids["stripe"], signal.SIGSTOP)
    try:
        await asyncio.sleep(_HANG_S)
        under_way = await _count(where, "processing")
        os.kill(pids["worker-1"], signal.SIGKILL)
    finally:
        os.kill(pids["stripe"], signal.SIGCONT)
    sys.stdout.write(
        f"kill -9 {pids['worker-1']}  # worker-1, while {under_way} charges are under way in both workers\n"
    )


async def _count(where: Endpoints, status: str) -> int:
    url = f"{where.api_url}/v1/payments?limit=100&status={status}"
    return await asyncio.to_thread(lambda: len(list(_pages(url, "payments", where.api_key))))


def _compared(where: Endpoints) -> Books:
    return compare(
        list(_pages(f"{where.api_url}/v1/payments?limit=100", "payments", where.api_key)),
        list(_pages(f"{where.provider_base_url}/v1/payment_intents?limit=100", "data", "sk_test_books")),
    )


def _pages(url: str, member: str, key: str | None) -> Iterator[dict[str, Any]]:
    """Yield the items of all pages, of okane's lists (with a cursor in `after`) or of Stripe's."""
    next_url = url
    while True:
        request = urllib.request.Request(next_url, headers={"Authorization": f"Bearer {key}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            page = json.load(answer)
        yield from page[member]
        if not page["has_more"]:
            return
        cursor = f"after={page['after']}" if "after" in page else f"starting_after={page[member][-1]['id']}"
        next_url = f"{url}&{cursor}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.whole_system", description=__doc__)
    parser.add_argument("--payments", type=int, default=300)
    parser.add_argument("--rate", type=float, default=30.0, help="payments per second")
    arguments = parser.parse_args()
    books = asyncio.run(run(payments=arguments.payments, rate=arguments.rate, env=dict(os.environ)))
    sys.stdout.write(f"{books}\n")
    sys.exit(0 if books.are_right else 1)


if __name__ == "__main__":
    main()
