"""A failure that Stripe has saved under the key of a capture, void or refund, and repeats while it keeps the key."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from okane.operation import Operation, OperationKind
from okane.payment import Payment, Status
from okane.providers.base import Approved, Declined, OperationResult, Pending, Unknown
from tests.okane.provider_server import Act, RawServer, close
from tests.okane.stripe_answers import CARD_ERROR, CARD_PAYMENT, failed, intent, unpaid
from tests.okane.test_stripe_provider import REPLAYED, SAVED_FAILURE, says, sent, stripe
from tests.operations import OPERATION

HELD = replace(CARD_PAYMENT, manual_capture=True, status=Status.AUTHORIZED, attempt_ref="pi_1")
PAID = replace(CARD_PAYMENT, status=Status.SUCCESS, provider_ref="pi_1")
CAPTURE, VOID = (replace(OPERATION, kind=kind, attempts=3) for kind in (OperationKind.CAPTURE, OperationKind.VOID))
SAVED = Unknown("HTTP 500 api_error", is_neutral=True)
LOST = Unknown("connection lost: closed by the server")
HOLDS = says(200, unpaid("requires_capture"))


async def operate(
    *acts: Act, operation: Operation = CAPTURE, payment: Payment = HELD
) -> tuple[OperationResult, RawServer]:
    async with stripe(*acts) as (provider, server):
        return await provider.operate(operation, payment), server


def keys(server: RawServer) -> list[str]:
    """Return the keys of the POSTs."""
    return re.findall(r"Idempotency-Key: (\S+)", b"".join(server.requests).decode())


@pytest.mark.parametrize(("operation", "act"), [(CAPTURE, "capture"), (VOID, "cancel")])
async def test_a_capture_or_void_that_was_not_done_is_done_under_a_key_of_the_attempt(
    operation: Operation, act: str
) -> None:
    done = intent() if operation is CAPTURE else unpaid("canceled")
    result, server = await operate(says(*SAVED_FAILURE), HOLDS, says(200, done), operation=operation)
    assert (result, sent(server)) == (Approved("pi_1"), [f"POST /pi_1/{act}", "GET /pi_1", f"POST /pi_1/{act}"])
    assert keys(server) == ["ok-1", "ok-1:3"]
    first, last = (server.requests[place].partition(b"\r\n\r\n")[2] for place in (0, 2))
    assert first == last


@pytest.mark.parametrize(
    ("found", "result"),
    [
        (says(200, intent()), Approved("pi_1")),
        (says(200, unpaid("processing")), Pending("pi_1")),
        (says(200, unpaid("canceled")), Declined("authorization_ended")),
        (says(500, failed(type="api_error")), Unknown("HTTP 500 api_error")),
        (says(429, failed()), SAVED),
        (close, LOST),
    ],
)
async def test_only_money_that_is_held_allows_another_call(found: Act, result: OperationResult) -> None:
    found_result, server = await operate(says(*SAVED_FAILURE), found)
    assert (found_result, keys(server)) == (result, ["ok-1"])


@pytest.mark.parametrize(
    ("again", "result"),
    [
        # The first call is executed after all, by Stripe's own repair: money moves once.
        (says(400, failed(code="payment_intent_unexpected_state", payment_intent=intent())), Approved("pi_1")),
        (says(402, failed(**CARD_ERROR)), Declined("card_declined", "Your card was declined.", soft=False)),
        (says(429, failed()), SAVED),  # not `Unavailable`: that would use up a retry, and fail it in the end
        (says(401, failed()), SAVED),
        (close, LOST),
    ],
)
async def test_the_second_call_decides_only_by_the_state_of_the_money(again: Act, result: OperationResult) -> None:
    found, server = await operate(says(*SAVED_FAILURE), HOLDS, again)
    assert (found, keys(server)) == (result, ["ok-1", "ok-1:3"])


async def test_a_fresh_failure_is_looked_up_first() -> None:
    result, server = await operate(says(500, failed(type="api_error")))
    assert (result, keys(server)) == (Unknown("HTTP 500 api_error"), ["ok-1"])


async def test_a_refund_is_never_sent_under_another_key() -> None:
    """Stripe may still make it, and would make a second one as well."""
    result, server = await operate(says(*SAVED_FAILURE), operation=OPERATION, payment=PAID)
    assert (result, len(server.requests)) == (SAVED, 1)


async def test_a_saved_refusal_is_the_answer_to_the_first_call() -> None:
    result, server = await operate(says(400, failed(code="amount_too_large"), REPLAYED))
    assert (result, len(server.requests)) == (Declined("invalid_request:amount_too_large", "No."), 1)
