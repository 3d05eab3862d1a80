"""The handler of a wake-up over a real store and a scripted provider: the ways out that whole-system tests cannot aim at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry

from okane.metrics import OkaneMetrics
from okane.payment import Payment, Status
from okane.providers.base import Approved, ChargeResult, LookUpResult, NotFound, Unavailable
from okane.store import PaymentStore
from okane.worker.charge import Charge
from okane.worker.lease import Lease, Leases
from okane.worker.verdict import Rules
from streams import Dead, Done, Message, Retry, RetryPolicy
from tests.okane.test_store import GRACE, LEASE, claimed, execute, expire_lease, new, settlement


@dataclass
class Scripted:
    """A provider that answers as told and remembers what it was asked."""

    name: str = "scripted"
    charges: Callable[[], ChargeResult] = field(default=lambda: Approved("ref"))
    look_ups: Callable[[], LookUpResult] = field(default=NotFound)
    asked: list[str] = field(default_factory=list)

    async def charge(self, payment: Payment) -> ChargeResult:
        self.asked.append(f"charge {payment.provider_key}")
        return self.charges()

    async def look_up(self, payment: Payment) -> LookUpResult:
        self.asked.append(f"look up {payment.provider_key}")
        return self.look_ups()

    async def aclose(self) -> None:
        pass


@dataclass
class Desk:
    """A charge with everything around it."""

    store: PaymentStore
    provider: Scripted
    leases: Leases
    charge: Charge
    url: str

    async def accepted(self) -> UUID:
        return (await self.store.accept(new(str(uuid4())))).payment.id

    async def status(self, payment_id: UUID) -> Status:
        return (await self.store.get(payment_id, account_id="default")).status


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    store = PaymentStore(database_url, actor="w1", lease=LEASE, grace=GRACE)
    provider, leases = Scripted(), Leases(store=store, lease=LEASE)
    rules = Rules(
        policy=RetryPolicy(max_attempts=2),
        max_deliveries=5,
        consistency_lag=timedelta(0),
        unknown_deadline=timedelta(hours=24),
        look_up_delays=(timedelta(seconds=5),),
    )
    metrics = OkaneMetrics(CollectorRegistry())
    charge = Charge(store=store, provider=provider, leases=leases, rules=rules, metrics=metrics, roll=lambda: 0.5)
    yield Desk(store, provider, leases, charge, database_url)
    await store.aclose()


async def test_the_wake_up_of_a_canceled_payment_is_dropped_and_nobody_is_called(desk: Desk) -> None:
    payment_id = await desk.accepted()
    await desk.store.cancel(payment_id, account_id="default", actor="test")
    assert isinstance(await desk.charge(wake_up(payment_id)), Done)
    assert desk.provider.asked == []
    assert await desk.status(payment_id) is Status.CANCELED


def wake_up(payment_id: UUID, *, deliveries: int = 1) -> Message:
    return Message("1-1", "low", payment_id.bytes, deliveries=deliveries)


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
    monkeypatch.setattr(Lease, "valid", False)
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
    with desk.leases.held(claim) as lease:
        assert await desk.leases.run_once() == 0  # too young
        await expire_lease(desk.url, payment_id)
        monkeypatch.setattr("okane.worker.lease.time.monotonic", lambda: claim.valid_until_s - 15)
        assert await desk.leases.run_once() == 1
        monkeypatch.setattr("okane.worker.lease.time.monotonic", lambda: claim.valid_until_s + 10)
        assert lease.valid
        monkeypatch.setattr("okane.worker.lease.time.monotonic", lambda: claim.valid_until_s + 20)
        assert not lease.valid


@pytest.mark.parametrize("call", ["charge", "look_up"])
async def test_a_worker_that_is_stopped_amid_a_call_leaves_it_to_a_look_up_and_counts_no_crash(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """However often: as many deploys as a payment has tries do not make it hopeless, nor do they spend its tries."""
    payment_id = await desk.accepted()
    entered = asyncio.Event()

    async def never(_payment: Payment) -> ChargeResult:
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
