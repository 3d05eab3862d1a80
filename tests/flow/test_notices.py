"""Payments at a gateway that decides later, in real processes: its webhooks, and what happens without them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.flow.stripe_account import StripeAccount, send, status_is, stripe_account, submitted
from tests.flow.system import System


@pytest.fixture
async def account(system: System, tmp_path: Path) -> AsyncIterator[StripeAccount]:
    """A gateway, and a system that charges there."""
    async with stripe_account(system, tmp_path) as one:
        yield one


async def test_a_webhook_settles_a_payment_long_before_its_poll(system: System, account: StripeAccount) -> None:
    await asyncio.gather(system.start_api(), system.start_worker("w1"))
    payment_id = await submitted(system)
    assert await send(system.url, account.decide(payment_id)) == 200
    assert await system.settled([payment_id], within_s=30) == {"success": 1}
    assert account.calls == {"POST": 1, "GET": 1}
    assert (await system.payment(payment_id))["provider_ref"] == account.intent_of(payment_id)["id"]
    assert await send(system.url, account.intent_of(payment_id)) == 200  # once more
    assert await system.metric("api", 'okane_provider_notices_total{provider="stripe",result="repeated"}') == 1
    assert account.calls == {"POST": 1, "GET": 1}


async def test_a_webhook_that_lies_settles_nothing(system: System, account: StripeAccount) -> None:
    await asyncio.gather(system.start_api(), system.start_worker("w1"))
    payment_id = await submitted(system)
    lie = {**account.intent_of(payment_id), "status": "succeeded", "amount_received": 440}
    assert await send(system.url, lie) == 200
    async with asyncio.timeout(30):
        while account.calls["GET"] == 0:
            await asyncio.sleep(0.02)
    await status_is(system, payment_id, "submitted")


async def test_webhooks_out_of_order_settle_by_what_the_gateway_says(system: System, account: StripeAccount) -> None:
    await asyncio.gather(system.start_api(), system.start_worker("w1"))
    payment_id = await submitted(system)
    earlier = dict(account.intent_of(payment_id))
    assert await send(system.url, account.decide(payment_id), "evt_2") == 200
    assert await send(system.url, earlier, "evt_1") == 200
    assert await system.settled([payment_id]) == {"success": 1}


async def test_signed_webhooks_tell_of_a_refund_and_of_its_failure_days_later(
    system: System, account: StripeAccount
) -> None:
    """Forged and repeated ones tell nothing; and none is believed: each only makes okane look."""
    await asyncio.gather(system.start_api(), system.start_worker("w1"))
    payment_id = await submitted(system)
    assert await send(system.url, account.decide(payment_id)) == 200
    assert await system.settled([payment_id]) == {"success": 1}
    refund_id = await system.refund(payment_id, 440, "refund")

    async def becomes(status: str) -> None:
        async with asyncio.timeout(30):
            while (await system.operations(payment_id))[0]["status"] != status:
                await asyncio.sleep(0.02)

    await becomes("submitted")
    [refund] = account.refunds.values()
    assert refund["metadata"]["operation_id"] == refund_id
    done = refund | {"status": "succeeded"}
    assert await send(system.url, done, "evt_forged", secret="whsec_of_a_forger") == 400
    assert await send(system.url, done, "evt_2") == 200  # it runs ahead of the gateway
    async with asyncio.timeout(30):
        while account.calls["GET refund"] == 0:
            await asyncio.sleep(0.02)
    await becomes("submitted")
    refund["status"] = "succeeded"
    assert await send(system.url, refund, "evt_3") == 200
    await becomes("success")
    assert await send(system.url, refund, "evt_3") == 200
    assert await system.metric("api", 'okane_provider_notices_total{provider="stripe",result="repeated"}') == 1
    refund |= {"status": "failed", "failure_reason": "lost_or_stolen_card"}
    assert await send(system.url, refund, "evt_4") == 200
    await becomes("failed_final")
    [told] = await system.operations(payment_id)
    assert told["decline_code"] == "lost_or_stolen_card"
    assert not (await system.payment(payment_id)).get("amount_refunded")
    assert (account.calls["refund"], account.calls["GET refund"]) == (1, 3)
