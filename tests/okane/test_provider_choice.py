"""The provider of a payment: chosen by its claim, written before the call, and never changed once a call may have counted."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry

from okane.metrics import OkaneMetrics
from okane.payment import NextAction, Payment, Status
from okane.providers.base import (
    Approved,
    Declined,
    LookUpResult,
    Pending,
    Unavailable,
    Unknown,
)
from okane.store import ClaimRefusal, PaymentStore, UsableProvider
from okane.worker.charge import PaymentHandler
from okane.worker.lease_renewal import LeaseRenewal
from okane.worker.outcome_rules import OutcomeRules
from okane.worker.provider_set import ProviderSet
from streams import Done, Outcome, Retry, RetryPolicy
from tests.okane.charging import TRAITS, Scripted, wake_up
from tests.okane.stored_payments import GRACE, LEASE, accept_one, execute, expire_lease, new


@dataclass
class Gate:
    """A gate that opens and closes as told."""

    open: bool = True
    wait: timedelta | None = None
    seen: list[LookUpResult] = field(default_factory=list)

    def may_be_chosen(self) -> bool:
        return self.open

    async def permit(self) -> timedelta | None:
        return self.wait

    def give_back(self) -> None:
        pass

    def record(self, result: LookUpResult, *, took_s: float) -> None:
        self.seen.append(result)


@dataclass
class Replaying(Scripted):
    """A provider whose look-up repeats the charge where it may, as gateways with idempotency keys allow."""

    releases: Callable[[Declined], LookUpResult] = field(default=lambda declined: declined)

    async def look_up(self, payment: Payment, *, may_execute: bool) -> LookUpResult:
        self.asked.append(f"{'replay' if may_execute else 'look up'} {payment.provider_key}")
        return self.look_ups()

    async def release(self, payment: Payment, declined: Declined) -> LookUpResult:
        self.asked.append(f"release {declined.provider_ref}")
        return self.releases(declined)


class Counter:
    """A worker with two gateways, `first` and `second`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.first, self.second = Replaying(name="first"), Replaying(name="second")
        self.gates = {"first": Gate(), "second": Gate()}
        self.store = PaymentStore(url, actor="w1", lease=LEASE, grace=GRACE)
        providers = ProviderSet([self.first, self.second], gates=self.gates)
        self.store.usable_providers = providers.usable
        self.metrics = OkaneMetrics(CollectorRegistry())
        rules = OutcomeRules(
            policy=RetryPolicy(max_attempts=8), max_deliveries=5, look_up_delays=(timedelta(seconds=5),)
        )
        self.handler = PaymentHandler(
            store=self.store,
            providers=providers,
            leases=LeaseRenewal(store=self.store, lease=LEASE),
            rules=rules,
            metrics=self.metrics,
            roll=lambda: 0.5,
        )

    async def accept(self, **more: object) -> UUID:
        wanted = dataclasses.replace(new(str(uuid4())), **more)  # type: ignore[arg-type] # any field of a payment
        return (await accept_one(self.store, wanted)).payment.id

    async def wake(self, payment_id: UUID) -> Outcome:
        """Handle a wake-up of a payment whose time has come."""
        await execute(self.url, "UPDATE payments SET retry_at = now() WHERE id = %s AND retry_at > now()", [payment_id])
        return await self.handler(wake_up(payment_id))

    async def payment(self, payment_id: UUID) -> Payment:
        return await self.store.get(payment_id, account_id="default")

    async def switch(self, name: str, mode: str) -> None:
        await execute(
            self.url,
            "INSERT INTO providers (name, mode) VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET mode = excluded.mode",
            [name, mode],
        )

    async def open_circuit(self, name: str, seconds: int) -> None:
        await execute(
            self.url,
            "INSERT INTO providers (name, open_until) VALUES (%s, now() + %s * interval '1 second')",
            [name, seconds],
        )

    async def age_key(self, payment_id: UUID, hours: int) -> None:
        """Make the first claim of a payment so long ago."""
        statement = "UPDATE payment_events SET at = at - %s * interval '1 hour' WHERE payment_id = %s"
        await execute(self.url, statement, [hours, payment_id])


