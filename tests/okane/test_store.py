"""The payment store against a real Postgres: one row per key, one claim at a time, one outcome per attempt."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest

from okane.errors import IdempotencyKeyReused, PaymentNotFound, StatusConflict, StoreBusy, StoreSlow, StoreUnavailable
from okane.payment import Status
from okane.store import AcceptedRow, Claim, ClaimRefusal, DeadLetterStore, PaymentStore
from okane.store import session as session_module
from okane.store.payments import BATCHED
from okane.store.prepared_statements import PreparedStatement
from okane.store.session import Session
from tests.okane.stored_payments import GRACE, LEASE, accept_one, claimed, execute, expire_lease, new, settlement

SLEEP = PreparedStatement.of("sleep", "SELECT 7 FROM pg_sleep(%(seconds)s::float8)")


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PaymentStore]:
    store = PaymentStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    yield store
    await store.aclose()


@contextlib.asynccontextmanager
async def connected(
    url: str, *, index_only: bool = False, timeout: timedelta = timedelta(seconds=60)
) -> AsyncIterator[Session]:
    session = Session(url, name="test", timeout=timeout, index_only=index_only)
    yield session
    await session.aclose()


async def until_asleep(url: str) -> int:
    """The server process of the session that sleeps."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection, asyncio.timeout(60):
        while True:
            cursor = await connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'okane test' AND wait_event = 'PgSleep'"
                " AND datname = current_database()"
            )
            if found := await cursor.fetchone():
                return int(found[0])


async def test_a_payment_is_read_back_as_it_was_accepted(store: PaymentStore) -> None:
    accepted = await accept_one(store, new())
    assert accepted.created
    payment = await store.get(accepted.payment.id, account_id="default")
    assert payment == accepted.payment
    assert (payment.amount_minor, payment.currency, payment.status) == (440, "USD", Status.PENDING)
    assert (payment.attempts, payment.version, payment.metadata) == (0, 0, {"order": "7"})
    assert payment.provider_key == str(payment.id)


async def test_a_repeat_finds_the_same_payment(store: PaymentStore) -> None:
    first = await accept_one(store, new())
    second = await accept_one(store, new())
    assert (second.created, second.payment.id) == (False, first.payment.id)


async def test_a_hundred_parallel_repeats_make_one_row(store: PaymentStore) -> None:
    answers = await asyncio.gather(*(accept_one(store, new()) for _ in range(100)))
    assert len({answer.payment.id for answer in answers}) == 1
    assert sum(answer.created for answer in answers) == 1


async def test_a_key_with_another_meaning_is_refused_and_changes_nothing(store: PaymentStore) -> None:
    first = await accept_one(store, new())
    with pytest.raises(IdempotencyKeyReused) as caught:
        await accept_one(store, new(amount_minor=441, fingerprint=b"g" * 32))
    assert caught.value.payment_id == first.payment.id
    assert (await store.get(first.payment.id, account_id="default")).amount_minor == 440


async def test_many_are_accepted_together_each_with_its_own_answer(store: PaymentStore, database_url: str) -> None:
    first = await accept_one(store, new("first"))
    news = [new("second"), replace(new("first"), fingerprint=b"other"), new("first"), new("third")]
    answers = await store.accept_many(news, wakes=1)
    assert isinstance(answers[1], IdempotencyKeyReused)
    created = [isinstance(answer, AcceptedRow) and answer.created for answer in answers]
    assert (created, answers[2]) == ([True, False, False, True], replace(first, created=False))
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        rows = await connection.execute("SELECT idempotency_key FROM payments WHERE sweep_at IS NOT NULL")
        assert await rows.fetchall() == [("third",)]  # the only new one beyond those that get a wake-up


