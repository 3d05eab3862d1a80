"""The store of captures, voids and refunds against a real Postgres: never more than there is, one outcome per attempt."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from okane.errors import (
    IdempotencyKeyReused,
    OperationNotFound,
    OperationRefused,
    PaymentNotFound,
    StatusConflict,
    VersionConflict,
)
from okane.operation import Operation, OperationStatus
from okane.payment import Payment, Status
from okane.store import (
    PaymentStore,
    UsableProvider,
    operation_claims,
    operation_lists,
    operation_requests,
    operations,
)
from okane.store.operation_records import OperationClaim, OperationFilter, OperationRefusal, RequestedOperation
from okane.store.operations import OperationLists, OperationStore
from okane.store.prepared_statements import PreparedStatement
from okane.store.session import IN_ORDER, INDEX_ONLY
from okane.store.sweep import SweepStore
from tests.okane.stored_operations import (
    CAPTURE,
    REFUND,
    VOID,
    asked,
    assert_books_agree,
    authorized,
    charged,
    claim_of,
    done,
    outcome,
    rows,
)
from tests.okane.stored_payments import GRACE, LEASE, accept_one, execute, new, settlement

S = OperationStatus


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[OperationStore]:
    store = OperationStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    yield store
    await store.aclose()
    await assert_books_agree(database_url)


@pytest.fixture
async def lists(database_url: str) -> AsyncIterator[OperationLists]:
    lists = OperationLists(database_url)
    yield lists
    await lists.aclose()


async def now(payments: PaymentStore, payment: Payment) -> Payment:
    return await payments.get(payment.id, account_id="default")


async def events(payments: PaymentStore, payment: Payment) -> list[tuple[str, Status, UUID | None]]:
    return [(each.event, each.status, each.operation_id) for each in await payments.events(payment.id)]


async def refused(store: OperationStore, new: object) -> tuple[str, int | None]:
    with pytest.raises(OperationRefused) as refusal:
        await store.request(new)  # type: ignore[arg-type] # a request
    return refusal.value.code, refusal.value.limit


async def test_a_refund_is_reserved_then_succeeds(store: OperationStore, payments: PaymentStore) -> None:
    payment = await charged(payments)
    new = asked(payment.id, amount_minor=40, reason="returned", metadata={"order": "7"})
    requested = await store.request(new)
    assert requested.created
    assert requested.operation == await store.get(requested.operation.id, account_id="default")
    reserved = await now(payments, payment)
    assert (reserved.refund_reserved, reserved.amount_refunded, reserved.refundable_minor) == (40, None, 400)
    claim = await claim_of(store, requested.operation.id)
    assert (claim.operation.status, claim.operation.attempts, claim.payment.id) == (S.PROCESSING, 1, payment.id)
    assert await store.settle(outcome(claim.operation)) is not None
    refunded = await now(payments, payment)
    assert (refunded.refund_reserved, refunded.amount_refunded, refunded.status) == (40, 40, Status.SUCCESS)
    assert (await events(payments, payment))[-2:] == [
        ("refund_requested", Status.SUCCESS, requested.operation.id),
        ("refunded", Status.SUCCESS, requested.operation.id),
    ]
    told = await store.events(requested.operation.id)
    assert [each.event for each in told] == ["requested", "claimed", "success"]
    assert (await store.get(requested.operation.id)).provider_ref == "re_1"


async def test_a_capture_takes_a_part_and_releases_the_rest(store: OperationStore, payments: PaymentStore) -> None:
    payment = await authorized(payments)
    assert (payment.status, payment.attempt_ref, payment.provider_ref) == (Status.AUTHORIZED, "pi_1", None)
    assert payment.capture_before is not None
    requested = await store.request(asked(payment.id, CAPTURE, amount_minor=400))
    assert (await now(payments, payment)).open_operation == requested.operation.id
    claim = await claim_of(store, requested.operation.id)
    await store.settle(outcome(claim.operation, provider_ref=None))
    captured = await now(payments, payment)
    assert (captured.status, captured.amount_captured, captured.open_operation) == (Status.SUCCESS, 400, None)
    assert (captured.provider_ref, captured.refundable_minor) == ("pi_1", 400)
    assert (await events(payments, payment))[-1][:2] == ("captured", Status.SUCCESS)
    assert await refused(store, asked(payment.id, CAPTURE, "again")) == ("payment_not_authorized", None)
    assert await refused(store, asked(payment.id, REFUND, "refund", amount_minor=401)) == (
        "refund_exceeds_captured",
        400,
    )


async def test_a_void_cancels_the_payment(store: OperationStore, payments: PaymentStore, database_url: str) -> None:
    payment = await authorized(payments)
    await done(store, asked(payment.id, VOID))
    voided = await now(payments, payment)
    assert (voided.status, voided.provider_ref, voided.open_operation) == (Status.CANCELED, None, None)
    assert (await events(payments, payment))[-1][:2] == ("voided", Status.CANCELED)
    assert await refused(store, asked(payment.id, CAPTURE, "late")) == ("payment_not_authorized", None)
    assert await rows(database_url, "SELECT sweep_at FROM payments") == [(None,)]


async def test_a_capture_that_fails_leaves_the_payment_authorized(
    store: OperationStore, payments: PaymentStore
) -> None:
    payment = await authorized(payments)
    failed = await done(store, asked(payment.id, CAPTURE), S.FAILED_FINAL, event="declined", decline_code="expired")
    assert failed.decline_code == "expired"
    kept = await now(payments, payment)
    assert (kept.status, kept.open_operation) == (Status.AUTHORIZED, None)
    assert (await events(payments, payment))[-1][:2] == ("capture_failed", Status.AUTHORIZED)
    await done(store, asked(payment.id, CAPTURE, "second"))
    assert (await now(payments, payment)).status is Status.SUCCESS


async def test_requests_beyond_the_limits_change_nothing(
    store: OperationStore, payments: PaymentStore, database_url: str
) -> None:
    payment, held = await charged(payments), await authorized(payments, "held")
    pending = (await accept_one(payments, new("pending"))).payment
    before = await rows(database_url, "SELECT * FROM payments ORDER BY id")
    assert await refused(store, asked(payment.id, amount_minor=441)) == ("refund_exceeds_captured", 440)
    assert await refused(store, asked(payment.id, currency="EUR")) == ("currency_mismatch", None)
    assert await refused(store, asked(payment.id, CAPTURE)) == ("payment_not_authorized", None)
    assert await refused(store, asked(held.id, CAPTURE, amount_minor=441)) == ("capture_exceeds_authorized", 440)
    assert await refused(store, asked(held.id)) == ("payment_not_captured", None)
    assert await refused(store, asked(pending.id, VOID)) == ("payment_not_authorized", None)
    for foreign in (asked(payment.id, account_id="other"), asked(uuid4())):
        with pytest.raises(PaymentNotFound):
            await store.request(foreign)
    assert await store.void_expired(held.id) is None
    assert await rows(database_url, "SELECT * FROM payments ORDER BY id") == before
    assert await rows(database_url, "SELECT id FROM operations UNION ALL SELECT id FROM idempotency_keys") == []


async def test_only_one_capture_or_void_is_under_way(store: OperationStore, payments: PaymentStore) -> None:
    payment = await authorized(payments)
    first = await store.request(asked(payment.id, CAPTURE))
    assert await refused(store, asked(payment.id, VOID, "void")) == ("operation_in_progress", None)
    claim = await claim_of(store, first.operation.id)
    await store.settle(outcome(claim.operation, S.UNKNOWN, delay=timedelta(0)))
    assert await refused(store, asked(payment.id, CAPTURE, "other")) == ("operation_in_progress", None)


async def test_a_repeat_returns_the_operation_as_it_is_now(store: OperationStore, payments: PaymentStore) -> None:
    payment = await charged(payments)
    refund = await done(store, asked(payment.id))  # all of it: a second one would be refused
    again = await store.request(asked(payment.id))
    assert (again.created, again.operation) == (False, refund)
    other = await charged(payments, "other")
    for different in (asked(payment.id, fingerprint=b"g" * 32), asked(other.id, fingerprint=b"g" * 32)):
        with pytest.raises(IdempotencyKeyReused) as reused:
            await store.request(different)
        assert (reused.value.payment_id, reused.value.what) == (refund.id, "refund")
    assert (await store.request(asked(other.id, key="op 2"))).created


async def test_an_operator_uses_the_keys_of_the_payments_account(store: OperationStore, payments: PaymentStore) -> None:
    payment = await charged(payments)
    first = await store.request(asked(payment.id, account_id=None), actor="operator")
    again = await store.request(asked(payment.id))
    assert (again.created, again.operation.id) == (False, first.operation.id)
    assert [each.actor for each in await store.events(first.operation.id)] == ["operator"]


@pytest.mark.parametrize("seed", range(3))
async def test_racing_refunds_never_exceed_what_was_captured(
    database_url: str, payments: PaymentStore, seed: int
) -> None:
    """Three processes ask for 150 refunds of three payments at once, some twice; then all end, and some come back."""
    dice = random.Random(seed)
    paid = [await charged(payments, f"key {number}", amount_minor=1_000) for number in range(3)]
    stores = [OperationStore(database_url, actor=f"test {number}", lease=LEASE, grace=GRACE) for number in range(3)]
    news = [
        asked(dice.choice(paid).id, key=f"op {number}", amount_minor=dice.choice((None, 1, 30, 90, 400)))
        for number in range(120)
    ]
    news += dice.choices(news, k=30)
    dice.shuffle(news)
    answers = await asyncio.gather(*(dice.choice(stores).request(one) for one in news), return_exceptions=True)
    await assert_books_agree(database_url)
    made = [one for one in answers if isinstance(one, RequestedOperation)]
    assert all(isinstance(one, RequestedOperation | OperationRefused) for one in answers)
    refunds = list({one.operation.id: one.operation for one in made if one.created}.values())
    assert len([one for one in made if one.created]) == len(refunds) > 3
    for payment in paid:
        reserved = sum(one.amount_minor for one in refunds if one.payment_id == payment.id)
        assert reserved == (await now(payments, payment)).refund_reserved
        assert reserved <= 1_000
    claims = await asyncio.gather(*(dice.choice(stores).claim(one.id) for one in refunds for _ in range(2)))
    granted = [one for one in claims if isinstance(one, OperationClaim)]
    assert len(granted) == len(refunds)
    ends = [dice.choice((S.SUCCESS, S.FAILED_FINAL, S.UNKNOWN)) for _ in granted]
    await asyncio.gather(
        *(
            dice.choice(stores).settle(outcome(one.operation, end, delay=LEASE if end is S.UNKNOWN else None))
            for one, end in zip(granted, ends, strict=True)
        )
    )
    await assert_books_agree(database_url)
    back = [one.operation for one, end in zip(granted, ends, strict=True) if end is S.SUCCESS and dice.random() < 0.5]
    await asyncio.gather(*(dice.choice(stores).record_late(outcome(one, S.FAILED_FINAL), once=True) for one in back))
    await assert_books_agree(database_url)
    for each in stores:
        await each.aclose()


async def test_a_batch_may_hold_several_operations_of_one_payment(
    store: OperationStore, payments: PaymentStore, database_url: str
) -> None:
    payment, other = await charged(payments), await charged(payments, "other")
    news = [asked(payment.id, key=f"op {number}", amount_minor=number) for number in range(1, 6)]
    requested = await asyncio.gather(*map(store.request, [*news, asked(other.id, key="of other")]))
    claims = await asyncio.gather(*(claim_of(store, one.operation.id) for one in requested))
    await asyncio.gather(
        *(
            store.settle(outcome(one.operation, S.FAILED_FINAL if one.operation.amount_minor == 3 else S.SUCCESS))
            for one in claims
        )
    )
    refunded = await now(payments, payment)
    assert (refunded.refund_reserved, refunded.amount_refunded) == (12, 12)
    assert [each.version for each in await payments.events(payment.id)] == list(range(refunded.version + 1))
    assert (await now(payments, other)).amount_refunded == 440
    ended = [event for event, _, _ in await events(payments, payment)][-5:]
    assert sorted(ended) == ["refund_failed", *["refunded"] * 4]


async def test_an_outcome_is_written_under_its_attempt_alone(
    store: OperationStore, payments: PaymentStore, database_url: str
) -> None:
    payment = await charged(payments)
    requested = await store.request(asked(payment.id))
    lost = await claim_of(store, requested.operation.id)
    assert isinstance(await store.claim(requested.operation.id), OperationRefusal)
    await execute(database_url, "UPDATE operations SET lease_until = now() WHERE id = %s", [requested.operation.id])
    holder = await claim_of(store, requested.operation.id)
    assert (holder.look_up_first, holder.operation.attempts, holder.operation.retries) == (True, 2, 1)
    assert await store.settle(outcome(lost.operation)) is None
    assert not await store.renew(lost.operation.id, 1)
    assert await store.renew(holder.operation.id, 2)
    assert await store.record_late(outcome(lost.operation)) is S.PROCESSING
    written = outcome(holder.operation)
    assert await store.settle(written) is not None
    assert await store.settle(written) is not None  # the first reply was lost
    assert (await now(payments, payment)).amount_refunded == 440
    # The attempt that lost it was declined: the refund that succeeded stays.
    assert await store.record_late(outcome(lost.operation, S.FAILED_FINAL)) is S.SUCCESS


async def test_a_late_answer_about_an_authorization_that_was_let_go_is_no_news(
    store: OperationStore, payments: PaymentStore
) -> None:
    """The worker that had asked for it stalled, another one found it, and a merchant has voided it since."""
    payment = await authorized(payments)
    await done(store, asked(payment.id, VOID))
    for ref, status in ((payment.attempt_ref, Status.CANCELED), ("another authorization", Status.NEEDS_REVIEW)):
        late = settlement(payment, Status.AUTHORIZED, event="authorized", attempt_ref=ref)
        assert await payments.record_late(late) is status


async def test_a_refund_that_comes_back_days_later_gives_its_reservation_back(
    store: OperationStore, payments: PaymentStore
) -> None:
    payment = await charged(payments)
    refund = await done(store, asked(payment.id))
    back = outcome(refund, S.FAILED_FINAL, event="declined", decline_code="account_closed", call="look_up")
    assert await store.record_late(back, once=True) is S.FAILED_FINAL
    assert await store.record_late(back, once=True) is S.FAILED_FINAL  # known: nothing changes
    paid = await now(payments, payment)
    assert (paid.refund_reserved, paid.amount_refunded) == (0, 0)
    assert (await events(payments, payment))[-1][:2] == ("refund_failed", Status.SUCCESS)
    again = await store.retry(refund.id, account_id="default", actor="someone")
    assert (again.status, again.provider_key) == (S.PENDING, f"{refund.id}:{again.version}")
    assert (await now(payments, payment)).refund_reserved == 440


async def test_money_that_moved_for_a_failed_refund_is_reserved_again(
    store: OperationStore, payments: PaymentStore
) -> None:
    payment = await charged(payments)
    refund = await done(store, asked(payment.id), S.FAILED_FINAL, event="spent")
    assert (await now(payments, payment)).refund_reserved == 0
    assert await store.record_late(outcome(refund), once=True) is S.NEEDS_REVIEW
    assert (await now(payments, payment)).refund_reserved == 440
    assert await refused(store, asked(payment.id, key="other")) == ("refund_exceeds_captured", 0)
    decided = await store.resolve(
        refund.id, account_id=None, decision=S.SUCCESS, reason="in the books", provider_ref=None, actor="operator"
    )
    assert decided.status is S.SUCCESS
    assert (await now(payments, payment)).amount_refunded == 440


async def test_what_a_decline_denied_and_has_moved_is_not_retried_after_its_review(
    store: OperationStore, payments: PaymentStore
) -> None:
    """The provider has both executed it and declined a repeat. A retry under a new key would move the money twice."""
    payment = await charged(payments)
    refund = await done(store, asked(payment.id), S.FAILED_FINAL, event="declined", decline_code="already_refunded")
    assert await store.record_late(outcome(refund), once=True) is S.NEEDS_REVIEW
    await store.resolve(
        refund.id, account_id=None, decision=S.FAILED_FINAL, reason="paid by hand", provider_ref=None, actor="operator"
    )
    with pytest.raises(StatusConflict):
        await store.retry(refund.id, account_id=None, actor="operator")


@pytest.mark.parametrize("decision", [S.SUCCESS, S.FAILED_FINAL])
async def test_a_decision_about_a_capture_changes_its_payment(
    store: OperationStore, payments: PaymentStore, decision: OperationStatus
) -> None:
    payment = await authorized(payments)
    requested = await store.request(asked(payment.id, CAPTURE))
    assert await store.bury(requested.operation.id, reason="poison")
    assert not await store.bury(requested.operation.id, reason="poison")
    assert (await now(payments, payment)).open_operation == requested.operation.id

    async def resolve(version: int | None = None) -> Operation:
        return await store.resolve(
            requested.operation.id,
            account_id="default",
            decision=decision,  # type: ignore[arg-type] # one of the two
            reason="seen",
            provider_ref=None,
            actor="operator",
            version=version,
        )

    with pytest.raises(VersionConflict):
        await resolve(version=7)
    assert (await resolve()).status is decision
    assert (await resolve()).status is decision
    status = (await now(payments, payment)).status
    assert status is (Status.SUCCESS if decision is S.SUCCESS else Status.AUTHORIZED)


async def test_a_capture_that_is_found_after_a_void_needs_a_review(
    store: OperationStore, payments: PaymentStore
) -> None:
    payment = await authorized(payments)
    capture = await done(store, asked(payment.id, CAPTURE), S.FAILED_FINAL, event="spent")
    await done(store, asked(payment.id, VOID, "void"))
    assert await store.record_late(outcome(capture), once=True) is S.NEEDS_REVIEW
    assert (await now(payments, payment)).status is Status.NEEDS_REVIEW
    assert (await events(payments, payment))[-1][:2] == ("late_result", Status.NEEDS_REVIEW)


@pytest.mark.parametrize("found_by", ["look-up of the capture", "record of the payment"])
async def test_no_more_than_the_part_of_a_found_capture_can_be_refunded_after_the_decision(
    found_by: str, store: OperationStore, payments: PaymentStore
) -> None:
    payment = await authorized(payments)
    capture = await done(store, asked(payment.id, CAPTURE, amount_minor=300), S.FAILED_FINAL, event="spent")
    await done(store, asked(payment.id, VOID, "void"))
    if found_by == "look-up of the capture":
        assert await store.record_late(outcome(capture), once=True) is S.NEEDS_REVIEW
    else:
        charged_late = settlement(
            payment, Status.SUCCESS, event="success", provider_ref="ch_late", attempt_ref="pi_late"
        )
        assert await payments.record_late(charged_late) is Status.NEEDS_REVIEW
    decided = await payments.resolve(
        payment.id, account_id=None, decision=Status.SUCCESS, reason="seen", provider_ref=None, actor="operator"
    )
    assert (decided.amount_captured, decided.refundable_minor) == (300, 300)
    with pytest.raises(OperationRefused, match="300 of the captured amount is left"):
        await store.request(asked(payment.id, key="too much", amount_minor=301))
    assert (await store.request(asked(payment.id, key="rest"))).operation.amount_minor == 300


async def test_an_open_refund_can_be_canceled(store: OperationStore, payments: PaymentStore) -> None:
    payment = await charged(payments)
    refund = (await store.request(asked(payment.id))).operation
    canceled = await store.cancel(refund.id, account_id="default", actor="someone")
    assert (canceled.status, (await now(payments, payment)).refund_reserved) == (S.CANCELED, 0)
    assert await store.cancel(refund.id, account_id="default", actor="someone") == canceled
    assert (await events(payments, payment))[-1][:2] == ("refund_canceled", Status.SUCCESS)
    with pytest.raises(StatusConflict, match="a refund that is canceled cannot be retried"):
        await store.retry(refund.id, account_id="default", actor="someone")
    with pytest.raises(OperationNotFound):
        await store.cancel(refund.id, account_id="other", actor="someone")
    held = await authorized(payments, "held")
    capture = (await store.request(asked(held.id, CAPTURE, "capture"))).operation
    with pytest.raises(StatusConflict, match="a capture that is pending cannot be canceled"):
        await store.cancel(capture.id, account_id="default", actor="someone")


async def test_a_retry_needs_room_for_its_reservation(store: OperationStore, payments: PaymentStore) -> None:
    payment = await charged(payments)
    refund = await done(store, asked(payment.id), S.FAILED_FINAL, event="spent")
    other = (await store.request(asked(payment.id, key="other", amount_minor=1))).operation
    with pytest.raises(OperationRefused) as refusal:
        await store.retry(refund.id, account_id="default", actor="someone")
    assert refusal.value.code == "refund_exceeds_captured"
    await store.cancel(other.id, account_id="default", actor="someone")
    assert (await store.retry(refund.id, account_id="default", actor="someone")).provider_key == str(refund.id)
    assert (await now(payments, payment)).refund_reserved == 440


async def test_an_authorization_that_is_about_to_end_is_voided(
    store: OperationStore, payments: PaymentStore, database_url: str
) -> None:
    sweeps = SweepStore(database_url, grace=GRACE)
    ends, lasts = await authorized(payments, "ends", ends_in=timedelta(0)), await authorized(payments, "lasts")
    [wake_up] = await sweeps.take_due({"low": None}, limit=10)
    assert (wake_up.payment_id, wake_up.scheduled) == (ends.id, True)
    void = await store.void_expired(ends.id)
    assert void is not None
    assert (void.kind, void.idempotency_key, void.amount_minor) == (VOID, None, 440)
    assert await store.void_expired(ends.id) is None
    assert await store.void_expired(lasts.id) is None
    claim = await claim_of(store, void.id)
    await store.settle(outcome(claim.operation, S.FAILED_FINAL, event="declined", reason="no such authorization"))
    unsure = await now(payments, ends)
    assert (unsure.status, unsure.last_error) == (Status.NEEDS_REVIEW, "no such authorization")
    assert await sweeps.take_due({"low": None}, limit=10) == []
    await sweeps.aclose()


async def test_the_sweep_takes_what_is_overdue_and_leaves_what_is_in_work(
    store: OperationStore, payments: PaymentStore, database_url: str
) -> None:
    payment = await charged(payments)
    idle, busy = [
        (await store.request(asked(payment.id, key=key, amount_minor=1))).operation for key in ("idle", "busy")
    ]
    await claim_of(store, busy.id)
    lanes = dict.fromkeys(("capture", "void", "refund"))
    assert await store.due(lanes, limit=10) == []
    await execute(database_url, "UPDATE operations SET sweep_at = now() WHERE account_id = %s", ["default"])
    assert [(one.operation_id, one.lane, one.scheduled) for one in await store.due(lanes, limit=10)] == [
        (idle.id, "refund", False)
    ]
    assert await store.due(lanes, limit=10) == []
    [(later,)] = await rows(database_url, "SELECT sweep_at > lease_until FROM operations WHERE status = 'processing'")
    assert later


async def test_a_provider_that_cannot_be_called_refuses_the_claim(
    store: OperationStore, payments: PaymentStore, database_url: str
) -> None:
    payment = await charged(payments)
    refund = (await store.request(asked(payment.id))).operation
    await execute(database_url, "INSERT INTO providers (name, mode) VALUES (%s, 'off')", ["http"])
    refusal = await store.claim(refund.id)
    assert refusal == OperationRefusal(S.PENDING, timedelta(seconds=30), no_provider=True)
    await execute(database_url, "UPDATE providers SET mode = 'drain' WHERE name = %s", ["http"])
    store.usable_providers = lambda: [UsableProvider("other")]
    unreachable = await store.claim(refund.id)
    assert isinstance(unreachable, OperationRefusal)
    assert unreachable.no_provider
    store.usable_providers = lambda: [UsableProvider("http", is_default=False)]
    assert isinstance(await store.claim(refund.id), OperationClaim)
    assert await store.claim(uuid4()) == OperationRefusal(None, timedelta(0))


async def test_a_refund_that_ended_in_doubt_is_looked_up_late(
    store: OperationStore, payments: PaymentStore, database_url: str
) -> None:
    payment = await charged(payments)
    refund = (await store.request(asked(payment.id))).operation
    claim = await claim_of(store, refund.id)
    await store.settle(outcome(claim.operation, S.UNKNOWN, delay=timedelta(0)))
    claim = await claim_of(store, refund.id)
    await store.settle(outcome(claim.operation, S.FAILED_FINAL, event="declined", decline_code="no"))
    assert await store.begin_late_look_up(refund.id, again=[LEASE]) is None
    await execute(database_url, "UPDATE operations SET sweep_at = now() WHERE id = %s", [refund.id])
    [wake_up] = await store.due({"refund": None}, limit=10)
    assert wake_up.scheduled
    refusal = await store.claim(refund.id)
    assert isinstance(refusal, OperationRefusal)
    assert refusal.look_up_late
    late = await store.begin_late_look_up(refund.id, again=[LEASE])
    assert late is not None
    assert (late.operation.id, late.payment.id) == (refund.id, payment.id)
    await store.plan_late_look_up(late.operation, begun_at=late.begun_at)
    [(is_planned,)] = await rows(database_url, "SELECT sweep_at > now() FROM operations")
    assert is_planned
    assert await store.fail_late_look_up(late.operation, reason="no answer")
    assert (await store.get(refund.id)).status is S.NEEDS_REVIEW
    assert (await now(payments, payment)).refund_reserved == 440


async def test_lists_page_through_an_accounts_operations(
    store: OperationStore, payments: PaymentStore, lists: OperationLists
) -> None:
    payment, other = await charged(payments), await charged(payments, "other")
    made = [
        (await store.request(asked(which.id, key=f"op {number}", amount_minor=1))).operation.id
        for number, which in enumerate((payment, other, payment, payment))
    ]
    assert [one.id for one in await lists.of_payment(payment.id, account_id="default")] == [made[0], *made[2:]]
    fresh = await charged(payments, "fresh")
    assert await lists.of_payment(fresh.id, account_id=None) == []
    with pytest.raises(PaymentNotFound):
        await lists.of_payment(payment.id, account_id="foreign")
    for wanted, expected in (
        (OperationFilter(), made[::-1]),
        (OperationFilter(ascending=True), made),
        (OperationFilter(payment_id=payment.id), [made[3], made[2], made[0]]),
        (OperationFilter(idempotency_key="op 1"), [made[1]]),
        (OperationFilter(kinds=frozenset({CAPTURE})), []),
        (OperationFilter(statuses=frozenset({S.PENDING}), currency="USD", kinds=frozenset({REFUND})), made[::-1]),
        (OperationFilter(statuses=frozenset({S.SUCCESS})), []),
    ):
        found, after = [], None
        while True:
            page = await lists.page(wanted, account_id="default", limit=2, after=after)
            found += [one.id for one in page.operations]
            if (after := page.after) is None:
                break
        assert found == expected, wanted
    assert (await lists.page(OperationFilter(), account_id="foreign", limit=2)).operations == []


PLANNED = {
    **operations.BATCHED,
    **operation_claims.STATEMENTS,
    **operation_requests.STATEMENTS,
    **{
        f"list: {name}": PreparedStatement.of(name, operation_lists.SQL[name].replace("{order}", "DESC"))
        for name in ("newest", "newest_of_payment", "of_key", "of_payment")
    },
}


@pytest.mark.parametrize("name", PLANNED)
async def test_no_statement_begins_with_all_rows(database_url: str, name: str) -> None:
    """Each is planned once for the life of a connection, perhaps while the tables are empty."""
    settings = IN_ORDER if name.startswith("list") else INDEX_ONLY
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        for setting, text in settings.items():
            await connection.execute(f"SET {setting} = '{text}'".encode())
        await connection.execute(b"PREPARE planned AS " + PLANNED[name].text)
        nulls = ", ".join(["NULL"] * len(PLANNED[name].encoders))
        explained = await connection.execute(f"EXPLAIN (FORMAT JSON) EXECUTE planned ({nulls})".encode())
        row = await explained.fetchone()
    assert row is not None
    scans = [node for node in nodes(row[0][0]["Plan"]) if "Relation Name" in node and "Scan" in node["Node Type"]]
    assert scans
    for scan in scans:
        assert "Index Cond" in scan or scan["Relation Name"] in ("providers", "webhook_accounts"), scan


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


async def test_final_outcomes_are_recorded_for_webhooks(
    store: OperationStore, payments: PaymentStore, database_url: str
) -> None:
    await execute(database_url, "INSERT INTO webhook_accounts VALUES (%s)", ["default"])
    payment, held = await charged(payments), await authorized(payments, "held")
    await rows(database_url, "DELETE FROM webhook_outbox RETURNING 1")
    await done(store, asked(payment.id, key="1", amount_minor=1))
    await done(store, asked(payment.id, key="2", amount_minor=1), S.FAILED_FINAL, event="declined")
    await store.request(asked(payment.id, key="3", amount_minor=1))
    await done(store, asked(held.id, CAPTURE, "4"), S.FAILED_FINAL, event="declined")
    await done(store, asked(held.id, CAPTURE, "5"))
    found = await rows(database_url, "SELECT type, payment_ids, versions FROM webhook_outbox ORDER BY xid")
    assert [(kind, ids[0], versions[0]) for kind, ids, versions in found] == [
        ("refund.succeeded", payment.id, 4),
        ("refund.failed", payment.id, 6),
        ("payment.capture_failed", held.id, 4),
        ("payment.succeeded", held.id, 6),
    ]


async def test_late_results_of_operations_are_recorded_and_a_new_review_as_such(
    store: OperationStore, payments: PaymentStore, database_url: str
) -> None:
    await execute(database_url, "INSERT INTO webhook_accounts VALUES (%s)", ["default"])
    payment, held = await charged(payments), await authorized(payments, "held")
    refund = await done(store, asked(payment.id), S.FAILED_FINAL, event="spent")
    captures = [await done(store, asked(held.id, CAPTURE, key), S.FAILED_FINAL, event="spent") for key in ("1", "2")]
    await done(store, asked(held.id, VOID, "void"))
    await rows(database_url, "DELETE FROM webhook_outbox RETURNING 1")
    for one in (refund, *captures):
        assert await store.record_late(outcome(one), once=True) is S.NEEDS_REVIEW
    assert await rows(database_url, "SELECT type, payment_ids[1] FROM webhook_outbox ORDER BY xid") == [
        ("payment.late_result", payment.id),
        ("payment.review_required", held.id),  # the void had let it go
        ("payment.late_result", held.id),
    ]


async def test_a_request_by_a_version_of_its_payment_is_refused_in_another(
    store: OperationStore, payments: PaymentStore
) -> None:
    payment, held = await charged(payments), await authorized(payments, "held")
    first = asked(payment.id, key="first", amount_minor=1, version=payment.version)
    made = await store.request(first)
    assert made.created
    assert await store.request(first) == dataclasses.replace(made, created=False)  # a double click
    with pytest.raises(VersionConflict, match="was decided by version 2, and is success in version 3"):
        await store.request(dataclasses.replace(first, idempotency_key="second"))
    await done(store, asked(held.id, CAPTURE, "failed"), S.FAILED_FINAL, event="declined")
    for kind in (CAPTURE, VOID):
        with pytest.raises(VersionConflict):
            await store.request(asked(held.id, kind, f"old {kind}", version=held.version))
    assert (await now(payments, payment)).refund_reserved == 1
    assert (await now(payments, held)).open_operation is None


async def test_a_request_by_a_version_sees_those_of_the_same_instant(
    store: OperationStore, payments: PaymentStore, database_url: str
) -> None:
    other = OperationStore(database_url, actor="other", lease=LEASE, grace=GRACE)
    for number in range(8):
        payment = await charged(payments, str(number))
        plain, by_version = (
            asked(payment.id, key=f"{number} plain", amount_minor=1),
            asked(payment.id, key=f"{number} seen", amount_minor=1, version=payment.version),
        )
        told, answer = await asyncio.gather(other.request(plain), store.request(by_version), return_exceptions=True)
        assert isinstance(told, RequestedOperation)
        requested = [event for event, *_ in await events(payments, payment) if event == "refund_requested"]
        if isinstance(answer, VersionConflict):
            assert len(requested) == 1
        else:  # it came first
            assert isinstance(answer, RequestedOperation)
            assert len(requested) == 2
            assert await first_requested(database_url, payment) == answer.operation.id
    await other.aclose()


async def first_requested(database_url: str, payment: Payment) -> UUID:
    """Return the operation of the first request in the payment's history."""
    [(operation_id,)] = await rows(
        database_url,
        "SELECT operation_id FROM payment_events WHERE event = 'refund_requested' "
        f"AND payment_id = '{payment.id}' ORDER BY version LIMIT 1",
    )
    return UUID(str(operation_id))


async def test_a_request_that_dies_between_its_statements_leaves_nothing_or_all(
    database_url: str, store: OperationStore, payments: PaymentStore
) -> None:
    """A connection that ends while its statement waits for the payment's lock has reserved nothing."""
    payment = await charged(payments)
    async with await psycopg.AsyncConnection.connect(database_url) as blocker:
        await blocker.execute("SELECT FROM payments FOR UPDATE")
        dying = OperationStore(database_url, actor="dying", lease=LEASE, grace=GRACE)
        waiting = asyncio.create_task(dying.request(asked(payment.id)))
        async with asyncio.timeout(60):
            while not await rows(database_url, "SELECT FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.002)
        waiting.cancel()
        await dying.aclose()
    await assert_books_agree(database_url)
    assert (await store.request(asked(payment.id))).created
