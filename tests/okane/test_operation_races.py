"""Changes of an operation or its payment that wait for another transaction: they decide by the row as that one left it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any, LiteralString

import psycopg
import pytest

from okane.errors import OperationRefused, StoreBusy
from okane.operation import Operation, OperationStatus
from okane.store import PaymentStore, session
from okane.store.operation_records import RequestedOperation
from okane.store.operation_requests import Asked, RequestStatements
from okane.store.operations import OperationStore
from tests.okane.stored_operations import (
    CAPTURE,
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
from tests.okane.stored_payments import GRACE, LEASE, execute

S = OperationStatus
SWEPT: LiteralString = "UPDATE operations SET sweep_at = now() + interval '1 hour'"
TOUCHED: LiteralString = "UPDATE payments SET updated_at = now()"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement waits for a lock as long as a test does."""
    monkeypatch.setattr(session, "LOCK_TIMEOUT_MS", 60_000)
    monkeypatch.setattr(session, "IDLE_TIMEOUT_MS", 60_000)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[OperationStore]:
    store = OperationStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    yield store
    await store.aclose()
    await assert_books_agree(database_url, may_exceed=True)


async def behind(url: str, change: LiteralString, call: Callable[[], Awaitable[Any]]) -> Any:
    """Return the answer of a call that waits for a transaction with this change, if it does; that is committed then."""
    async with await psycopg.AsyncConnection.connect(url) as blocker:
        await blocker.execute(change)
        waiting = asyncio.ensure_future(call())
        async with asyncio.timeout(60):
            while not waiting.done() and not await rows(url, "SELECT FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.002)
        await blocker.commit()
    return await waiting


async def waiting_for_locks(url: str, number: int) -> None:
    async with asyncio.timeout(60):
        while len(await rows(url, "SELECT FROM pg_locks WHERE NOT granted")) < number:
            await asyncio.sleep(0.002)


async def pending(store: OperationStore, payments: PaymentStore, key: str) -> Operation:
    return (await store.request(asked((await charged(payments, key)).id, key=key))).operation


async def in_work(store: OperationStore, payments: PaymentStore, key: str) -> Operation:
    return (await claim_of(store, (await pending(store, payments, key)).id)).operation


async def failed(store: OperationStore, payments: PaymentStore, key: str) -> Operation:
    return await done(store, asked((await charged(payments, key)).id, key=key), S.FAILED_FINAL, event="spent")


async def to_retry(store: OperationStore, payments: PaymentStore, key: str) -> Operation:
    return await done(
        store, asked((await charged(payments, key)).id, key=key), S.FAILED_RETRYABLE, event="unavailable", delay=LEASE
    )


async def in_review(store: OperationStore, payments: PaymentStore, key: str) -> Operation:
    return await done(
        store, asked((await charged(payments, key)).id, key=key), S.NEEDS_REVIEW, reason="open for too long"
    )


async def succeeded(store: OperationStore, payments: PaymentStore, key: str) -> Operation:
    return await done(store, asked((await charged(payments, key)).id, key=key))


Begin = Callable[[OperationStore, PaymentStore, str], Awaitable[Operation]]
Act = Callable[[OperationStore, Operation], Awaitable[Any]]
ACTS: dict[str, tuple[Begin, Act, OperationStatus]] = {
    "claim": (pending, lambda store, one: store.claim(one.id), S.PROCESSING),
    "settle": (in_work, lambda store, one: store.settle(outcome(one)), S.SUCCESS),
    "settle as failed": (in_work, lambda store, one: store.settle(outcome(one, S.FAILED_FINAL)), S.FAILED_FINAL),
    "renew": (in_work, lambda store, one: store.renew(one.id, one.attempts), S.PROCESSING),
    "cancel": (to_retry, lambda store, one: store.cancel(one.id, account_id=None, actor="a"), S.CANCELED),
    "retry": (to_retry, lambda store, one: store.retry(one.id, account_id=None, actor="a"), S.PENDING),
    "retry of failed": (failed, lambda store, one: store.retry(one.id, account_id=None, actor="a"), S.PENDING),
    "bury": (to_retry, lambda store, one: store.bury(one.id, reason="poison"), S.NEEDS_REVIEW),
    "resolve": (
        in_review,
        lambda store, one: store.resolve(
            one.id, account_id=None, decision=S.FAILED_FINAL, reason="no", provider_ref=None, actor="a"
        ),
        S.FAILED_FINAL,
    ),
    "late success": (failed, lambda store, one: store.record_late(outcome(one), once=True), S.NEEDS_REVIEW),
    "return": (
        succeeded,
        lambda store, one: store.record_late(outcome(one, S.FAILED_FINAL, decline_code="no"), once=True),
        S.FAILED_FINAL,
    ),
    "late look-up given up": (failed, lambda store, one: store.fail_late_look_up(one, reason="silent"), S.NEEDS_REVIEW),
}


@pytest.mark.parametrize("change", [SWEPT, TOUCHED])
async def test_a_change_that_waited_for_a_lock_is_made(
    database_url: str, store: OperationStore, payments: PaymentStore, change: LiteralString
) -> None:
    """Postgres evaluates the statement again on the row as the other transaction left it."""
    for name, (begin, act, status) in ACTS.items():
        operation = await begin(store, payments, name)
        answer = await behind(database_url, change, partial(act, store, operation))
        assert answer not in (None, False), name
        assert (await store.get(operation.id)).status is status, name


async def test_no_failure_gives_back_what_another_attempt_has_moved(
    database_url: str, store: OperationStore, payments: PaymentStore
) -> None:
    """A worker stalls in its call; the one that takes over finds nothing, and gives up when the call has been answered."""
    payment = await charged(payments)
    refund = (await store.request(asked(payment.id))).operation
    stalled = await claim_of(store, refund.id)
    await execute(database_url, "UPDATE operations SET lease_until = now() WHERE id = %s", [refund.id])
    holder = await claim_of(store, refund.id)
    assert await store.settle(outcome(stalled.operation)) is None
    assert await store.record_late(outcome(stalled.operation)) is S.PROCESSING
    for event, code in (("spent", None), ("declined", "refund_exceeds_captured")):
        given_up = outcome(holder.operation, S.FAILED_FINAL, event=event, decline_code=code)
        assert await store.settle(given_up) is None
    with pytest.raises(OperationRefused):
        await store.request(asked(payment.id, key="another"))
    await execute(database_url, "UPDATE operations SET lease_until = now() WHERE id = %s", [refund.id])
    found = await claim_of(store, refund.id)
    assert (found.look_up_first, found.operation.provider_ref) == (True, "re_1")
    # The look-up finds that the bank has sent this very refund back: that is final.
    back = outcome(found.operation, S.FAILED_FINAL, event="declined", decline_code="closed", provider_ref="re_1")
    assert await store.settle(back) is not None
    assert (await payments.get(payment.id, account_id="default")).refund_reserved == 0


async def test_a_capture_that_is_found_while_a_void_fails_keeps_others_out(
    database_url: str, store: OperationStore, payments: PaymentStore
) -> None:
    """Both wait for the payment; the one that comes second does not see the operation of the first as it is now."""
    payment = await authorized(payments)
    capture = await done(store, asked(payment.id, CAPTURE, "capture"), S.FAILED_FINAL, event="spent")
    void = (await claim_of(store, (await store.request(asked(payment.id, VOID, "void"))).operation.id)).operation
    async with await psycopg.AsyncConnection.connect(database_url) as blocker:
        await blocker.execute("SELECT FROM payments FOR UPDATE")
        found = asyncio.ensure_future(store.record_late(outcome(capture), once=True))
        await waiting_for_locks(database_url, 1)
        fails = asyncio.ensure_future(store.settle(outcome(void, S.FAILED_FINAL, event="declined", decline_code="no")))
        await waiting_for_locks(database_url, 2)
        await blocker.commit()
    assert await found is S.NEEDS_REVIEW
    assert await fails is not None
    with pytest.raises(OperationRefused, match="another capture or void"):
        await store.request(asked(payment.id, CAPTURE, "another"))
    with pytest.raises(OperationRefused, match="another capture or void"):
        await store.retry(void.id, account_id="default", actor="someone")
    await store.resolve(
        capture.id, account_id=None, decision=S.FAILED_FINAL, reason="seen", provider_ref=None, actor="operator"
    )
    assert (await store.retry(void.id, account_id="default", actor="someone")).status is S.PENDING


async def test_a_refund_that_was_submitted_may_fail_without_its_reference(
    store: OperationStore, payments: PaymentStore, database_url: str
) -> None:
    payment = await charged(payments)
    refund = await done(store, asked(payment.id), S.SUBMITTED, event="pending", provider_ref="re_1", delay=timedelta(0))
    claim = await claim_of(store, refund.id)
    assert await store.settle(outcome(claim.operation, S.FAILED_FINAL, event="declined", decline_code="no"))
    assert (await payments.get(payment.id, account_id="default")).refund_reserved == 0


async def test_a_request_that_fails_takes_no_answer_from_those_before_it(
    store: OperationStore, payments: PaymentStore
) -> None:
    """In one batch each request of a payment is a statement of its own; those before the broken one are committed."""
    payment, other = await charged(payments), await charged(payments, "other")
    made, made_too, broken, after = await store._requesting.submit_many(
        [
            Asked(new, "test")
            for new in (
                asked(payment.id, key="1", amount_minor=1),
                asked(other.id, key="2", amount_minor=1),
                asked(payment.id, key="3", amount_minor=1, metadata={"a": "\0"}),
                asked(other.id, key="4", amount_minor=1),
            )
        ]
    )
    for one in (made, made_too, after):
        assert isinstance(one, RequestedOperation)
        assert one.created
    assert isinstance(broken, psycopg.DataError)


async def test_a_key_that_cannot_be_looked_up_takes_no_answer_from_others(
    store: OperationStore, payments: PaymentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment, other = await charged(payments), await charged(payments, "other")

    async def busy(*_: object) -> None:
        raise StoreBusy("a lock")

    monkeypatch.setattr(RequestStatements, "_by_key", busy)
    made, refused = await store._requesting.submit_many(
        [Asked(asked(payment.id), "test"), Asked(asked(other.id, key="2", amount_minor=441), "test")]
    )
    assert isinstance(made, RequestedOperation)
    assert made.created
    assert isinstance(refused, StoreBusy)


async def test_a_refused_retry_says_what_is_left(store: OperationStore, payments: PaymentStore) -> None:
    paid, held = await charged(payments), await authorized(payments, "held")
    refund = await done(store, asked(paid.id, amount_minor=400), S.FAILED_FINAL, event="spent")
    capture = await done(store, asked(held.id, CAPTURE, "capture"), S.FAILED_FINAL, event="spent")
    await store.request(asked(paid.id, key="other", amount_minor=100))
    await store.request(asked(held.id, VOID, "void"))
    for operation, code, limit in ((refund, "refund_exceeds_captured", 340), (capture, "operation_in_progress", None)):
        with pytest.raises(OperationRefused) as refusal:
            await store.retry(operation.id, account_id="default", actor="someone")
        assert (refusal.value.code, refusal.value.limit) == (code, limit)
