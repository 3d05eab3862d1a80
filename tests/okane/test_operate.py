"""The handler of an operation's wake-up over a real store and a scripted provider."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from prometheus_client import Counter

from okane.lanes import OPERATION_LANES
from okane.operation import OperationKind, OperationStatus
from okane.payment import Status
from okane.providers.base import (
    Approved,
    Authorized,
    Declined,
    LookUpResult,
    NotFound,
    OperationLookUp,
    OperationResult,
    Pending,
    Unavailable,
    Unknown,
)
from okane.store import SweepStore, sweep
from okane.store.operation_records import OperationClaim
from okane.worker.lease_renewal import Lease
from okane.worker.unplanned_authorizations import UnplannedAuthorizations
from streams import Dead, Done, Message, Retry
from tests.okane.charging import wake_up
from tests.okane.operating import CAPTURE, REFUND, VOID, OperationDesk, operation_desk, operation_wake_up
from tests.okane.stored_payments import GRACE, execute

__all__ = ["operation_desk"]

_S = OperationStatus
EMPTY = {lane.name: None for lane in OPERATION_LANES}


async def claimed(desk: OperationDesk, operation_id: UUID) -> OperationClaim:
    claim = await desk.store.claim(operation_id)
    assert isinstance(claim, OperationClaim)
    return claim


async def noticed(desk: OperationDesk, *operation_ids: UUID) -> None:
    """Do what a notice about the operation, by default about the only one, and the sweep after it do."""
    which = [*operation_ids] or None
    await execute(
        desk.url, "UPDATE operations SET sweep_at = now() WHERE %s::uuid[] IS NULL OR id = ANY (%s)", [which] * 2
    )
    assert len(await desk.store.due(EMPTY, limit=10)) == 1


async def status(desk: OperationDesk, operation_id: UUID) -> OperationStatus:
    return (await desk.store.get(operation_id)).status


def counted(metric: Counter) -> dict[tuple[str, str], float]:
    """Return what was counted, by kind and event."""
    samples = [one for family in metric.collect() for one in family.samples if one.name.endswith("_total")]
    return {(one.labels["kind"], one.labels["event"]): one.value for one in samples if one.value}


async def test_a_capture_takes_what_was_held(operation_desk: OperationDesk) -> None:
    payment_id = await operation_desk.authorized()
    held = await operation_desk.payment(payment_id)
    assert (held.status, held.provider_ref, held.attempt_ref) == (Status.AUTHORIZED, None, "auth")
    operation_id = await operation_desk.request(CAPTURE, payment_id, 400)
    assert await operation_desk.operate(operation_wake_up(operation_id)) == Done()
    assert operation_desk.provider.asked == ["capture 400"]
    assert await status(operation_desk, operation_id) is _S.SUCCESS
    payment = await operation_desk.payment(payment_id)
    assert (payment.status, payment.amount_captured, payment.open_operation) == (Status.SUCCESS, 400, None)
    assert payment.provider_ref == "op"


async def test_a_void_lets_it_go(operation_desk: OperationDesk) -> None:
    payment_id = await operation_desk.authorized()
    operation_id = await operation_desk.request(VOID, payment_id)
    assert await operation_desk.operate(operation_wake_up(operation_id)) == Done()
    assert operation_desk.provider.asked == ["void 440"]
    assert (await operation_desk.payment(payment_id)).status is Status.CANCELED


async def test_a_refund_gives_back_a_part(operation_desk: OperationDesk) -> None:
    payment_id = await operation_desk.captured()
    operation_id = await operation_desk.request(REFUND, payment_id, 40)
    assert await operation_desk.operate(operation_wake_up(operation_id)) == Done()
    payment = await operation_desk.payment(payment_id)
    assert (payment.status, payment.amount_refunded, payment.refund_reserved) == (Status.SUCCESS, 40, 40)


async def test_a_declined_refund_is_free_to_be_refunded_again(operation_desk: OperationDesk) -> None:
    payment_id = await operation_desk.captured()
    operation_id = await operation_desk.request(REFUND, payment_id)
    operation_desk.provider.operates = lambda: Declined("balance_insufficient")
    assert await operation_desk.operate(operation_wake_up(operation_id)) == Done()
    assert await status(operation_desk, operation_id) is _S.FAILED_FINAL
    payment = await operation_desk.payment(payment_id)
    assert (payment.amount_refunded or 0, payment.refund_reserved or 0) == (0, 0)
    assert await operation_desk.request(REFUND, payment_id) != operation_id


async def test_a_declined_capture_leaves_the_money_held(operation_desk: OperationDesk) -> None:
    payment_id = await operation_desk.authorized()
    operation_id = await operation_desk.request(CAPTURE, payment_id)
    operation_desk.provider.operates = lambda: Declined("amount_too_large")
    await operation_desk.operate(operation_wake_up(operation_id))
    payment = await operation_desk.payment(payment_id)
    assert (payment.status, payment.open_operation) == (Status.AUTHORIZED, None)


async def test_parallel_wake_ups_execute_once(operation_desk: OperationDesk) -> None:
    operation_id = await operation_desk.request(REFUND, await operation_desk.captured())
    outcomes = await asyncio.gather(*(operation_desk.operate(operation_wake_up(operation_id)) for _ in range(10)))
    assert operation_desk.provider.asked == ["refund 440"]
    assert all(isinstance(outcome, Done | Retry) for outcome in outcomes)
    assert await operation_desk.operate(operation_wake_up(operation_id)) == Done()  # a double of a settled one
    assert operation_desk.provider.asked == ["refund 440"]


async def test_what_is_not_an_operation_goes_to_the_dead_letters(operation_desk: OperationDesk) -> None:
    assert await operation_desk.operate(Message("1-1", "refund", b"nonsense")) == Dead("not an operation id")
    assert await operation_desk.operate(operation_wake_up(uuid4())) == Dead("no such operation")


@pytest.mark.parametrize(
    ("found", "asked"),
    [
        (Approved("re_1"), ["look up"]),
        (NotFound(), ["look up", "refund 440"]),  # it never arrived: executed under the same key
    ],
)
async def test_a_lost_answer_is_looked_up_and_never_executed_twice(
    operation_desk: OperationDesk, found: Approved | NotFound, asked: list[str]
) -> None:
    operation_id = await operation_desk.request(REFUND, await operation_desk.captured())
    await claimed(operation_desk, operation_id)  # its worker died somewhere
    await operation_desk.expire_lease(operation_id)
    operation_desk.provider.look_ups = lambda: found
    assert await operation_desk.operate(operation_wake_up(operation_id)) == Done()
    assert operation_desk.provider.asked == asked
    assert await status(operation_desk, operation_id) is _S.SUCCESS


async def test_an_unknown_outcome_stays_reserved_until_it_is_found(operation_desk: OperationDesk) -> None:
    payment_id = await operation_desk.captured()
    operation_id = await operation_desk.request(REFUND, payment_id, 100)
    operation_desk.provider.operates = lambda: Unknown("timed out")
    assert isinstance(await operation_desk.operate(operation_wake_up(operation_id)), Retry)
    assert await status(operation_desk, operation_id) is _S.UNKNOWN
    assert (await operation_desk.payment(payment_id)).refund_reserved == 100
    operation_desk.provider.look_ups = lambda: Approved("re_1")
    await execute(operation_desk.url, "UPDATE operations SET retry_at = now()", [])
    assert await operation_desk.operate(operation_wake_up(operation_id)) == Done()
    assert operation_desk.provider.asked == ["refund 100", "look up"]
    assert (await operation_desk.payment(payment_id)).amount_refunded == 100


async def test_a_refund_that_the_bank_decides_later_is_polled(operation_desk: OperationDesk) -> None:
    operation_id = await operation_desk.request(REFUND, await operation_desk.captured())
    operation_desk.provider.operates = lambda: Pending("re_1")
    outcome = await operation_desk.operate(operation_wake_up(operation_id))
    assert isinstance(outcome, Retry)
    assert outcome.after == timedelta(minutes=1)
    assert await operation_desk.operate(operation_wake_up(operation_id)) == Done()  # the wake-up of the poll is kept
    operation_desk.provider.look_ups = lambda: Approved("re_1")
    await execute(operation_desk.url, "UPDATE operations SET retry_at = now()", [])
    assert await operation_desk.operate(operation_wake_up(operation_id)) == Done()
    assert operation_desk.provider.asked == ["refund 440", "look up"]


async def test_a_bug_in_the_adapter_leaves_the_outcome_open(operation_desk: OperationDesk) -> None:
    def bug() -> OperationResult:
        raise KeyError("refund_ref")

    operation_id = await operation_desk.request(REFUND, await operation_desk.captured())
    operation_desk.provider.operates = bug
    assert isinstance(await operation_desk.operate(operation_wake_up(operation_id)), Retry)
    assert await status(operation_desk, operation_id) is _S.UNKNOWN


async def test_a_worker_that_slept_through_its_lease_does_not_call_the_provider(
    operation_desk: OperationDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation_id = await operation_desk.request(REFUND, await operation_desk.captured())
    monkeypatch.setattr(Lease, "is_valid", False)
    assert isinstance(await operation_desk.operate(operation_wake_up(operation_id)), Retry)
    assert operation_desk.provider.asked == []


async def test_a_stale_worker_writes_no_outcome(operation_desk: OperationDesk) -> None:
    payment_id = await operation_desk.captured()
    operation_id = await operation_desk.request(REFUND, payment_id, 100)
    first = await claimed(operation_desk, operation_id)
    await operation_desk.expire_lease(operation_id)
    operation_desk.provider.look_ups = lambda: Approved("re_1")
    assert await operation_desk.operate(operation_wake_up(operation_id)) == Done()
    version = (await operation_desk.payment(payment_id)).version
    settlement = await operation_desk.operate._attempt(first, operation_desk.leases.hold(operation_id, 1, 1e12))
    assert settlement is not None
    assert await operation_desk.store.settle(settlement) is None
    assert isinstance(await operation_desk.operate._late(first.operation, settlement), Retry)
    payment = await operation_desk.payment(payment_id)
    assert (payment.amount_refunded, payment.refund_reserved, payment.version) == (100, 100, version)
    assert counted(operation_desk.metrics.late_results) == {("refund", "success"): 1}
    assert counted(operation_desk.metrics.late_operations) == {}


async def test_spent_retries_make_a_dead_letter_even_if_its_writer_died(operation_desk: OperationDesk) -> None:
    payment_id = await operation_desk.captured()
    operation_id = await operation_desk.request(REFUND, payment_id)
    operation_desk.provider.operates = lambda: Unavailable("HTTP 503", retry_after=timedelta(0))
    assert isinstance(await operation_desk.operate(operation_wake_up(operation_id)), Retry)
    assert await operation_desk.operate(operation_wake_up(operation_id)) == Dead("HTTP 503")
    assert await operation_desk.operate(operation_wake_up(operation_id, deliveries=2)) == Dead("HTTP 503")
    assert await operation_desk.operate(operation_wake_up(operation_id)) == Done()
    assert ((await operation_desk.payment(payment_id)).refund_reserved or 0) == 0


async def test_poison_is_buried_for_a_human_and_stays_reserved(operation_desk: OperationDesk) -> None:
    payment_id = await operation_desk.captured()
    operation_id = await operation_desk.request(REFUND, payment_id)
    outcome = await operation_desk.operate.poison(operation_wake_up(operation_id, deliveries=6))
    assert outcome == Dead("poison: delivered 6 times, its workers died or stalled")
    assert await status(operation_desk, operation_id) is _S.NEEDS_REVIEW
    assert (await operation_desk.payment(payment_id)).refund_reserved == 440
    assert await operation_desk.operate(operation_wake_up(operation_id)) == Done()
    assert operation_desk.provider.asked == []


async def test_long_calls_keep_their_lease(operation_desk: OperationDesk) -> None:
    operation_id = await operation_desk.request(REFUND, await operation_desk.captured())
    claim = await claimed(operation_desk, operation_id)
    with operation_desk.leases.hold(operation_id, claim.operation.attempts, claim.valid_until_s - 20) as lease:
        before_s = lease.valid_until_s
        assert await operation_desk.leases.run_once() == 1
        assert lease.valid_until_s > before_s


async def test_an_authorization_that_ends_is_voided_by_okane_itself(operation_desk: OperationDesk) -> None:
    payment_id = await operation_desk.authorized(ends_in=timedelta(0))
    assert await operation_desk.charge(wake_up(payment_id)) == Done()
    [wake] = operation_desk.queue.published
    assert wake.lane == "void"
    assert await operation_desk.charge(wake_up(payment_id)) == Done()  # one void, however often it is woken
    assert len(operation_desk.queue.published) == 1
    assert await operation_desk.operate(Message("1-1", "void", wake.body)) == Done()
    assert operation_desk.provider.asked == ["void 440"]
    assert (await operation_desk.payment(payment_id)).status is Status.CANCELED


async def test_an_authorization_that_lasts_is_left_alone(operation_desk: OperationDesk) -> None:
    payment_id = await operation_desk.authorized()
    assert await operation_desk.charge(wake_up(payment_id)) == Done()
    assert operation_desk.queue.published == []
    assert (await operation_desk.payment(payment_id)).status is Status.AUTHORIZED


async def test_okanes_own_void_is_found_by_the_sweep_if_redis_is_away(operation_desk: OperationDesk) -> None:
    payment_id = await operation_desk.authorized(ends_in=timedelta(0))
    operation_desk.queue.down = True
    assert await operation_desk.charge(wake_up(payment_id)) == Done()
    assert operation_desk.queue.published == []
    await execute(operation_desk.url, "UPDATE operations SET sweep_at = now()", [])
    [due] = await operation_desk.store.due(EMPTY, limit=10)
    assert due.lane == "void"


async def test_a_refund_that_a_bank_returns_days_later_gives_its_reserve_back(operation_desk: OperationDesk) -> None:
    payment_id = await operation_desk.captured()
    operation_id = await operation_desk.request(REFUND, payment_id, 100)
    await operation_desk.operate(operation_wake_up(operation_id))
    await noticed(operation_desk)
    operation_desk.provider.look_ups = lambda: Declined("lost_or_stolen_card")
    assert await operation_desk.operate(operation_wake_up(operation_id)) == Done()
    assert operation_desk.provider.asked == ["refund 100", "look up, no more"]
    assert await status(operation_desk, operation_id) is _S.FAILED_FINAL
    payment = await operation_desk.payment(payment_id)
    assert (payment.amount_refunded or 0, payment.refund_reserved or 0) == (0, 0)
    assert counted(operation_desk.metrics.late_operations) == {("refund", "declined"): 1}
    assert counted(operation_desk.metrics.late_results) == {}  # no worker was stalled


async def test_a_refund_that_is_confirmed_again_is_looked_up_once(operation_desk: OperationDesk) -> None:
    operation_id = await operation_desk.request(REFUND, await operation_desk.captured(), 100)
    await operation_desk.operate(operation_wake_up(operation_id))
    await noticed(operation_desk)
    operation_desk.provider.look_ups = lambda: Approved("op")
    for _ in range(2):
        assert await operation_desk.operate(operation_wake_up(operation_id)) == Done()
    assert operation_desk.provider.asked == ["refund 100", "look up, no more"]
    assert await status(operation_desk, operation_id) is _S.SUCCESS


async def test_a_refund_that_arrives_after_it_was_given_up_goes_to_a_human(operation_desk: OperationDesk) -> None:
    payment_id = await operation_desk.captured()
    operation_id = await operation_desk.request(REFUND, payment_id, 100)
    operation_desk.provider.operates = lambda: Unknown("timed out")
    await operation_desk.operate(operation_wake_up(operation_id))
    await execute(operation_desk.url, "UPDATE operations SET retry_at = now()", [])
    operation_desk.provider.operates = lambda: Declined("card_declined")
    assert await operation_desk.operate(operation_wake_up(operation_id)) == Done()
    assert await status(operation_desk, operation_id) is _S.FAILED_FINAL
    await noticed(operation_desk)
    operation_desk.provider.look_ups = lambda: Approved("re_late")
    assert isinstance(await operation_desk.operate(operation_wake_up(operation_id)), Dead)
    assert await status(operation_desk, operation_id) is _S.NEEDS_REVIEW
    assert (await operation_desk.payment(payment_id)).refund_reserved == 100  # no other refund may take it


@pytest.mark.parametrize("answer", [Unavailable("503"), Unknown("late"), Pending("re_1")])
async def test_a_late_look_up_without_an_answer_is_due_again(
    operation_desk: OperationDesk, answer: OperationLookUp
) -> None:
    operation_id = await operation_desk.request(REFUND, await operation_desk.captured(), 100)
    await operation_desk.operate(operation_wake_up(operation_id))
    await noticed(operation_desk)
    operation_desk.provider.look_ups = lambda: answer
    assert await operation_desk.operate(operation_wake_up(operation_id)) == Done()
    await noticed(operation_desk)
    assert await status(operation_desk, operation_id) is _S.SUCCESS


async def failed_and_due(desk: OperationDesk, kind: OperationKind, payment_id: UUID) -> UUID:
    """Return an operation that was declined, and of which an earlier call may still be on its way; it is due."""
    operation_id = await desk.request(kind, payment_id)
    desk.provider.operates = lambda: Unknown("answer lost")
    await desk.operate(operation_wake_up(operation_id))
    await execute(desk.url, "UPDATE operations SET retry_at = now(), called_at = now() - interval '1 h'", [])
    desk.provider.operates = lambda: Declined("try_again")
    await desk.operate(operation_wake_up(operation_id))
    assert await status(desk, operation_id) is _S.FAILED_FINAL
    desk.provider.operates = lambda: Approved("op")
    return operation_id


@pytest.mark.parametrize("kind", [CAPTURE, VOID])
async def test_a_capture_or_void_that_failed_is_not_looked_up_once_another_one_is_done(
    operation_desk: OperationDesk, kind: OperationKind
) -> None:
    """The gateway shows that the money was taken or let go, and not by which of them."""
    payment_id = await operation_desk.authorized()
    failed = await failed_and_due(operation_desk, kind, payment_id)
    other = await operation_desk.request(kind, payment_id)
    await noticed(operation_desk, failed)
    operation_desk.provider.look_ups = lambda: Approved("op")
    asked = [*operation_desk.provider.asked]
    assert await operation_desk.operate(operation_wake_up(failed)) == Done()
    assert operation_desk.provider.asked == asked  # the other one is under way: later
    assert await operation_desk.operate(operation_wake_up(other)) == Done()
    await noticed(operation_desk, failed)
    assert await operation_desk.operate(operation_wake_up(failed)) == Done()
    assert operation_desk.provider.asked == [*asked, f"{kind} 440"]
    assert await status(operation_desk, failed) is _S.FAILED_FINAL
    assert await status(operation_desk, other) is _S.SUCCESS


async def test_a_notice_that_comes_during_a_late_look_up_makes_another_one(operation_desk: OperationDesk) -> None:
    payment_id = await operation_desk.captured()
    refund = await failed_and_due(operation_desk, REFUND, payment_id)
    await noticed(operation_desk, refund)
    taken = await operation_desk.store.begin_late_look_up(refund, again=[timedelta(minutes=1)])
    assert taken is not None
    await execute(operation_desk.url, "UPDATE operations SET sweep_at = now()", [])  # as the notice does
    await operation_desk.store.plan_late_look_up(taken.operation, begun_at=taken.begun_at)
    assert len(await operation_desk.store.due(EMPTY, limit=10)) == 1
    operation_desk.provider.look_ups = lambda: Approved("re_late")
    assert isinstance(await operation_desk.operate(operation_wake_up(refund)), Dead)


HOURS = "extract(epoch FROM sweep_at - now()) / 3600"


async def looks_at(desk: OperationDesk, payment_id: UUID) -> float:
    """Do what the sweep does when the payment is due; return the hours until the next time."""
    await execute(desk.url, "UPDATE payments SET sweep_at = now(), sweeps = 1 WHERE id = %s", [payment_id])
    assert await desk.charge(wake_up(payment_id)) == Done()
    return await hours(desk, payment_id)


async def hours(desk: OperationDesk, payment_id: UUID) -> float:
    async with await psycopg.AsyncConnection.connect(desk.url) as connection:
        found = await connection.execute(f"SELECT {HOURS}::float8 FROM payments WHERE id = %s", [payment_id])
        [row] = await found.fetchall()
        return round(float(row[0]), 1)


async def test_an_authorization_whose_end_is_not_told_is_looked_up_each_day(operation_desk: OperationDesk) -> None:
    payment_id = await operation_desk.authorized(ends_in=None)
    assert await hours(operation_desk, payment_id) == 24
    operation_desk.provider.holds = lambda: Authorized("auth")
    assert await looks_at(operation_desk, payment_id) == 24
    operation_desk.provider.holds = lambda: Unknown("answer lost")
    assert await looks_at(operation_desk, payment_id) == 1
    assert operation_desk.provider.asked == ["look up auth"] * 2
    assert operation_desk.queue.published == []
    assert (await operation_desk.payment(payment_id)).status is Status.AUTHORIZED


async def test_a_look_up_does_not_put_off_the_end_of_an_authorization(operation_desk: OperationDesk) -> None:
    payment_id = await operation_desk.authorized(ends_in=timedelta(hours=10))
    operation_desk.provider.holds = lambda: Authorized("auth")
    assert await looks_at(operation_desk, payment_id) == 9.9


@pytest.mark.parametrize(
    ("held", "voided", "after"),
    [
        (Declined("canceled"), Approved("auth"), Status.CANCELED),
        (Approved("auth"), Declined("already_captured"), Status.NEEDS_REVIEW),  # captured, but not by okane
    ],
)
async def test_an_authorization_that_is_over_is_voided_and_ends_as_the_provider_says(
    operation_desk: OperationDesk, held: LookUpResult, voided: OperationResult, after: Status
) -> None:
    payment_id = await operation_desk.authorized()
    operation_desk.provider.holds, operation_desk.provider.operates = lambda: held, lambda: voided
    await looks_at(operation_desk, payment_id)
    await looks_at(operation_desk, payment_id)  # the void is under way: nothing to look up
    [wake] = operation_desk.queue.published
    assert await operation_desk.operate(Message("1-1", "void", wake.body)) == Done()
    assert operation_desk.provider.asked == ["look up auth", "void 440"]
    assert (await operation_desk.payment(payment_id)).status is after


async def test_a_notice_that_comes_during_the_look_up_of_an_authorization_makes_another_one(
    operation_desk: OperationDesk,
) -> None:
    payment_id = await operation_desk.authorized(ends_in=None)
    await execute(operation_desk.url, "UPDATE payments SET sweep_at = now(), sweeps = 1", [])
    payment = await operation_desk.payments.begin_authorization_look_up(payment_id)
    assert payment is not None
    assert await operation_desk.payments.begin_authorization_look_up(payment_id) is None
    await execute(operation_desk.url, "UPDATE payments SET sweep_at = now()", [])  # as the notice does
    await operation_desk.payments.plan_authorization_look_up(payment)
    assert await hours(operation_desk, payment_id) <= 0


async def test_an_authorization_of_an_older_version_without_a_look_gets_one_within_a_day(
    operation_desk: OperationDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of two: three authorizations of two accounts, and one that has a look already, among payments that failed."""
    monkeypatch.setattr(sweep, "WINDOW", 2)
    old = [await operation_desk.authorized(ends_in=None) for _ in range(2)]
    old.append(await operation_desk.authorized(ends_in=timedelta(hours=10)))
    planned = await operation_desk.authorized(ends_in=None)
    operation_desk.provider.charges = lambda: Declined("no_money")
    failed = [await operation_desk.captured() for _ in range(6)]
    desk, reset = operation_desk, "UPDATE payments SET sweep_at = NULL, account_id = %s WHERE id = ANY (%s)"
    await execute(desk.url, reset, ["a", [*old[:1], *failed[:4]]])
    await execute(desk.url, reset, ["b", [*old[1:], *failed[4:]]])
    store = SweepStore(desk.url, grace=GRACE)
    search = UnplannedAuthorizations(sweep_store=store)
    assert await search.run_once(asyncio.Event()) == 3
    assert await search.run_once(asyncio.Event()) == 0
    assert [0 <= await hours(desk, one) <= 24 for one in old] == [True] * 3
    assert await hours(desk, old[2]) <= 9.9  # its end is told
    assert await hours(desk, planned) == 24
    assert [await rests(desk, one) for one in failed] == [True] * 6
    await store.aclose()
    desk.provider.holds = lambda: Authorized("auth")
    assert await looks_at(desk, old[0]) == 24
    assert desk.provider.asked == ["look up auth"]


async def rests(desk: OperationDesk, payment_id: UUID) -> bool:
    """Return True if the sweep will not take the payment."""
    async with await psycopg.AsyncConnection.connect(desk.url) as connection:
        found = await connection.execute("SELECT sweep_at IS NULL FROM payments WHERE id = %s", [payment_id])
        return await found.fetchall() == [(True,)]
