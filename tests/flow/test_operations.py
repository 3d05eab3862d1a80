"""Captures, voids and refunds from a request to their end, through real processes and the mock provider."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from uuid import UUID

from okane.client import NewPayment, NewRefund
from okane.operation import OperationStatus
from okane.payment import Status
from tests.flow.system import System
from tests.forked_process import run_okane_beside

ALWAYS = ("--unavailable", "0", "--decline", "0")


async def run(system: System, *words: str) -> str:
    """Run a command of okane against the API."""
    done = await run_okane_beside(*words, "--url", system.url, env={**os.environ, **system.env})
    assert done.returncode == 0, done.stderr
    return done.stdout


async def until(system: System, payment_id: UUID, **wanted: Any) -> None:
    """Wait until the payment has these members."""
    async with asyncio.timeout(30):
        while True:
            payment = await system.client.payment(payment_id)
            if all(getattr(payment, name) == value for name, value in wanted.items()):
                return
            await asyncio.sleep(0.05)


async def held(system: System, key: str) -> UUID:
    new = NewPayment(amount=440, idempotency_key=key, capture_method="manual")
    payment = (await system.client.pay(new)).payment
    await until(system, payment.id, status=Status.AUTHORIZED)
    return payment.id


async def test_money_is_held_captured_let_go_and_given_back(system: System) -> None:
    await system.start("w1", provider=ALWAYS)
    whole, part, let_go = [await held(system, key) for key in ("whole", "part", "let-go")]
    await system.client.capture(whole, idempotency_key="c-1")
    await run(system, "payments", "capture", str(part), "--amount", "300", "--yes")
    await system.client.cancel(let_go)
    await until(system, whole, status=Status.SUCCESS, amount_captured=440)
    await until(system, part, status=Status.SUCCESS, amount_captured=300)
    await until(system, let_go, status=Status.CANCELED)

    refund = (
        await system.client.refunds.create(NewRefund(payment_id=whole, idempotency_key="r-1", amount=40))
    ).operation
    await until(system, whole, amount_refunded=40)
    assert (await system.client.refunds.get(refund.id)).status is OperationStatus.SUCCESS
    await system.client.refunds.create(NewRefund(payment_id=part, idempotency_key="r-2"))
    await until(system, part, amount_refunded=300)
    listed = await run(system, "refunds", "ls")
    assert str(refund.id) in listed
    assert str(part) in listed
    assert [one.kind.value async for one in system.client.operations(part)] == ["capture", "refund"]
