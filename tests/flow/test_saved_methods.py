"""A saved payment method in real processes: the provider gets its token, the client sees its id."""

from __future__ import annotations

from pathlib import Path

from okane.client import NewPayment, NewPaymentMethod
from tests.flow.stripe_account import status_is, stripe_account
from tests.flow.system import System


async def test_the_provider_gets_the_token_of_a_method_that_was_deleted_meanwhile(
    system: System, tmp_path: Path
) -> None:
    async with stripe_account(system, tmp_path) as account:
        await system.start_api()
        methods = system.client.payment_methods
        new = NewPaymentMethod(tokens={"stripe": "cus_17/pm_saved"}, kind="card", idempotency_key="m")
        saved = await methods.save(new)
        payment = NewPayment(amount=440, idempotency_key="p", payment_method=str(saved.id), customer_present=False)
        payment_id = str((await system.client.pay(payment)).payment.id)
        await methods.delete(saved.id)
        await system.start_worker("w1")
        await status_is(system, payment_id, "submitted")
        intent = account.intent_of(payment_id)
        assert (intent["customer"], intent["payment_method"]) == ("cus_17", "pm_saved")
        assert (await system.payment(payment_id))["payment_method"] == str(saved.id)