async def test_parallel_requests_of_two_meanings_under_one_key_make_one_row(store: PaymentStore) -> None:
    answers = await store.accept_many([new(fingerprint=bytes([n % 2]) * 32) for n in range(20)], wakes=20)
    assert sum(isinstance(answer, IdempotencyKeyReused) for answer in answers) == 10
    assert sum(not isinstance(answer, BaseException) and answer.created for answer in answers) == 1


async def test_one_bad_row_fails_alone(store: PaymentStore) -> None:
    news = [new("a"), dataclasses.replace(new("b"), currency="no"), new("c")]
    answers = await store.accept_many(news, wakes=3)
    assert isinstance(answers[1], psycopg.errors.CheckViolation)
    assert not any(isinstance(answers[n], BaseException) for n in (0, 2))


async def test_an_amount_beyond_the_columns_type_fails_alone(store: PaymentStore) -> None:
    answers = await store.accept_many([new("a"), new("b", amount_minor=2**63)], wakes=2)
    assert isinstance(answers[0], AcceptedRow)
    assert isinstance(answers[1], struct.error)


async def test_many_kinds_of_payments_in_one_batch_are_read_back_as_accepted(store: PaymentStore) -> None:
    """The payment that acceptance returns without reading equals the row, for any text."""
    texts = ["plain", "", "käse 'and' \"quotes\" {,} \\ NULL", "\U0001f4b6" * 70, "line\nbreak"]
    batch = [
        dataclasses.replace(new(f"{number} {text}"), account_id=f"a {text}", metadata={text: text})
        for number, text in enumerate(texts)
    ]
    rows = await store.accept_many([*batch, new("no metadata")], wakes=0)
    accepted = [row for row in rows if isinstance(row, AcceptedRow)]
    assert len(accepted) == len(rows)
    for answer in accepted:
        payment = answer.payment
        assert await store.get(payment.id, account_id=payment.account_id) == payment
        claim = await claimed(store, payment.id)
        as_accepted = dataclasses.replace(
            claim.payment, status=payment.status, attempts=0, version=0, updated_at=payment.updated_at, provider=None
        )
        assert as_accepted == payment
    repeated = await asyncio.gather(*(accept_one(store, one) for one in batch))
    assert [(one.created, one.payment.id) for one in repeated] == [
        (False, one.payment.id) for one in accepted[: len(batch)]
    ]


async def test_a_statement_for_batches_is_never_planned_anew(database_url: str) -> None:
    async with connected(database_url, index_only=True) as session:
        for _ in range(8):  # after five plans of its own, Postgres would decide by their cost
            assert await session.fetch(BATCHED["by_id"], {"ids": [uuid4()]}) == []
        plans = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE name = 'okane_by_id'"
        assert await session.fetch(plans) == [(8, 0)]


async def test_a_prepared_statement_that_was_canceled_leaves_its_session_usable(database_url: str) -> None:
    async with connected(database_url) as session:
        asking = asyncio.create_task(session.fetch(SLEEP, {"seconds": 600.0}))
        backend = await until_asleep(database_url)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await session.fetch(SLEEP, {"seconds": 0.0}) == [(7,)]
        assert await until_asleep(database_url) == backend, "the caller must not wait for a cancel on the server"
        await execute(database_url, "SELECT pg_terminate_backend(%s)", [backend])


