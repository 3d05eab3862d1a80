"""Stored notices over a real Postgres: each once, and what they make due."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from okane.errors import StoreUnavailable
from okane.payment import CLOSED_UNCHARGED, LEGACY_PROVIDER, Status
from okane.store import Claim, UsableProvider
from okane.store.provider_events import TakenEvent
from tests.okane.notice_books import STRIPE, Books, books, event, take_one
from tests.okane.stored_payments import accept_one, claimed, execute, new, settlement

__all__ = ["books"]

OPEN = (Status.UNKNOWN, Status.REQUIRES_ACTION, Status.SUBMITTED)


@pytest.mark.parametrize("status", OPEN)
async def test_an_open_payment_is_due_at_once_and_changes_in_nothing_else(books: Books, status: Status) -> None:
    payment = await books.payment(status)
    taken = await take_one(books, event(payment.id))
    assert taken.result == "taken"
    assert taken.wake_up is not None
    assert (taken.wake_up.payment_id, taken.wake_up.lane) == (payment.id, "low")
    after = await books.payments.get(payment.id, account_id="default")
    assert (after.status, after.version, after.attempts, after.provider_ref) == (status, 2, 1, None)
    assert after.attempt_ref == "pi_1"
    claim = await claimed(books.payments, payment.id)
    assert claim.look_up_first
    assert claim.payment.provider == STRIPE
    assert await books.open_events() == set()


@pytest.mark.parametrize("status", OPEN)
async def test_the_sweep_finds_it_after_the_grace_if_its_wake_up_is_lost(books: Books, status: Status) -> None:
    payment = await books.payment(status)
    assert (await take_one(books, event(payment.id))).wake_up is not None
    assert await books.due() == set()
    assert await books.row(payment.id, "sweep_at - now() <= interval '10 s'", "sweeps") == (True, 0)
    await execute(books.url, "UPDATE payments SET sweep_at = sweep_at - interval '10 s'", [])
    assert await books.due() == {payment.id}


async def test_a_payment_whose_row_names_no_provider_had_the_one_called_http(books: Books) -> None:
    payment = await books.payment(Status.UNKNOWN)
    await execute(books.url, "UPDATE payments SET provider = NULL, pinned = NULL", [])
    other = await take_one(books, event(payment.id, "evt_other"))
    assert (other.result, other.wake_up) == ("unmatched", None)
    taken = await take_one(books, event(payment.id), LEGACY_PROVIDER)
    assert (taken.result, taken.wake_up is None) == ("taken", False)


async def test_a_notice_in_the_claim_of_a_payment_whose_row_names_no_provider_wakes_it_later(books: Books) -> None:
    payment = await books.payment(Status.PROCESSING)
    await execute(books.url, "UPDATE payments SET provider = NULL, pinned = NULL", [])
    assert await take_one(books, event(payment.id), LEGACY_PROVIDER) == TakenEvent("taken")
    await execute(books.url, "UPDATE payments SET status = 'unknown', rare_status = 'unknown'", [])
    assert [one.payment_id for one in await books.events.wake_noticed()] == [payment.id]


async def test_the_look_up_of_a_notice_puts_off_no_poll(books: Books) -> None:
    payment = await books.payment(Status.SUBMITTED)
    for number in range(3):
        await take_one(books, event(payment.id, f"evt_{number}"))
        await take_one(books, event(payment.id, f"evt_{number}_again"))  # both wake it once
        claim = await claimed(books.payments, payment.id)
        assert claim.look_ups == 0
        outcome = settlement(claim.payment, Status.SUBMITTED, provider=STRIPE, delay=timedelta(hours=1))
        await books.payments.settle(outcome)
    await execute(books.url, "UPDATE payments SET retry_at = now()", [])
    assert (await claimed(books.payments, payment.id)).look_ups == 1


async def test_the_second_delivery_of_a_notice_changes_nothing(books: Books) -> None:
    payment = await books.payment(Status.SUBMITTED)
    await take_one(books, event(payment.id))
    claim = await claimed(books.payments, payment.id)
    await books.payments.settle(
        settlement(claim.payment, Status.SUBMITTED, provider=STRIPE, delay=timedelta(minutes=5))
    )
    before = await books.row(payment.id, "p.*")
    assert await take_one(books, event(payment.id)) == TakenEvent("repeated")
    assert await books.row(payment.id, "p.*") == before


async def test_the_same_notice_twice_in_one_webhook_counts_once(books: Books) -> None:
    payment = await books.payment(Status.SUBMITTED)
    first, second, other = await books.events.take(
        STRIPE, [event(payment.id), event(payment.id), event(payment.id, "evt_2")]
    )
    assert (first.result, second.result, other.result) == ("taken", "repeated", "taken")
    assert len(await books.rows("SELECT 1 FROM provider_events")) == 2


async def test_two_providers_may_use_the_same_event_id(books: Books) -> None:
    payment = await books.payment(Status.SUBMITTED)
    assert (await take_one(books, event(None), "payu")).result == "unmatched"
    assert (await take_one(books, event(payment.id))).result == "taken"


@pytest.mark.parametrize("status", OPEN)
async def test_a_notice_of_another_provider_leaves_the_payment_alone(books: Books, status: Status) -> None:
    payment = await books.payment(status)
    before = await books.row(payment.id, "p.*")
    assert await take_one(books, event(payment.id), "payu") == TakenEvent("unmatched")
    assert await books.row(payment.id, "p.*") == before
    assert await books.open_events() == set()
    assert await books.events.wake_noticed() == []


async def test_a_notice_about_a_payment_that_was_never_charged_leaves_it_alone(books: Books) -> None:
    payment_id = (await accept_one(books.payments, new())).payment.id
    before = await books.row(payment_id, "p.*")
    assert await take_one(books, event(payment_id)) == TakenEvent("unmatched")
    assert await books.row(payment_id, "p.*") == before


@pytest.mark.parametrize("payment_id", [None, uuid4()])
async def test_a_notice_without_a_payment_is_stored_and_done(books: Books, payment_id: UUID | None) -> None:
    assert await take_one(books, event(payment_id)) == TakenEvent("unmatched")
    assert await books.rows("SELECT event_id, payment_id FROM provider_events") == [("evt_1", payment_id)]
    assert await books.open_events() == set()


@pytest.mark.parametrize("status", [Status.SUCCESS, Status.NEEDS_REVIEW])
async def test_a_payment_at_rest_is_neither_changed_nor_locked(books: Books, status: Status) -> None:
    payment = await books.payment(status)
    before = await books.row(payment.id, "xmax", "p.*")
    assert await take_one(books, event(payment.id)) == TakenEvent("taken")
    assert await books.row(payment.id, "xmax", "p.*") == before
    assert await books.open_events() == set()


async def test_a_closed_payment_is_looked_up_late(books: Books) -> None:
    payment = await books.payment(Status.FAILED_FINAL)
    assert await books.row(payment.id, "sweep_at") == (None,)
    assert await take_one(books, event(payment.id)) == TakenEvent("taken")
    assert not await books.begin_late(payment.id)  # only a wake-up of the sweep begins it
    assert await books.due() == {payment.id}
    assert await books.begin_late(payment.id)
    after = await books.payments.get(payment.id, account_id="default")
    assert (after.status, after.version) == (Status.FAILED_FINAL, payment.version)


async def test_a_canceled_payment_is_looked_up_late(books: Books) -> None:
    payment = await books.payment(Status.FAILED_RETRYABLE)
    canceled = await books.payments.cancel(payment.id, account_id="default", actor="test")
    assert canceled.status in CLOSED_UNCHARGED
    assert await take_one(books, event(payment.id)) == TakenEvent("taken")
    assert await books.due() == {payment.id}


async def test_a_refusal_of_a_closed_payment_is_no_news(books: Books) -> None:
    payment = await books.payment(Status.FAILED_FINAL)
    assert await take_one(books, event(payment.id, is_refusal=True)) == TakenEvent("taken")
    assert await books.due() == set()


async def test_a_refusal_wakes_an_open_payment(books: Books) -> None:
    payment = await books.payment(Status.REQUIRES_ACTION)
    assert (await take_one(books, event(payment.id, is_refusal=True))).wake_up is not None


async def test_a_closed_payment_whose_charge_is_known_is_not_looked_up(books: Books) -> None:
    payment = await books.payment(Status.NEEDS_REVIEW)
    await execute(books.url, "UPDATE payments SET provider_ref = 'pi_refunded' WHERE id = %s", [payment.id])
    await books.payments.resolve(
        payment.id,
        account_id=None,
        decision=Status.FAILED_FINAL,
        reason="refunded",
        provider_ref=None,
        actor="test",
    )
    assert await take_one(books, event(payment.id)) == TakenEvent("taken")
    assert await books.due() == set()


async def test_before_the_settle_a_notice_is_kept_until_its_holder_has_written(books: Books) -> None:
    payment = await books.payment(Status.PROCESSING)
    before = await books.row(payment.id, "p.*")
    assert await take_one(books, event(payment.id)) == TakenEvent("taken")
    assert await books.row(payment.id, "p.*") == before
    assert await books.events.wake_noticed() == []
    assert await books.open_events() == {"evt_1"}
    await books.payments.settle(
        settlement(payment, Status.SUBMITTED, provider=STRIPE, event="pending", delay=timedelta(minutes=1))
    )
    [woken] = await books.events.wake_noticed()
    assert (woken.payment_id, woken.lane) == (payment.id, "low")
    assert await books.open_events() == set()
    claim = await claimed(books.payments, payment.id)  # due now, and not in a minute
    assert claim.look_up_first
    assert claim.payment.attempt_ref == "pi_1"
    assert await books.events.wake_noticed() == []


@pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILED_FINAL])
async def test_a_holder_that_has_closed_the_payment_needs_no_notice(books: Books, status: Status) -> None:
    payment = await books.payment(Status.PROCESSING)
    await take_one(books, event(payment.id))
    more = {"event": "declined"} if status is Status.FAILED_FINAL else {}
    await books.payments.settle(settlement(payment, status, provider=STRIPE, **more))
    before = await books.row(payment.id, "retry_at", "sweep_at", "sweeps", "version")
    assert await books.events.wake_noticed() == []
    assert await books.open_events() == set()
    assert await books.row(payment.id, "retry_at", "sweep_at", "sweeps", "version") == before


async def test_a_planned_late_look_up_happens_at_once(books: Books) -> None:
    payment = await books.payment(Status.PROCESSING)
    await take_one(books, event(payment.id))
    await execute(
        books.url,
        "UPDATE payments SET status = 'failed_final', lease_until = NULL, sweep_at = now() + interval '1 min' WHERE id = %s",
        [payment.id],
    )
    assert await books.events.wake_noticed() == []
    assert await books.due() == {payment.id}
    assert await books.begin_late(payment.id)


async def test_a_dead_holders_notice_stays_until_the_next_holder_has_written(books: Books) -> None:
    payment = await books.payment(Status.PROCESSING)
    await take_one(books, event(payment.id))
    await execute(books.url, "UPDATE payments SET lease_until = now() WHERE id = %s", [payment.id])
    claim = await claimed(books.payments, payment.id)
    assert await books.events.wake_noticed() == []
    await books.payments.settle(settlement(claim.payment, Status.UNKNOWN, provider=STRIPE, delay=timedelta(minutes=1)))
    assert [one.payment_id for one in await books.events.wake_noticed()] == [payment.id]


async def test_a_locked_payment_is_left_to_the_next_pass(books: Books) -> None:
    payment = await books.payment(Status.PROCESSING)
    await take_one(books, event(payment.id))
    await books.payments.settle(settlement(payment, Status.SUBMITTED, provider=STRIPE, delay=timedelta(minutes=1)))
    async with await psycopg.AsyncConnection.connect(books.url) as holder:
        await holder.execute("SELECT 1 FROM payments FOR UPDATE")
        assert await books.events.wake_noticed() == []
        assert await books.open_events() == {"evt_1"}
    assert len(await books.events.wake_noticed()) == 1


async def test_many_payments_in_work_do_not_hide_a_settled_one(books: Books) -> None:
    for number in range(20):
        busy = await books.payment(Status.PROCESSING, key=f"busy-{number}")
        await take_one(books, event(busy.id, f"evt_busy_{number}"))
    payment = await books.payment(Status.PROCESSING)
    await take_one(books, event(payment.id))
    await books.payments.settle(settlement(payment, Status.SUBMITTED, provider=STRIPE, delay=timedelta(minutes=1)))
    assert [one.payment_id for one in await books.events.wake_noticed(limit=1)] == [payment.id]


async def retried_after_a_decline(books: Books) -> Claim:
    payment = await books.payment(Status.FAILED_FINAL)
    retried = await books.payments.retry(payment.id, account_id="default", actor="test")
    assert retried.provider_key != str(payment.id)
    return await claimed(books.payments, payment.id)


async def test_a_late_notice_about_an_earlier_key_names_no_attempt(books: Books) -> None:
    claim = await retried_after_a_decline(books)
    payment = claim.payment
    await books.payments.settle(settlement(payment, Status.UNKNOWN, provider=STRIPE, delay=timedelta(minutes=1)))
    # Woken it is: a look-up harms nothing.
    for key in (None, str(payment.id), f"{payment.id}:99"):
        taken = await take_one(books, event(payment.id, f"evt_{key}", provider_ref="pi_old", provider_key=key))
        assert taken.wake_up is not None
        assert await books.row(payment.id, "attempt_ref") == (None,)
    await take_one(books, event(payment.id, "evt_new", provider_ref="pi_new", provider_key=payment.provider_key))
    assert await books.row(payment.id, "attempt_ref") == ("pi_new",)


async def test_a_notice_from_before_a_retry_names_no_attempt_after_it(books: Books) -> None:
    payment = await books.payment(Status.PROCESSING)
    await take_one(books, event(payment.id, provider_ref="pi_old"))
    await books.payments.settle(
        settlement(payment, Status.FAILED_FINAL, provider=STRIPE, event="declined", decline_code="card_declined")
    )
    await books.payments.retry(payment.id, account_id="default", actor="test")
    claim = await claimed(books.payments, payment.id)
    await books.payments.settle(settlement(claim.payment, Status.UNKNOWN, provider=STRIPE, delay=timedelta(minutes=1)))
    assert len(await books.events.wake_noticed()) == 1
    assert await books.row(payment.id, "attempt_ref") == (None,)


async def test_the_known_attempt_is_kept(books: Books) -> None:
    payment = await books.payment(Status.SUBMITTED)
    await execute(books.url, "UPDATE payments SET attempt_ref = 'pi_known' WHERE id = %s", [payment.id])
    await take_one(books, event(payment.id, provider_ref="pi_other"))
    assert await books.row(payment.id, "attempt_ref") == ("pi_known",)


async def test_a_notice_pins_a_payment_whose_call_seemed_to_do_nothing(books: Books) -> None:
    payment = await books.payment(Status.FAILED_RETRYABLE)
    before = await books.row(payment.id, "status", "retry_at", "sweep_at", "version")
    assert await take_one(books, event(payment.id)) == TakenEvent("taken")
    assert await books.row(payment.id, "status", "retry_at", "sweep_at", "version") == before
    assert await books.row(payment.id, "attempt_ref") == ("pi_1",)
    await execute(books.url, "UPDATE payments SET retry_at = now() WHERE id = %s", [payment.id])
    books.payments.usable_providers = lambda: (UsableProvider("payu"),)
    assert not isinstance(await books.payments.claim(payment.id), Claim)  # never at another provider


async def test_notices_of_several_payments_are_taken_in_one_transaction(books: Books) -> None:
    payments = [await books.payment(Status.SUBMITTED, key=f"k{number}") for number in range(5)]
    taken = await books.events.take(STRIPE, [event(one.id, f"evt_{one.id}") for one in reversed(payments)])
    assert [one.wake_up.payment_id for one in taken if one.wake_up is not None] == [
        one.id for one in reversed(payments)
    ]


async def test_old_notices_are_deleted_in_batches(books: Books) -> None:
    await books.events.take(STRIPE, [event(None, f"evt_{number}") for number in range(5)])
    await execute(
        books.url, "UPDATE provider_events SET received_at = now() - interval '31 d' WHERE event_id < 'evt_3'", []
    )
    month = timedelta(days=30)
    assert [await books.events.delete_old(month, limit=2) for _ in range(3)] == [2, 1, 0]
    assert await books.rows("SELECT event_id FROM provider_events ORDER BY 1") == [("evt_3",), ("evt_4",)]


async def test_a_notice_that_meets_a_claim_is_kept_for_its_holder(books: Books) -> None:
    payment = await books.payment(Status.SUBMITTED)
    async with await psycopg.AsyncConnection.connect(books.url) as claiming:
        await claiming.execute("UPDATE payments SET status = 'processing', lease_until = now() + interval '1 min'")
        taking = asyncio.ensure_future(take_one(books, event(payment.id)))
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        while not await books.rows(waiting):
            await asyncio.sleep(0.01)
    assert await taking == TakenEvent("taken")
    assert await books.open_events() == {"evt_1"}
    assert await books.row(payment.id, "status", "attempt_ref") == ("processing", None)


async def test_a_locked_payment_makes_the_provider_send_again(books: Books) -> None:
    payment = await books.payment(Status.SUBMITTED)
    async with await psycopg.AsyncConnection.connect(books.url) as holder:
        await holder.execute("SELECT 1 FROM payments FOR UPDATE")
        with pytest.raises(StoreUnavailable):
            await take_one(books, event(payment.id))
    assert await books.rows("SELECT 1 FROM provider_events") == []
    assert (await take_one(books, event(payment.id))).wake_up is not None


@pytest.mark.parametrize(
    ("is_refusal", "under_way", "is_due"), [(True, None, True), (False, None, None), (True, UUID(int=7), None)]
)
async def test_an_authorization_is_looked_up_if_a_notice_says_that_no_money_moved(
    books: Books, is_refusal: bool, under_way: UUID | None, is_due: bool | None
) -> None:
    """Stripe cancels what expires, and PayU does not tell when. While a capture or void is under way that one finds it."""
    payment = await books.payment(Status.AUTHORIZED)
    await execute(books.url, "UPDATE payments SET sweep_at = NULL, open_operation = %s", [under_way])
    taken = await take_one(books, event(payment.id, is_refusal=is_refusal))
    assert taken == TakenEvent("taken")
    assert await books.row(payment.id, "sweep_at <= now()", "status") == (is_due, Status.AUTHORIZED)
