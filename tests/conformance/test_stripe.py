"""The Stripe adapter against Stripe World: the cases of every adapter, and those that only Stripe has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import aiohttp
import pytest

from okane.operation import OperationKind
from okane.providers.base import Approved, Authorized, Declined, Pending, Unknown
from tests.conformance import operation_cases
from tests.conformance.__main__ import MAX_CALLS
from tests.conformance.bench import Bench, bench_of
from tests.conformance.cases import CASES, Case
from tests.conformance.fault_proxy import LOST_ANSWER, Fault
from tests.conformance.gateway import Wish
from tests.conformance.stripe import StripeGateway, intents_of
from tests.operations import operation_of

_JSON = {"Content-Type": "application/json"}
_KEY = {"Authorization": "Bearer sk_test_conformance4242"}


@pytest.fixture(scope="module")
def calls() -> Iterator[list[int]]:
    """The calls of each case. A suite that others run at a gateway's sandbox must be small."""
    made: list[int] = []
    yield made
    assert sum(made) <= MAX_CALLS


@pytest.fixture
async def bench(stripe_url: str, calls: list[int]) -> AsyncIterator[Bench]:
    async with bench_of(StripeGateway(stripe_url)) as one:
        yield one
    calls.append(len(one.proxy.requests))


@pytest.mark.parametrize("case", CASES, ids=lambda one: one.__name__)
async def test_the_stripe_adapter(case: Case, bench: Bench) -> None:
    await case(bench)


@pytest.mark.parametrize("case", operation_cases.CASES, ids=lambda one: one.__name__)
async def test_the_operations_of_stripe(case: Case, stripe_url: str) -> None:
    async with bench_of(StripeGateway(stripe_url)) as bench:
        await case(bench)


async def test_stripes_own_event_about_a_refund_names_the_operation(stripe_url: str) -> None:
    gateway = StripeGateway(stripe_url)
    async with bench_of(gateway) as bench:
        payment = await bench.captured()
        refund = operation_of(payment, OperationKind.REFUND, 100)
        made = await bench.operate(refund, payment)
        assert isinstance(made, Approved)
        known = replace(refund, provider_ref=made.provider_ref)
        assert await bench.look_up_operation(known, payment) == made
    signed = await gateway.notice_about(payment, "refund.created")
    [notice] = signed.parser([signed.secret])(signed.headers, signed.body, now=datetime.now(UTC))
    assert (notice.payment_id, notice.operation_id, notice.provider_ref) == (
        payment.id,
        refund.id,
        payment.provider_ref,
    )


async def test_three_d_secure_ends_in_an_authorization_that_can_be_captured(bench: Bench) -> None:
    payment = replace(await bench.payment(Wish.WAITS), manual_capture=True)
    pending = await bench.charge(payment)
    assert isinstance(pending, Pending)
    held = await bench.settled(payment, pending)
    assert isinstance(held, Authorized)
    assert held.capture_before is not None
    payment = replace(payment, attempt_ref=held.provider_ref)
    assert isinstance(await bench.operate(operation_of(payment, OperationKind.CAPTURE), payment), Approved)


async def test_an_authorization_whose_answer_was_lost_is_found_in_the_list_with_its_end(bench: Bench) -> None:
    payment = replace(await bench.payment(), manual_capture=True)
    bench.strike(LOST_ANSWER)
    assert isinstance(await bench.charge(payment), Unknown)
    found = await bench.look_up(payment)
    assert isinstance(found, Authorized)
    assert found == await bench.look_up(replace(payment, attempt_ref=found.provider_ref))
    assert found == await bench.look_up(payment, may_execute=True)


async def test_the_charge_of_a_retry_is_not_taken_for_the_declined_one_before_it(bench: Bench) -> None:
    declined = await bench.payment(Wish.DECLINED)
    assert isinstance(await bench.charge(declined), Declined)
    retried = replace(declined, provider_key=f"{declined.id}:4", payment_method="pm_card_visa")
    bench.strike(LOST_ANSWER)
    assert isinstance(await bench.charge(retried), Unknown)
    assert isinstance(await bench.look_up(retried), Approved)
    # Seen from the key before it, money has moved under another key: a charge now could be the second one.
    before = await bench.look_up(declined)
    assert isinstance(before, Unknown)
    assert before.at_once
    assert len(await intents_of(bench.gateway.url, declined)) == 2