async def test_text_arrives_as_it_is_whatever_encoding_the_client_is_set_to(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    store = PaymentStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    payment = (await accept_one(store, new("käse"))).payment
    assert await store.get(payment.id, account_id="default") == payment
    await store.aclose()
    monkeypatch.delenv("PGCLIENTENCODING")
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute("SELECT idempotency_key FROM payments")
        assert await cursor.fetchone() == ("käse",)


async def test_a_prepared_statement_whose_connection_is_lost_says_so_and_is_prepared_again(database_url: str) -> None:
    async with connected(database_url) as session:
        asking = asyncio.create_task(session.fetch(SLEEP, {"seconds": 600.0}))
        await execute(database_url, "SELECT pg_terminate_backend(%s)", [await until_asleep(database_url)])
        with pytest.raises(StoreUnavailable):
            await asking
        assert await session.fetch(SLEEP, {"seconds": 0.0}) == [(7,)]


@pytest.mark.parametrize("statement", [SLEEP, "SELECT pg_sleep(%(seconds)s)"])
async def test_what_is_in_flight_when_its_session_is_closed_fails_at_once(
    database_url: str, statement: PreparedStatement | LiteralString
) -> None:
    async with connected(database_url) as session, asyncio.timeout(30):
        asking = asyncio.create_task(session.fetch(statement, {"seconds": 600.0}))
        await until_asleep(database_url)
        await session.aclose()
        with pytest.raises(StoreUnavailable):
            await asking


async def test_a_prepared_statement_that_takes_too_long_is_ended_by_the_server(database_url: str) -> None:
    async with connected(database_url, timeout=timedelta(milliseconds=100)) as session:
        with pytest.raises(StoreSlow):
            await session.fetch(SLEEP, {"seconds": 600.0})
        assert await session.fetch(SLEEP, {"seconds": 0.0}) == [(7,)]


async def test_a_silent_connection_is_cut_under_a_prepared_statement(database_url: str) -> None:
    async with connected(database_url, timeout=timedelta(milliseconds=100)) as session:
        await session.fetch("SET statement_timeout = 0")  # a server that does not end it
        with pytest.raises(StoreUnavailable) as caught:
            await session.fetch(SLEEP, {"seconds": 600.0})
        assert not isinstance(caught.value, StoreBusy)
        assert await session.fetch(SLEEP, {"seconds": 0.0}) == [(7,)]


async def test_another_accounts_payment_is_not_found(store: PaymentStore) -> None:
    accepted = await accept_one(store, new())
    with pytest.raises(PaymentNotFound):
        await store.get(accepted.payment.id, account_id="another account")


async def test_of_many_claims_one_is_granted(store: PaymentStore) -> None:
    accepted = await accept_one(store, new())
    claims = await asyncio.gather(*(store.claim(accepted.payment.id) for _ in range(20)))
    granted = [claim for claim in claims if isinstance(claim, Claim)]
    assert len(granted) == 1
    assert (granted[0].payment.attempts, granted[0].look_up_first) == (1, False)
    refused = [claim for claim in claims if isinstance(claim, ClaimRefusal)]
    assert {claim.status for claim in refused} == {Status.PROCESSING}
    assert all(timedelta(seconds=29) < claim.wait <= LEASE for claim in refused)


async def test_a_payment_nobody_knows_cannot_be_claimed(store: PaymentStore) -> None:
    assert await store.claim(uuid4()) == ClaimRefusal(None, timedelta(0))


async def test_after_the_lease_another_claim_must_look_up_first(store: PaymentStore, database_url: str) -> None:
    payment_id = (await accept_one(store, new())).payment.id
    await claimed(store, payment_id)
    await expire_lease(database_url, payment_id)
    second = await claimed(store, payment_id)
    assert (second.payment.attempts, second.payment.retries, second.look_up_first) == (2, 1, True)


async def test_a_renewed_lease_keeps_others_out(store: PaymentStore, database_url: str) -> None:
    payment_id = (await accept_one(store, new())).payment.id
    claim = await claimed(store, payment_id)
    await expire_lease(database_url, payment_id)
    assert await store.renew(payment_id, claim.payment.attempts)
    assert isinstance(await store.claim(payment_id), ClaimRefusal)
    assert not await store.renew(payment_id, 99)


async def test_a_stale_worker_cannot_settle(store: PaymentStore, database_url: str) -> None:
    payment_id = (await accept_one(store, new())).payment.id
    first = await claimed(store, payment_id)
    await expire_lease(database_url, payment_id)
    second = await claimed(store, payment_id)
    assert await store.settle(settlement(first.payment, Status.FAILED_FINAL)) is None
    assert await store.settle(settlement(second.payment)) is not None
    assert (await store.get(payment_id, account_id="default")).status is Status.SUCCESS


async def test_two_attempts_of_one_payment_in_one_batch_are_told_apart(store: PaymentStore, database_url: str) -> None:
    """One process may hold both, after an outage longer than the lease: the loser must get None."""
    payment_id = (await accept_one(store, new())).payment.id
    first = await claimed(store, payment_id)
    await expire_lease(database_url, payment_id)
    second = await claimed(store, payment_id)
    stale, fresh = await asyncio.gather(
        store.settle(settlement(first.payment)), store.settle(settlement(second.payment, Status.FAILED_FINAL))
    )
    assert (stale, fresh is not None) == (None, True)
    await expire_lease(database_url, payment_id)
    renewed = await asyncio.gather(store.renew(payment_id, 1), store.renew(payment_id, 2))
    assert not any(renewed)


async def test_a_locked_row_holds_up_nobody_else(store: PaymentStore, database_url: str) -> None:
    payments = [(await accept_one(store, new(f"k{number}"))).payment for number in range(10)]
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("SELECT FROM payments WHERE id = %s FOR UPDATE", [payments[3].id])
        claims = await asyncio.gather(*(store.claim(payment.id) for payment in payments), return_exceptions=True)
        await connection.rollback()
    assert [type(claim) for claim in claims] == [StoreBusy if number == 3 else Claim for number in range(10)]


async def test_a_spent_payment_refuses_a_claim_with_its_reason(store: PaymentStore) -> None:
    for key, code, spent in (("spent", None, "HTTP 503"), ("declined", "card_declined", None)):
        payment_id = (await accept_one(store, new(key))).payment.id
        claim = await claimed(store, payment_id)
        await store.settle(settlement(claim.payment, Status.FAILED_FINAL, reason="HTTP 503", decline_code=code))
        assert await store.claim(payment_id) == ClaimRefusal(Status.FAILED_FINAL, timedelta(0), spent)


async def test_a_charge_heard_of_late_is_looked_up_before_the_next(store: PaymentStore) -> None:
    payment_id = (await accept_one(store, new())).payment.id
    claim = await claimed(store, payment_id)
    await store.settle(settlement(claim.payment, Status.FAILED_RETRYABLE, delay=timedelta(0)))
    await store.record_late(settlement(claim.payment))
    assert (await claimed(store, payment_id)).look_up_first


async def test_settling_twice_counts_as_settled_once(store: PaymentStore) -> None:
    payment_id = (await accept_one(store, new())).payment.id
    claim = await claimed(store, payment_id)
    assert await store.settle(settlement(claim.payment)) is not None
    assert await store.settle(settlement(claim.payment)) is not None
    assert [event.event for event in await store.events(payment_id)] == ["accepted", "claimed", "success"]


async def test_every_change_appends_its_event_without_a_gap(store: PaymentStore) -> None:
    payment_id = (await accept_one(store, new())).payment.id
    claim = await claimed(store, payment_id)
    await store.settle(
        settlement(claim.payment, Status.FAILED_RETRYABLE, event="unavailable", reason="503", delay=timedelta(0))
    )
    claim = await claimed(store, payment_id)
    await store.settle(settlement(claim.payment, Status.FAILED_FINAL, event="declined", decline_code="no"))
    await store.retry(payment_id, account_id="default", actor="test")
    events = await store.events(payment_id)
    assert [event.event for event in events] == [
        "accepted",
        "claimed",
        "unavailable",
        "claimed",
        "declined",
        "retried",
    ]
    assert [event.version for event in events] == [0, 1, 2, 3, 4, 5]


async def test_a_retry_is_not_claimable_before_its_time(store: PaymentStore) -> None:
    payment_id = (await accept_one(store, new())).payment.id
    claim = await claimed(store, payment_id)
    later = settlement(claim.payment, Status.FAILED_RETRYABLE, delay=timedelta(minutes=1))
    await store.settle(later)
    refused = await store.claim(payment_id)
    assert isinstance(refused, ClaimRefusal)
    assert timedelta(seconds=58) < refused.wait <= timedelta(minutes=1)


async def test_manual_retry_of_a_decline_takes_a_new_provider_key(store: PaymentStore) -> None:
    payment_id = (await accept_one(store, new())).payment.id
    claim = await claimed(store, payment_id)
    await store.settle(settlement(claim.payment, Status.FAILED_FINAL, decline_code="card_declined"))
    retried = await store.retry(payment_id, account_id="default", actor="test")
    assert (retried.status, retried.retries, retried.decline_code) == (Status.PENDING, 0, None)
    assert retried.provider_key != str(payment_id)


async def test_manual_retry_of_a_spent_payment_keeps_its_provider_key(store: PaymentStore) -> None:
    payment_id = (await accept_one(store, new())).payment.id
    claim = await claimed(store, payment_id)
    await store.settle(settlement(claim.payment, Status.FAILED_FINAL, reason="503"))
    assert (await store.retry(payment_id, account_id="default", actor="test")).provider_key == str(payment_id)


async def test_manual_retry_of_a_success_is_a_conflict(store: PaymentStore) -> None:
    payment_id = (await accept_one(store, new())).payment.id
    claim = await claimed(store, payment_id)
    await store.settle(settlement(claim.payment))
    with pytest.raises(StatusConflict):
        await store.retry(payment_id, account_id="default", actor="test")
    with pytest.raises(PaymentNotFound):
        await store.retry(uuid4(), account_id="default", actor="test")


async def test_money_that_moved_for_a_failed_payment_goes_to_a_human(store: PaymentStore) -> None:
    payment_id = (await accept_one(store, new())).payment.id
    claim = await claimed(store, payment_id)
    await store.settle(settlement(claim.payment, Status.FAILED_FINAL))
    late = dataclasses.replace(settlement(claim.payment), attempt=7)
    assert await store.settle(late) is None
    assert await store.record_late(late) is Status.NEEDS_REVIEW
    payment = await store.get(payment_id, account_id="default")
    assert (payment.status, payment.provider_ref) == (Status.NEEDS_REVIEW, "ref")
    assert [event.event for event in await store.events(payment_id)][-1] == "late_result"


async def test_poison_is_buried_but_never_from_under_a_live_claim(store: PaymentStore, database_url: str) -> None:
    payment_id = (await accept_one(store, new())).payment.id
    await claimed(store, payment_id)
    assert not await store.bury(payment_id, reason="poison")
    await expire_lease(database_url, payment_id)
    assert await store.bury(payment_id, reason="poison")
    assert (await store.get(payment_id, account_id="default")).status is Status.NEEDS_REVIEW


async def test_the_happy_path_stays_out_of_the_sweeps_index(store: PaymentStore, database_url: str) -> None:
    payment_id = (await accept_one(store, new())).payment.id
    claim = await claimed(store, payment_id)
    await store.settle(settlement(claim.payment))
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute("SELECT count(*) FROM payments WHERE sweep_at IS NOT NULL")
        assert await cursor.fetchone() == (0,)


async def test_the_happy_paths_two_updates_touch_no_index(store: PaymentStore, database_url: str) -> None:
    for number in range(20):
        payment_id = (await accept_one(store, new(f"k{number}"))).payment.id
        claim = await claimed(store, payment_id)
        await store.settle(settlement(claim.payment))
    await store.aclose()  # a session publishes its counts when it ends
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection, asyncio.timeout(60):
        updated, heap_only = 0, 0
        while updated < 40:
            cursor = await connection.execute(
                "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'payments'"
            )
            row = await cursor.fetchone()
            assert row is not None
            updated, heap_only = row
            await connection.execute("SELECT pg_stat_clear_snapshot()")
    assert (updated, heap_only) == (40, 40)


async def test_a_closed_connection_costs_one_call_at_most(store: PaymentStore, database_url: str) -> None:
    payment_id = (await accept_one(store, new())).payment.id
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'okane %'"
        )
    assert not (await accept_one(store, new())).created  # the store repeats it: the key makes that safe
    with contextlib.suppress(StoreUnavailable):
        await store.claim(payment_id)
    assert (await store.get(payment_id, account_id="default")).id == payment_id


