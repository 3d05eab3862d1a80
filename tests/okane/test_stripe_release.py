"""The release of a soft decline at Stripe: its PaymentIntent is canceled, and only that closes it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from okane.providers.base import Approved, Declined, LookUpResult, Pending, Unavailable, Unknown
from tests.okane.provider_server import Act
from tests.okane.stripe_answers import CARD_PAYMENT, failed, intent, unpaid
from tests.okane.test_stripe_provider import says, sent, stripe

SOFT = Declined("insufficient_funds", "", "pi_1", soft=True)


async def release(*acts: Act, declined: Declined = SOFT) -> tuple[LookUpResult, list[str]]:
    async with stripe(*acts) as (provider, server):
        return await provider.release(CARD_PAYMENT, declined), sent(server)


async def test_a_release_cancels_the_intent() -> None:
    result, requests = await release(says(200, unpaid("canceled")))
    assert isinstance(result, Declined)
    assert requests == ["POST /pi_1/cancel"]


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (unpaid("canceled"), Declined),
        (unpaid("requires_payment_method"), Unknown),
        (intent(), Approved),
        (intent(status="processing"), Pending),
    ],
    ids=["canceled", "not canceled", "succeeded", "processing"],
)
async def test_a_refused_cancel_leads_to_the_state_of_the_intent(found: object, kind: type) -> None:
    result, requests = await release(says(400, failed(code="payment_intent_unexpected_state")), says(200, found))
    assert isinstance(result, kind)
    assert requests == ["POST /pi_1/cancel", "GET /pi_1"]


@pytest.mark.parametrize(
    ("act", "kind"),
    [(says(429, failed()), Unavailable), (says(500, failed()), Unknown), (says(409, failed()), Unknown)],
)
async def test_a_release_without_a_clear_answer_is_open(act: Act, kind: type) -> None:
    result, _ = await release(act)
    assert isinstance(result, kind)
    assert not getattr(result, "at_once", False)


async def test_a_decline_without_an_intent_cannot_be_released() -> None:
    result, requests = await release(declined=replace(SOFT, provider_ref=None))
    assert isinstance(result, Unknown)
    assert (result.at_once, requests) == (True, [])