async def test_a_lost_charge_is_found_beyond_the_first_page_of_the_list(bench: Bench) -> None:
    payment = await bench.payment()
    bench.strike(LOST_ANSWER)
    assert isinstance(await bench.charge(payment), Unknown)
    form = {"amount": "100", "currency": "usd"}
    async with aiohttp.ClientSession(headers=_KEY) as session:
        for _ in range(101):
            async with session.post(f"{bench.gateway.url}/v1/payment_intents", data=form) as answer:
                assert answer.status == 200
    assert isinstance(await bench.look_up(payment), Approved)


async def test_a_key_that_is_in_use_leaves_the_outcome_open(bench: Bench) -> None:
    payment = await bench.payment()
    body = b'{"error": {"type": "idempotency_error", "code": "idempotency_key_in_use", "message": "in use"}}'
    bench.strike(Fault(status=409, body=body, headers=_JSON))
    result = await bench.charge(payment)
    assert isinstance(result, Unknown)
    assert not result.at_once


async def test_another_amount_under_a_used_key_needs_a_review_at_once(bench: Bench) -> None:
    payment = await bench.payment()
    await bench.approved(payment)
    result = await bench.charge(replace(payment, amount_minor=payment.amount_minor + 1))
    assert isinstance(result, Unknown)
    assert result.at_once


async def test_a_token_that_stripe_does_not_have_is_declined_for_good(bench: Bench) -> None:
    payment = replace(await bench.payment(), payment_method="pm_nonesuch")
    result = await bench.charge(payment)
    assert isinstance(result, Declined)
    assert (result.code, result.soft) == ("invalid_request:resource_missing", False)


async def test_three_d_secure_without_a_customer_is_declined(bench: Bench) -> None:
    payment = replace(await bench.payment(Wish.WAITS), return_url=None)
    result = await bench.charge(payment)
    assert isinstance(result, Declined)
    assert result.code == "authentication_required"
    assert not [one for one in await bench.books(payment) if one.moved]


async def test_a_canceled_payment_intent_is_declined(bench: Bench) -> None:
    payment = await bench.payment(Wish.WAITS)
    pending = await bench.charge(payment)
    assert isinstance(pending, Pending)
    url = f"{bench.gateway.url}/v1/payment_intents/{pending.provider_ref}/cancel"
    async with aiohttp.ClientSession(headers=_KEY) as session, session.post(url) as answer:
        assert answer.status == 200
    assert isinstance(await bench.look_up(replace(payment, attempt_ref=pending.provider_ref)), Declined)


async def test_a_replay_of_a_charge_that_waited_tells_its_present_state(bench: Bench) -> None:
    """Stripe repeats the saved answer, in which the customer has not acted yet."""
    payment = await bench.payment(Wish.WAITS)
    pending = await bench.charge(payment)
    assert isinstance(pending, Pending)
    await bench.gateway.finish(pending, succeeded=True)
    assert isinstance(await bench.look_up(payment, may_execute=True), Approved)
    await bench.booked_once(payment)


async def test_look_ups_at_once_with_the_charge_itself_never_make_a_second_object(bench: Bench) -> None:
    payment = await bench.payment()
    await asyncio.gather(bench.charge(payment), *(bench.provider.look_up(payment, may_execute=True) for _ in range(4)))
    await bench.booked_once(payment)


async def test_a_declined_charge_is_closed_by_its_release_though_an_answer_is_lost(bench: Bench) -> None:
    payment = await bench.payment(Wish.DECLINED)
    declined = await bench.charge(payment)
    assert isinstance(declined, Declined)
    bench.proxy.strike(LOST_ANSWER, lambda request: request.target.endswith("/cancel"))
    for _ in range(2):  # the second one finds it canceled already
        assert await bench.provider.release(payment, declined) == declined
    assert [one["status"] for one in await intents_of(bench.gateway.url, payment)] == ["canceled"]
    assert await bench.look_up(replace(payment, attempt_ref=declined.provider_ref)) == declined


async def test_a_release_takes_no_charge_back(bench: Bench) -> None:
    payment = await bench.payment()
    approved = await bench.approved(payment)
    assert await bench.provider.release(payment, Declined("late", "", approved.provider_ref)) == approved