@pytest.fixture
async def counter(database_url: str) -> AsyncIterator[Counter]:
    one = Counter(database_url)
    yield one
    await one.store.aclose()


async def test_the_provider_is_in_the_row_before_it_is_called(counter: Counter) -> None:
    payment_id = await counter.accept()
    await counter.store.claim(payment_id)  # and its worker dies here
    assert (await counter.payment(payment_id)).provider == "first"


async def test_the_first_provider_that_can_be_called_is_chosen(counter: Counter) -> None:
    counter.gates["first"].open = False
    payment_id = await counter.accept()
    assert await counter.wake(payment_id) == Done()
    assert (counter.first.asked, counter.second.asked) == ([], [f"charge {payment_id}"])
    assert (await counter.payment(payment_id)).provider == "second"


async def test_a_payment_is_charged_by_the_provider_it_asks_for_or_waits(counter: Counter) -> None:
    payment_id = await counter.accept(requested_provider="second")
    counter.gates["second"].open = False
    assert await counter.wake(payment_id) == Retry("no provider can take it now", after=timedelta(seconds=5))
    counter.gates["second"].open = True
    assert await counter.wake(payment_id) == Done()
    assert (counter.first.asked, counter.second.asked) == ([], [f"charge {payment_id}"])


async def test_a_payment_that_moved_no_money_falls_back_to_the_next_provider(counter: Counter) -> None:
    counter.first.charges = lambda: Unavailable("503")
    payment_id = await counter.accept()
    await counter.wake(payment_id)
    counter.gates["first"].open = False
    assert await counter.wake(payment_id) == Done()
    assert counter.second.asked == [f"charge {payment_id}"]


async def test_an_unknown_outcome_pins_its_provider_for_ever(counter: Counter) -> None:
    """Not even after "not found": the first call may arrive late, and would be a second charge."""
    counter.first.charges = lambda: Unknown("time-out")
    payment_id = await counter.accept()
    await counter.wake(payment_id)
    counter.first.charges = lambda: Unavailable("503")
    await counter.wake(payment_id)
    assert (await counter.payment(payment_id)).status is Status.FAILED_RETRYABLE
    counter.gates["first"].open = False
    assert isinstance(await counter.wake(payment_id), Retry)
    counter.gates["first"].open = True
    counter.first.charges = lambda: Approved("ch_1")
    assert await counter.wake(payment_id) == Done()
    assert counter.second.asked == []
    assert (await counter.payment(payment_id)).provider == "first"


async def test_a_crash_pins_the_provider(counter: Counter) -> None:
    payment_id = await counter.accept()
    await counter.store.claim(payment_id)
    await expire_lease(counter.url, payment_id)
    counter.gates["first"].open = False
    assert isinstance(await counter.wake(payment_id), Retry)
    assert counter.second.asked == []


@pytest.mark.parametrize("mode", ["drain", "off"])
async def test_a_provider_that_is_switched_off_gets_no_charge_from_the_next_claim_on(
    counter: Counter, mode: str
) -> None:
    await counter.switch("first", mode)
    payment_id = await counter.accept()
    assert await counter.wake(payment_id) == Done()
    assert counter.first.asked == []


async def test_a_drained_provider_is_still_looked_up_and_its_look_ups_may_not_charge(counter: Counter) -> None:
    counter.first.charges = lambda: Unknown("time-out")
    payment_id = await counter.accept()
    await counter.wake(payment_id)
    await counter.switch("first", "drain")
    assert isinstance(await counter.wake(payment_id), Retry)
    assert counter.first.asked == [f"charge {payment_id}", f"look up {payment_id}"]
    assert isinstance(await counter.wake(payment_id), Retry)  # it may be charged there only, and not now
    await counter.switch("first", "on")
    counter.first.charges = lambda: Approved("ch_1")
    assert await counter.wake(payment_id) == Done()
    assert counter.second.asked == []


async def test_a_provider_that_is_off_is_not_even_looked_up(counter: Counter) -> None:
    counter.first.charges = lambda: Unknown("time-out")
    payment_id = await counter.accept()
    await counter.wake(payment_id)
    await counter.switch("first", "off")
    assert isinstance(await counter.wake(payment_id), Retry)
    assert counter.first.asked == [f"charge {payment_id}"]


