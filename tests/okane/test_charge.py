"""The handler of a wake-up over a real store and a scripted provider: the ways out that whole-system tests cannot aim at."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from okane.payment import Payment, Status
from okane.providers.base import Approved, ChargeResult, Unavailable
from okane.worker.lease_renewal import Lease
from streams import Dead, Done, Message, Retry
from tests.okane.charging import Desk, wake_up
from tests.okane.stored_payments import claimed, execute, expire_lease, settlement


async def test_the_wake_up_of_a_canceled_payment_is_dropped_and_nobody_is_called(desk: Desk) -> None:
    payment_id = await desk.accepted()
    await desk.store.cancel(payment_id, account_id="default", actor="test")
    assert isinstance(await desk.charge(wake_up(payment_id)), Done)
    assert desk.provider.asked == []
    assert await desk.status(payment_id) is Status.CANCELED


async def test_a_wake_up_becomes_a_charge(desk: Desk) -> None:
    payment_id = await desk.accepted()
    assert await desk.charge(wake_up(payment_id)) == Done()
    assert desk.provider.asked == [f"charge {payment_id}"]
    assert await desk.status(payment_id) is Status.SUCCESS


async def test_a_second_wake_up_for_a_settled_payment_is_dropped(desk: Desk) -> None:
    payment_id = await desk.accepted()
    await desk.charge(wake_up(payment_id))
    assert await desk.charge(wake_up(payment_id, deliveries=2)) == Done()
    assert len(desk.provider.asked) == 1


async def test_parallel_wake_ups_charge_once(desk: Desk) -> None:
    payment_id = await desk.accepted()
    outcomes = await asyncio.gather(*(desk.charge(wake_up(payment_id)) for _ in range(10)))
    assert len(desk.provider.asked) == 1
    assert outcomes.count(Done()) == 1
    assert all(isinstance(outcome, Done | Retry) for outcome in outcomes)


async def test_what_is_not_a_payment_goes_to_the_dead_letters(desk: Desk) -> None:
    assert await desk.charge(Message("1-1", "low", b"nonsense")) == Dead("not a payment id")
    assert await desk.charge(wake_up(uuid4())) == Dead("no such payment")


async def test_an_open_outcome_is_looked_up_before_it_is_charged(desk: Desk) -> None:
    payment_id = await desk.accepted()
    await claimed(desk.store, payment_id)
    await expire_lease(desk.url, payment_id)
    assert await desk.charge(wake_up(payment_id)) == Done()
    assert desk.provider.asked == [f"look up {payment_id}", f"charge {payment_id}"]


async def test_a_charge_found_by_the_look_up_is_not_made_again(desk: Desk) -> None:
    payment_id = await desk.accepted()
    await claimed(desk.store, payment_id)
    await expire_lease(desk.url, payment_id)
    desk.provider.look_ups = lambda: Approved("found")
    assert await desk.charge(wake_up(payment_id)) == Done()
    assert desk.provider.asked == [f"look up {payment_id}"]


async def test_a_bug_in_the_adapter_leaves_the_outcome_open(desk: Desk) -> None:
    def bug() -> ChargeResult:
        raise KeyError("provider_ref")

    payment_id = await desk.accepted()
    desk.provider.charges = bug
    assert isinstance(await desk.charge(wake_up(payment_id)), Retry)
    assert await desk.status(payment_id) is Status.UNKNOWN


async def test_a_worker_that_slept_through_its_lease_does_not_call_the_provider(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment_id = await desk.accepted()
    monkeypatch.setattr(Lease, "is_valid", False)
    assert isinstance(await desk.charge(wake_up(payment_id)), Retry)
    assert desk.provider.asked == []
    assert await desk.status(payment_id) is Status.PROCESSING  # for the next claim, after the lease


async def test_a_late_success_of_a_failed_payment_goes_to_a_human(desk: Desk) -> None:
    payment_id = await desk.accepted()
    first = await claimed(desk.store, payment_id)
    await expire_lease(desk.url, payment_id)
    second = await claimed(desk.store, payment_id)
    await desk.store.settle(settlement(second.payment, Status.FAILED_FINAL))
    outcome = await desk.charge._late(settlement(first.payment))
    assert isinstance(outcome, Retry)
    assert await desk.status(payment_id) is Status.NEEDS_REVIEW


async def test_spent_retries_make_a_dead_letter_even_if_its_writer_died(desk: Desk) -> None:
    payment_id = await desk.accepted()
    desk.provider.charges = lambda: Unavailable("HTTP 503", retry_after=timedelta(0))
    assert isinstance(await desk.charge(wake_up(payment_id)), Retry)
    assert await desk.charge(wake_up(payment_id)) == Dead("HTTP 503")
    assert await desk.charge(wake_up(payment_id, deliveries=2)) == Dead("HTTP 503")
    assert await desk.charge(wake_up(payment_id)) == Done()  # a duplicate makes no second letter


async def test_poison_is_buried_for_a_human(desk: Desk) -> None:
    payment_id = await desk.accepted()
    outcome = await desk.charge.poison(wake_up(payment_id, deliveries=6))
    assert outcome == Dead("poison: delivered 6 times, its workers died or stalled")
    assert await desk.status(payment_id) is Status.NEEDS_REVIEW
    assert await desk.charge(wake_up(payment_id)) == Done()


async def test_long_calls_keep_their_lease(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    payment_id = await desk.accepted()
    claim = await claimed(desk.store, payment_id)
    with desk.leases.hold(claim.payment.id, claim.payment.attempts, claim.valid_until_s) as lease:
        assert await desk.leases.run_once() == 0  # too young
        await expire_lease(desk.url, payment_id)
        monkeypatch.setattr("okane.worker.lease_renewal.time.monotonic", lambda: claim.valid_until_s - 15)
        assert await desk.leases.run_once() == 1
        monkeypatch.setattr("okane.worker.lease_renewal.time.monotonic", lambda: claim.valid_until_s + 10)
        assert lease.is_valid
        monkeypatch.setattr("okane.worker.lease_renewal.time.monotonic", lambda: claim.valid_until_s + 20)
        assert not lease.is_valid


@pytest.mark.parametrize("call", ["charge", "look_up"])
async def test_a_worker_that_is_stopped_amid_a_call_leaves_it_to_a_look_up_and_counts_no_crash(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """However often: as many deploys as a payment has tries do not make it hopeless, nor do they spend its tries."""
    payment_id = await desk.accepted()
    entered = asyncio.Event()

    async def never(_payment: Payment, **_options: bool) -> ChargeResult:
        entered.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(desk.provider, call, never)
    if call == "look_up":
        await claimed(desk.store, payment_id)
        await expire_lease(desk.url, payment_id)
    before = (await desk.store.get(payment_id, account_id="default")).retries
    retries = []
    for _ in range(2):
        entered.clear()
        handling = asyncio.create_task(desk.charge(Message("1-1", "low", payment_id.bytes)))
        async with asyncio.timeout(20):
            await entered.wait()
        handling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handling
        payment = await desk.store.get(payment_id, account_id="default")
        assert payment.status is Status.UNKNOWN
        retries.append(payment.retries)
        await execute(desk.url, "UPDATE payments SET retry_at = now() WHERE id = %s", [payment_id])
        monkeypatch.setattr(desk.provider, "look_up", never)
    assert retries == ([before] * 2 if call == "charge" else [before + 1] * 2)  # its crash before