async def test_a_success_that_came_late_is_not_given_up_by_a_later_attempt(
    store: PaymentStore, database_url: str
) -> None:
    """Attempt 1 got the charge after attempt 2 had begun; attempt 2 has no answer and gives up."""
    payment_id = (await accept_one(store, new())).payment.id
    first = await claimed(store, payment_id)
    await expire_lease(database_url, payment_id)
    second = await claimed(store, payment_id)
    late = settlement(first.payment)
    assert await store.settle(late) is None
    assert await store.record_late(late) is Status.PROCESSING
    spent = settlement(second.payment, Status.FAILED_FINAL, event="spent", reason="HTTP 503")
    assert await store.settle(spent) is None
    await expire_lease(database_url, payment_id)
    assert (await claimed(store, payment_id)).look_up_first


async def test_a_success_for_a_review_that_was_dismissed_brings_it_back(store: PaymentStore, database_url: str) -> None:
    letters = DeadLetterStore(database_url)
    payment_id = (await accept_one(store, new())).payment.id
    claim = await claimed(store, payment_id)
    await expire_lease(database_url, payment_id)
    await store.bury(payment_id, reason="poison")
    await letters.dismiss(ids=[payment_id])
    await store.record_late(settlement(claim.payment))
    assert len(await letters.find_many([payment_id])) == 1
    await letters.aclose()