async def test_behind_open_circuits_a_payment_waits_and_uses_up_nothing(counter: Counter) -> None:
    await counter.open_circuit("first", 20)
    await counter.open_circuit("second", 40)
    payment_id = await counter.accept()
    outcome = await counter.wake(payment_id)
    assert isinstance(outcome, Retry)
    assert outcome.after is not None
    assert timedelta(seconds=18) < outcome.after <= timedelta(seconds=20)
    payment = await counter.payment(payment_id)
    assert (payment.status, payment.attempts, payment.version) == (Status.PENDING, 0, 0)


async def test_a_charge_beyond_the_rate_limit_is_deferred_and_uses_up_no_retry(counter: Counter) -> None:
    counter.gates["first"].wait = timedelta(seconds=2)
    payment_id = await counter.accept()
    assert await counter.wake(payment_id) == Retry(
        "held back by the circuit breaker or the rate limit", after=timedelta(seconds=2)
    )
    payment = await counter.payment(payment_id)
    assert (payment.status, payment.retries, counter.first.asked) == (Status.FAILED_RETRYABLE, 0, [])
    assert (await counter.store.events(payment_id))[-1].event == "deferred"


@pytest.mark.parametrize("fault", ["limit", "config"])
async def test_a_refusal_without_fault_of_the_provider_uses_up_no_retry(counter: Counter, fault: str) -> None:
    counter.first.charges = lambda: Unavailable("429 or 401", fault=fault)  # type: ignore[arg-type] # a parameter
    payment_id = await counter.accept()
    for _ in range(20):
        await counter.wake(payment_id)
    assert (await counter.payment(payment_id)).retries == 0
    counter.first.charges = lambda: Approved("ch_1")
    assert await counter.wake(payment_id) == Done()


async def test_an_outcome_is_replayed_under_its_key_while_the_key_lives(counter: Counter) -> None:
    counter.first.traits = dataclasses.replace(TRAITS, key_lifetime=timedelta(hours=23))
    counter.first.charges = lambda: Unknown("time-out")
    counter.first.look_ups = lambda: Unknown("still running")
    payment_id = await counter.accept()
    await counter.wake(payment_id)
    await counter.wake(payment_id)
    await counter.age_key(payment_id, 23)
    await counter.wake(payment_id)
    assert counter.first.asked == [f"charge {payment_id}", f"replay {payment_id}", f"look up {payment_id}"]


async def test_a_charge_under_a_key_that_may_have_expired_is_looked_up_first(counter: Counter) -> None:
    counter.first.traits = dataclasses.replace(TRAITS, key_lifetime=timedelta(hours=23))
    counter.first.charges = lambda: Unavailable("503")
    payment_id = await counter.accept()
    await counter.wake(payment_id)
    await counter.age_key(payment_id, 23)
    counter.first.look_ups = lambda: Approved("ch_1")
    assert await counter.wake(payment_id) == Done()
    assert counter.first.asked == [f"charge {payment_id}", f"look up {payment_id}"]


async def test_a_key_is_as_old_as_its_first_claim_however_old_the_payment_is(counter: Counter) -> None:
    counter.first.traits = dataclasses.replace(TRAITS, key_lifetime=timedelta(hours=23))
    counter.first.charges = lambda: Declined("card_declined")
    payment_id = await counter.accept()
    await counter.wake(payment_id)
    await counter.age_key(payment_id, 100)
    await counter.store.retry(payment_id, account_id="default", actor="test")
    counter.first.charges = lambda: Approved("ch_1")
    assert await counter.wake(payment_id) == Done()
    assert counter.first.asked == [f"charge {payment_id}", f"charge {payment_id}:3"]


async def test_a_pending_charge_is_looked_up_until_it_is_decided(counter: Counter) -> None:
    action = NextAction("https://bank.example/3ds")
    counter.first.charges = counter.first.look_ups = lambda: Pending("pi_1", action)
    payment_id = await counter.accept()
    assert await counter.wake(payment_id) == Retry("pending", after=timedelta(minutes=1))
    waiting = await counter.payment(payment_id)
    assert (waiting.status, waiting.next_action, waiting.attempt_ref) == (Status.REQUIRES_ACTION, action, "pi_1")
    assert waiting.provider_ref is None
    assert await counter.wake(payment_id) == Retry("pending", after=timedelta(minutes=5))
    counter.first.look_ups = lambda: Approved("pi_1")
    assert await counter.wake(payment_id) == Done()
    settled = await counter.payment(payment_id)
    assert (settled.status, settled.provider_ref, settled.next_action) == (Status.SUCCESS, "pi_1", None)
    assert counter.first.asked[0] == f"charge {payment_id}"
    assert not any(asked.startswith("charge") for asked in counter.first.asked[1:])


