"""Charges that arrive after their payment was closed: the later look-ups that find them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from okane.payment import LATE_LOOK_UPS, Status
from okane.providers.base import Approved, Authorized, Declined, Unavailable, Unknown
from okane.store import Overview, SweepStore
from streams import Dead, Done
from tests.okane.charging import Desk, wake_up
from tests.okane.stored_payments import GRACE, LEASE, execute, expire_lease

EMPTY = dict.fromkeys(("critical", "default", "low"))
CLOSED_AS = {
    "cancel": Status.CANCELED,
    "expire": Status.CANCELED,
    "spent": Status.FAILED_FINAL,
    "declined": Status.FAILED_FINAL,
    "resolved": Status.FAILED_FINAL,
}


class Late(Desk):
    """A desk that can move the times in the rows, and sweep."""

    sweeps: SweepStore

    async def due(self) -> set[UUID]:
        return {one.payment_id for one in await self.sweeps.take_due(EMPTY, limit=10)}

    async def age(self, payment_id: UUID, by: timedelta) -> None:
        """Make it look as if the row had been written that much earlier."""
        columns = ("updated_at", "sweep_at", "retry_at", "lease_until", "called_at", "open_since", "expires_at")
        aged = ", ".join(f"{column} = {column} - %s" for column in columns)
        await execute(self.url, f"UPDATE payments SET {aged} WHERE id = %s", [*[by] * len(columns), payment_id])

    async def row(self, payment_id: UUID, columns: str) -> tuple[object, ...]:
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            cursor = await connection.execute(f"SELECT {columns} FROM payments WHERE id = %s", [payment_id])
            row = await cursor.fetchone()
            assert row is not None
            return row

    async def due_in(self, payment_id: UUID) -> timedelta | None:
        """When it is looked up again, counted from its close."""
        [delay] = await self.row(payment_id, "sweep_at - updated_at")
        assert delay is None or isinstance(delay, timedelta)
        return delay

    async def held_up(self) -> UUID:
        """A payment whose first call is held up on its way: it timed out, and its look-up knows nothing yet."""
        payment_id = await self.accepted()
        self.provider.charges = lambda: Unknown("timed out")
        await self.charge(wake_up(payment_id))
        await self.age(payment_id, timedelta(hours=1))
        assert await self.status(payment_id) is Status.UNKNOWN
        return payment_id

    async def closed(self, how: str) -> UUID:
        """A payment whose first call is held up, and that was closed meanwhile."""
        payment_id = await self.held_up()
        self.provider.charges = lambda: Unavailable("HTTP 503", retry_after=timedelta(0))
        match how:
            case "cancel":
                await self.charge(wake_up(payment_id))
                await self.store.cancel(payment_id, account_id="default", actor="test")
            case "expire":
                await self.charge(wake_up(payment_id))
                await execute(self.url, "UPDATE payments SET expires_at = now() WHERE id = %s", [payment_id])
                await self.charge(wake_up(payment_id))
            case "spent":
                await self.charge(wake_up(payment_id))
                await self.charge(wake_up(payment_id))
            case "declined":
                self.provider.charges = lambda: Declined("no_money")
                await self.charge(wake_up(payment_id))
            case "resolved":
                await self.store.bury(payment_id, reason="poison")
                await self.store.resolve(
                    payment_id,
                    account_id="default",
                    decision=Status.FAILED_FINAL,
                    reason="the provider says no",
                    provider_ref=None,
                    actor="test",
                )
        assert await self.status(payment_id) is CLOSED_AS[how]
        self.provider.asked.clear()
        return payment_id

    async def later(self, payment_id: UUID) -> object:
        """The next planned look-up, run as the sweep has it run."""
        delay = await self.due_in(payment_id)
        assert delay is not None
        await self.age(payment_id, delay)
        assert await self.due() == {payment_id}
        return await self.charge(wake_up(payment_id))


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Late]:
    async with Late.over(database_url, look_up_delays=(timedelta(seconds=5), timedelta(hours=1))) as late:
        late.sweeps = SweepStore(database_url, grace=GRACE)
        yield late
        await late.sweeps.aclose()


@pytest.mark.parametrize("how", CLOSED_AS)
async def test_a_charge_that_arrives_after_the_close_goes_to_a_human(desk: Late, how: str) -> None:
    payment_id = await desk.closed(how)
    desk.provider.look_ups = lambda: Approved("ch_late")
    reason = f"charged after it was closed as {CLOSED_AS[how]}"
    assert await desk.later(payment_id) == Dead(reason)
    assert desk.provider.asked == [f"look up {payment_id}"]
    payment = await desk.store.get(payment_id, account_id="default")
    assert (payment.status, payment.provider_ref) == (Status.NEEDS_REVIEW, "ch_late")
    last = (await desk.store.events(payment_id))[-1]
    assert (last.event, last.status, last.call) == ("late_result", Status.NEEDS_REVIEW, "look_up")
    assert reason in (last.reason or "")
    assert desk.metrics.late_charges.labels("scripted")._value.get() == 1
    assert await desk.due_in(payment_id) is None
    assert await desk.row(payment_id, "dead_at IS NOT NULL") == (True,)


@pytest.mark.parametrize("how", CLOSED_AS)
async def test_it_is_looked_up_after_each_of_the_times_and_then_no_more(desk: Late, how: str) -> None:
    payment_id = await desk.closed(how)
    for delay in LATE_LOOK_UPS:
        assert await desk.due_in(payment_id) == delay
        assert await desk.later(payment_id) == Done()
    assert await desk.due_in(payment_id) is None
    assert desk.provider.asked == [f"look up {payment_id}"] * len(LATE_LOOK_UPS)
    assert await desk.status(payment_id) is CLOSED_AS[how]
    assert desk.metrics.late_charges.labels("scripted")._value.get() == 0


async def test_times_that_have_passed_meanwhile_are_not_made_up_for(desk: Late) -> None:
    payment_id = await desk.closed("cancel")
    await desk.age(payment_id, timedelta(hours=2))
    assert await desk.due() == {payment_id}
    assert await desk.charge(wake_up(payment_id)) == Done()
    assert await desk.due_in(payment_id) == LATE_LOOK_UPS[-1]


async def test_an_answer_that_is_written_late_leaves_out_no_look_up(desk: Late) -> None:
    payment_id = await desk.closed("cancel")
    await desk.age(payment_id, LATE_LOOK_UPS[1])
    assert await desk.due() == {payment_id}
    taken = await desk.store.begin_late_look_up(payment_id, again=[LEASE])
    assert taken is not None
    begun_at = taken.begun_at - timedelta(hours=30)  # Postgres is away meanwhile
    await desk.age(payment_id, timedelta(hours=30))
    await desk.store.plan_late_look_up(taken.payment, begun_at=begun_at)
    assert await desk.row(payment_id, "sweep_at <= now()") == (True,)  # one was due meanwhile: it is made at once
    assert await desk.later(payment_id) == Done()
    assert await desk.due_in(payment_id) is None


async def test_a_call_of_a_dead_worker_is_one_that_may_be_on_its_way(desk: Late) -> None:
    payment_id = await desk.accepted()
    await desk.store.claim(payment_id)
    await expire_lease(desk.url, payment_id)
    desk.provider.charges = lambda: Declined("no_money")
    await desk.charge(wake_up(payment_id))
    assert await desk.status(payment_id) is Status.FAILED_FINAL
    assert await desk.due_in(payment_id) == LATE_LOOK_UPS[0]


Close = Callable[[Late, UUID], Awaitable[object]]


async def _canceled_at_once(desk: Late, payment_id: UUID) -> None:
    await desk.store.cancel(payment_id, account_id="default", actor="test")


async def _declined(desk: Late, payment_id: UUID) -> None:
    desk.provider.charges = lambda: Declined("no_money")
    await desk.charge(wake_up(payment_id))


async def _refused_then_declined(desk: Late, payment_id: UUID) -> None:
    desk.provider.charges = lambda: Unavailable("HTTP 503", retry_after=timedelta(0))
    await desk.charge(wake_up(payment_id))
    await _declined(desk, payment_id)


async def _spent(desk: Late, payment_id: UUID) -> None:
    desk.provider.charges = lambda: Unavailable("HTTP 503", retry_after=timedelta(0))
    await desk.charge(wake_up(payment_id))
    await desk.charge(wake_up(payment_id))


async def _canceled_after_a_refusal(desk: Late, payment_id: UUID) -> None:
    desk.provider.charges = lambda: Unavailable("HTTP 503", retry_after=timedelta(0))
    await desk.charge(wake_up(payment_id))
    await _canceled_at_once(desk, payment_id)


@pytest.mark.parametrize(
    "close", [_canceled_at_once, _declined, _refused_then_declined, _spent, _canceled_after_a_refusal]
)
async def test_a_payment_none_of_whose_calls_can_be_on_its_way_is_not_looked_up_again(desk: Late, close: Close) -> None:
    payment_id = await desk.accepted()
    await close(desk, payment_id)
    assert await desk.status(payment_id) in (Status.CANCELED, Status.FAILED_FINAL)
    assert await desk.due_in(payment_id) is None


@pytest.mark.parametrize("answer", [Unavailable("HTTP 503"), Unknown("timed out")])
async def test_a_look_up_without_an_answer_is_repeated_until_there_is_one(
    desk: Late, answer: Unavailable | Unknown
) -> None:
    payment_id = await desk.closed("cancel")
    desk.provider.look_ups = lambda: answer
    for _ in range(3):
        assert await desk.later(payment_id) == Done()
        assert await desk.status(payment_id) is Status.CANCELED
    desk.provider.look_ups = lambda: Approved("ch_late")
    assert isinstance(await desk.later(payment_id), Dead)
    assert await desk.status(payment_id) is Status.NEEDS_REVIEW


async def test_a_look_up_that_no_one_answers_for_a_day_goes_to_a_human(desk: Late) -> None:
    payment_id = await desk.closed("spent")
    desk.provider.look_ups = lambda: Unknown("timed out")
    await desk.later(payment_id)
    await desk.age(payment_id, timedelta(hours=24))
    desk.provider.asked.clear()
    assert await desk.due() == {payment_id}
    outcome = await desk.charge(wake_up(payment_id))
    assert isinstance(outcome, Dead)
    assert "does not say" in outcome.reason
    assert desk.provider.asked == []
    assert await desk.status(payment_id) is Status.NEEDS_REVIEW


@pytest.mark.parametrize(
    "find", [Unknown("the provider has another amount under this key", at_once=True), Authorized("ch_held")]
)
async def test_a_find_that_only_a_human_can_judge_goes_to_one_at_once(desk: Late, find: Unknown | Authorized) -> None:
    payment_id = await desk.closed("declined")
    await desk.age(payment_id, timedelta(minutes=1))
    await desk.due()
    desk.provider.look_ups = lambda: find
    assert isinstance(await desk.charge(wake_up(payment_id)), Dead)
    assert await desk.status(payment_id) is Status.NEEDS_REVIEW


async def test_a_worker_that_dies_over_the_look_up_leaves_it_to_be_done_again(desk: Late) -> None:
    payment_id = await desk.closed("cancel")
    delay = await desk.due_in(payment_id)
    assert delay is not None
    await desk.age(payment_id, delay)
    assert await desk.due() == {payment_id}
    assert await desk.store.begin_late_look_up(payment_id, again=[LEASE]) is not None  # and dies here
    assert await desk.charge(wake_up(payment_id, deliveries=2)) == Done()
    assert desk.provider.asked == []  # another worker may hold it
    await desk.age(payment_id, LEASE)
    assert await desk.due() == {payment_id}
    desk.provider.look_ups = lambda: Approved("ch_late")
    assert isinstance(await desk.charge(wake_up(payment_id)), Dead)


async def test_a_wake_up_that_comes_before_its_time_looks_nothing_up(desk: Late) -> None:
    payment_id = await desk.closed("cancel")
    assert await desk.charge(wake_up(payment_id)) == Done()
    assert desk.provider.asked == []
    assert await desk.due_in(payment_id) == LATE_LOOK_UPS[0]


async def test_many_wake_ups_at_once_look_it_up_once(desk: Late) -> None:
    payment_id = await desk.closed("cancel")
    desk.provider.look_ups = lambda: Approved("ch_late")
    await desk.age(payment_id, LATE_LOOK_UPS[0])
    await desk.due()
    for _ in range(3):
        await desk.charge(wake_up(payment_id))
    assert len(desk.provider.asked) == 1
    assert [event.event for event in await desk.store.events(payment_id)].count("late_result") == 1


async def test_a_find_that_is_written_twice_is_one_event(desk: Late) -> None:
    payment_id = await desk.closed("cancel")
    desk.provider.look_ups = lambda: Approved("ch_late")
    await desk.later(payment_id)
    payment = await desk.store.get(payment_id, account_id="default")
    assert isinstance(await desk.charge._late_look_ups._found(payment, "ch_late", timedelta(0)), Dead)
    assert [event.event for event in await desk.store.events(payment_id)].count("late_result") == 1


async def test_a_manual_retry_takes_the_place_of_the_look_ups(desk: Late) -> None:
    payment_id = await desk.closed("spent")
    await desk.store.retry(payment_id, account_id="default", actor="test")
    desk.provider.charges = lambda: Approved("ch_first")
    assert await desk.charge(wake_up(payment_id)) == Done()
    assert desk.provider.asked == [f"charge {payment_id}"]  # under the same key: a charge that arrived is found
    assert await desk.status(payment_id) is Status.SUCCESS
    assert await desk.due_in(payment_id) is None


async def test_after_a_retry_the_provider_has_its_whole_time_to_answer_again(desk: Late) -> None:
    payment_id = await desk.closed("spent")
    desk.provider.look_ups = lambda: Unknown("timed out")
    await desk.later(payment_id)
    await desk.age(payment_id, timedelta(hours=24))
    await desk.store.retry(payment_id, account_id="default", actor="test")
    await desk.store.cancel(payment_id, account_id="default", actor="test")
    assert await desk.later(payment_id) == Done()
    assert await desk.status(payment_id) is Status.CANCELED


async def test_a_find_after_a_manual_retry_is_kept_and_looked_up_before_anything_is_charged(desk: Late) -> None:
    payment_id = await desk.closed("spent")
    before = await desk.store.get(payment_id, account_id="default")
    await desk.store.retry(payment_id, account_id="default", actor="test")
    assert await desk.charge._late_look_ups._found(before, "ch_late", timedelta(0)) == Done()
    assert await desk.status(payment_id) is Status.PENDING
    desk.provider.look_ups = lambda: Approved("ch_late")
    await desk.charge(wake_up(payment_id))
    assert desk.provider.asked == [f"look up {payment_id}"]
    assert await desk.status(payment_id) is Status.SUCCESS


async def test_a_find_that_a_manual_retry_found_as_well_is_a_success(desk: Late) -> None:
    payment_id = await desk.closed("spent")
    before = await desk.store.get(payment_id, account_id="default")
    await desk.store.retry(payment_id, account_id="default", actor="test")
    desk.provider.charges = lambda: Approved("ch_late")
    await desk.charge(wake_up(payment_id))
    assert await desk.charge._late_look_ups._found(before, "ch_late", timedelta(0)) == Done()
    assert await desk.status(payment_id) is Status.SUCCESS
    assert desk.metrics.late_charges.labels("scripted")._value.get() == 0


async def test_an_answer_for_a_payment_that_has_changed_plans_nothing(desk: Late) -> None:
    payment_id = await desk.closed("spent")
    before = await desk.store.get(payment_id, account_id="default")
    await desk.store.retry(payment_id, account_id="default", actor="test")
    [planned] = await desk.row(payment_id, "sweep_at")
    await desk.store.plan_late_look_up(before, begun_at=before.updated_at)
    assert not await desk.store.fail_late_look_up(before, reason="too long")
    assert await desk.row(payment_id, "sweep_at, status") == (planned, "pending")


async def test_after_a_retry_that_fails_too_the_look_ups_begin_anew(desk: Late) -> None:
    payment_id = await desk.closed("spent")
    await desk.later(payment_id)
    await desk.store.retry(payment_id, account_id="default", actor="test")
    desk.provider.charges = lambda: Declined("no_money")
    await desk.charge(wake_up(payment_id))
    assert await desk.status(payment_id) is Status.FAILED_FINAL
    assert await desk.due_in(payment_id) == LATE_LOOK_UPS[0]


async def test_what_is_closed_is_neither_a_repair_nor_overdue_nor_open(desk: Late) -> None:
    payment_id = await desk.closed("cancel")
    await desk.age(payment_id, timedelta(hours=30))
    overview = Overview(desk.url)
    assert await overview.oldest_due() == timedelta(0)
    assert await overview.count_waiting() == {Status.CANCELED: 1}
    await overview.aclose()
    [wake] = await desk.sweeps.take_due(EMPTY, limit=10)
    assert wake.scheduled