async def test_text_that_cannot_be_stored_fails_its_own_payment_alone(store: PaymentStore) -> None:
    claims = [await claimed(store, (await accept_one(store, new(f"k{number}"))).payment.id) for number in range(3)]
    reasons = ["fine", "a lone surrogate: \udcff", "fine"]
    answers = await asyncio.gather(
        *(
            store.settle(settlement(claim.payment, Status.UNKNOWN, delay=timedelta(0), reason=reason))
            for claim, reason in zip(claims, reasons, strict=True)
        ),
        return_exceptions=True,
    )
    assert [isinstance(answer, UnicodeEncodeError) for answer in answers] == [False, True, False]


@pytest.mark.parametrize(
    "odd", [{"amount_minor": "1"}, {"amount_minor": None}, {"metadata": object()}, {"idempotency_key": 7}]
)
async def test_a_value_of_another_type_fails_its_own_payment_alone(store: PaymentStore, odd: dict[str, Any]) -> None:
    news = [new("before"), replace(new("wrong"), **odd), new("after")]
    before, wrong, after = await store.accept_many(news, wakes=3)
    assert (type(before), type(after)) == (AcceptedRow, AcceptedRow)
    assert isinstance(wrong, Exception)
    assert not isinstance(wrong, StoreUnavailable)


async def test_a_process_that_stands_still_in_a_transaction_holds_nobody_up(
    store: PaymentStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "IDLE_TIMEOUT_MS", 100)
    payment_id = (await accept_one(store, new())).payment.id
    frozen = Session(database_url, name="frozen")

    async def stand_still() -> None:
        async with frozen.transaction() as connection:
            await connection.execute("SELECT 1 FROM payments FOR UPDATE")
            claim: Claim | ClaimRefusal | None = None
            async with asyncio.timeout(30):
                while claim is None:
                    with contextlib.suppress(StoreUnavailable):
                        claim = await store.claim(payment_id)
            assert isinstance(claim, Claim)
            await connection.execute("SELECT 1")

    with pytest.raises(StoreUnavailable):
        await stand_still()
    await frozen.aclose()