async def test_a_pending_charge_may_be_declined_in_the_end(counter: Counter) -> None:
    counter.first.charges = lambda: Pending("pi_1")
    counter.first.look_ups = lambda: Declined("authentication_failed", provider_ref="pi_1")
    payment_id = await counter.accept()
    await counter.wake(payment_id)
    assert await counter.wake(payment_id) == Done()
    payment = await counter.payment(payment_id)
    assert (payment.status, payment.provider_ref, payment.attempt_ref) == (Status.FAILED_FINAL, None, "pi_1")


async def test_payments_of_before_that_name_no_provider_stay_with_http(counter: Counter) -> None:
    """Their attempts called the one provider of that time: another one would charge them again."""
    payment_id = await counter.accept()
    statement = "UPDATE payments SET status = 'failed_retryable', attempts = 1, retry_at = now() WHERE id = %s"
    await execute(counter.url, statement, [payment_id])
    assert isinstance(await counter.wake(payment_id), Retry)
    assert (counter.first.asked, counter.second.asked) == ([], [])


async def test_payments_that_wait_for_a_provider_get_no_second_wake_up_meanwhile(counter: Counter) -> None:
    counter.gates["first"].open = counter.gates["second"].open = False
    payment_id = await counter.accept()
    await counter.wake(payment_id)
    async with counter.store._rare._held() as connection:
        cursor = await connection.execute(
            "SELECT sweep_at > now() + interval '14 seconds' FROM payments WHERE id = %s", [payment_id]
        )
        assert await cursor.fetchone() == (True,)


async def test_a_payment_that_was_in_doubt_stays_with_its_provider_after_a_review(counter: Counter) -> None:
    """Its only call may still be on its way, whatever the human knows."""
    payment_id = await counter.accept()
    await counter.store.claim(payment_id)  # and its worker dies here
    await execute(counter.url, "UPDATE payments SET lease_until = now() WHERE id = %s", [payment_id])
    assert await counter.store.bury(payment_id, reason="poison")
    await counter.store.resolve(
        payment_id,
        account_id="default",
        decision=Status.FAILED_FINAL,
        reason="not on the statement",
        provider_ref=None,
        actor="ann",
    )
    await counter.store.retry(payment_id, account_id="default", actor="ann")
    counter.gates["first"].open = False
    assert isinstance(await counter.wake(payment_id), Retry)
    assert counter.second.asked == []
    counter.gates["first"].open = True
    assert await counter.wake(payment_id) == Done()
    assert (await counter.payment(payment_id)).provider == "first"


async def test_a_claim_asks_once_which_providers_can_be_called(counter: Counter) -> None:
    """A half-open provider is offered to one claim at a time, and a refusal must not take the offer of the next one."""
    offers = 0
    usable = counter.store.usable_providers

    def counted() -> Sequence[UsableProvider]:
        nonlocal offers
        offers += 1
        return usable()

    counter.store.usable_providers = counted
    payment_id = await counter.accept()
    await counter.store.claim(payment_id)
    assert isinstance(await counter.store.claim(payment_id), ClaimRefusal)
    assert offers == 2


async def test_a_route_chooses_the_first_of_its_candidates_that_can_be_called(counter: Counter) -> None:
    payment_id = await counter.accept(candidates=["second", "first"])
    assert await counter.wake(payment_id) == Done()
    counter.gates["second"].open = False
    other_id = await counter.accept(candidates=["second", "first"])
    assert await counter.wake(other_id) == Done()
    assert (counter.second.asked, counter.first.asked) == ([f"charge {payment_id}"], [f"charge {other_id}"])


