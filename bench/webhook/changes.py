"""Changes of payments at a steady rate, made by the product's store: no API, worker or provider."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

import uvloop

from okane.payment import NewPayment, Status
from okane.store import AcceptedRow, Claim, PaymentStore, Settlement

_BATCH = 256
_LEASE = timedelta(hours=1)  # longer than any run: the claims are made before the clock starts


def settle_steadily(database_url: str, accounts: Sequence[str], *, rate: float, seconds: float) -> int:
    """Settle payments of these accounts by turns, so many a second; return their number."""
    return uvloop.run(_run(database_url, accounts, rate, int(rate * seconds)))


async def _run(database_url: str, accounts: Sequence[str], rate: float, count: int) -> int:
    store = PaymentStore(database_url, actor="bench", lease=_LEASE, grace=timedelta(seconds=10))
    try:
        claims = await _claimed(store, accounts, count)
        started_s = time.perf_counter()
        async with asyncio.TaskGroup() as settling:
            for number, claim in enumerate(claims):
                early_s = started_s + number / rate - time.perf_counter()
                if early_s > 0:
                    await asyncio.sleep(early_s)
                settling.create_task(_settle(store, claim))
    finally:
        await store.aclose()
    return count


async def _claimed(store: PaymentStore, accounts: Sequence[str], count: int) -> Sequence[Claim]:
    claims: list[Claim] = []
    for first in range(0, count, _BATCH):
        numbers = range(first, min(first + _BATCH, count))
        news = [_new_payment(accounts[number % len(accounts)]) for number in numbers]
        rows = await store.accept_many(news, wakes=0)
        found = await asyncio.gather(*(store.claim(row.payment.id) for row in rows if isinstance(row, AcceptedRow)))
        claims += [one for one in found if isinstance(one, Claim)]
    assert len(claims) == count
    return claims


def _new_payment(account_id: str) -> NewPayment:
    return NewPayment(
        account_id=account_id,
        idempotency_key=str(uuid4()),
        fingerprint=b"f" * 32,
        amount_minor=440,
        currency="USD",
        lane="low",
        metadata={},
    )


async def _settle(store: PaymentStore, claim: Claim) -> None:
    settlement = Settlement(
        payment_id=claim.payment.id,
        attempt=claim.payment.attempts,
        status=Status.SUCCESS,
        event="success",
        call="charge",
        provider="http",
        latency=timedelta(milliseconds=20),
        provider_ref="ch_0123456789abcdef",
    )
    assert await store.settle(settlement) is not None