async def test_a_route_leads_past_a_provider_that_is_switched_off(counter: Counter) -> None:
    await counter.switch("second", "off")
    payment_id = await counter.accept(candidates=["second", "first"])
    assert await counter.wake(payment_id) == Done()
    assert counter.first.asked == [f"charge {payment_id}"]


@pytest.mark.parametrize("elsewhere", [["second"], ["nowhere", "second"]])
async def test_a_payment_waits_where_no_candidate_of_its_route_can_be_called(
    counter: Counter, elsewhere: Sequence[str]
) -> None:
    counter.gates["second"].open = False
    payment_id = await counter.accept(candidates=elsewhere)
    assert await counter.wake(payment_id) == Retry("no provider can take it now", after=timedelta(seconds=5))
    assert (counter.first.asked, (await counter.payment(payment_id)).attempts) == ([], 0)
    counter.gates["second"].open = True
    assert await counter.wake(payment_id) == Done()
    assert counter.second.asked == [f"charge {payment_id}"]


async def test_a_route_takes_the_next_candidate_after_one_was_unavailable(counter: Counter) -> None:
    counter.first.charges = lambda: Unavailable("503")
    payment_id = await counter.accept(candidates=["first", "second"])
    await counter.wake(payment_id)
    assert await counter.wake(payment_id) == Done()
    assert (counter.first.asked, counter.second.asked) == ([f"charge {payment_id}"], [f"charge {payment_id}"])


async def test_candidates_that_are_all_unavailable_take_turns(counter: Counter) -> None:
    counter.first.charges = counter.second.charges = lambda: Unavailable("503")
    payment_id = await counter.accept(candidates=["first", "second"])
    chosen = []
    for _ in range(4):
        await counter.wake(payment_id)
        chosen.append((await counter.payment(payment_id)).provider)
    assert chosen == ["first", "second", "first", "second"]


async def test_a_candidate_that_was_unavailable_is_tried_again_where_no_other_can_be_called(counter: Counter) -> None:
    counter.first.charges = lambda: Unavailable("503")
    counter.gates["second"].open = False
    payment_id = await counter.accept(candidates=["first", "second"])
    await counter.wake(payment_id)
    await counter.wake(payment_id)
    assert counter.first.asked == [f"charge {payment_id}"] * 2


async def test_a_rate_limit_leads_to_no_other_candidate(counter: Counter) -> None:
    """It is no outage: the payment waits, and stays with the provider that the route prefers."""
    counter.gates["first"].wait = timedelta(seconds=1)
    payment_id = await counter.accept(candidates=["first", "second"])
    await counter.wake(payment_id)
    counter.gates["first"].wait = None
    assert await counter.wake(payment_id) == Done()
    assert (counter.first.asked, counter.second.asked) == ([f"charge {payment_id}"], [])


@pytest.mark.parametrize("crashes", [False, True], ids=["unknown", "crashed"])
async def test_a_route_never_moves_a_payment_whose_charge_may_have_been_made(counter: Counter, crashes: bool) -> None:
    payment_id = await counter.accept(candidates=["first", "second"])
    if crashes:
        await counter.store.claim(payment_id)
        await expire_lease(counter.url, payment_id)
    else:
        counter.first.charges = lambda: Unknown("time-out")
        await counter.wake(payment_id)
    counter.first.charges = lambda: Unavailable("503")
    await counter.wake(payment_id)
    assert (await counter.payment(payment_id)).status is Status.FAILED_RETRYABLE
    counter.gates["first"].open = False
    assert isinstance(await counter.wake(payment_id), Retry)
    await counter.switch("first", "off")
    assert isinstance(await counter.wake(payment_id), Retry)
    assert counter.second.asked == []


async def test_in_one_batch_each_payment_goes_its_own_way(counter: Counter) -> None:
    counter.gates["second"].open = False
    routes: Sequence[Sequence[str] | None] = (None, ["second", "first"], ["first"], ["second"])
    ids = [await counter.accept(candidates=one) for one in routes]
    outcomes = await asyncio.gather(*(counter.handler(wake_up(payment_id)) for payment_id in ids))
    assert [type(one) for one in outcomes] == [Done, Done, Done, Retry]
    assert sorted(counter.first.asked) == sorted(f"charge {payment_id}" for payment_id in ids[:3])
