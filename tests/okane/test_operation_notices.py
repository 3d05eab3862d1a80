"""Notices about captures, voids and refunds, over a real Postgres: each once, and what they make due."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from okane.intake.accept import PaymentIntake
from okane.intake.provider_notices import NoticeIntake
from okane.lanes import operations_stream, payments_stream
from okane.operation import OperationStatus
from okane.providers.base import Notice
from okane.store.operation_records import OperationWakeUp
from okane.store.provider_events import TakenEvent
from okane.worker.notice_follow_up import NoticeFollowUp
from streams.testing import MemoryQueue
from tests.okane.notice_books import STRIPE, Books, books, event, take_one
from tests.okane.stored_payments import execute

__all__ = ["books"]

_S = OperationStatus
OPEN = (_S.UNKNOWN, _S.SUBMITTED)
CLOSED = (_S.FAILED_FINAL, _S.CANCELED)


async def operation(books: Books, status: OperationStatus, *, kind: str = "refund", provider: str = STRIPE) -> UUID:
    """Write an operation that is due in an hour, if it is open."""
    operation_id = uuid4()
    await execute(
        books.url,
        "INSERT INTO operations (id, payment_id, account_id, kind, amount_minor, currency, status, provider, provider_key,"
        " look_ups, retry_at) VALUES (%s, %s, 'default', %s, 100, 'EUR', %s, %s, %s, 2, now() + interval '1 h')",
        [operation_id, uuid4(), kind, status, provider, str(operation_id)],
    )
    return operation_id


async def row(books: Books, operation_id: UUID, columns: str) -> tuple[Any, ...]:
    [found] = await books.rows(f"SELECT {columns} FROM operations WHERE id = %s", operation_id)
    return found


@pytest.mark.parametrize("status", OPEN)
async def test_an_open_operation_is_due_at_once_and_its_sweep_after_the_grace(
    books: Books, status: OperationStatus
) -> None:
    operation_id = await operation(books, status)
    taken = await take_one(books, event(None, operation_id=operation_id))
    assert taken == TakenEvent("taken", operation=OperationWakeUp(operation_id, "refund"))
    columns = "status, retry_at <= now(), sweep_at > now(), sweep_at <= now() + interval '10 s', sweeps, look_ups"
    # The look-up of a notice puts off no poll.
    assert await row(books, operation_id, columns) == (status, True, True, True, 0, 1)
    assert await take_one(books, event(None, operation_id=operation_id)) == TakenEvent("repeated")
    assert await books.open_events() == set()


@pytest.mark.parametrize(
    ("status", "is_refusal", "due"),
    [
        *((status, False, True) for status in CLOSED),  # money moved after all
        *((status, True, None) for status in CLOSED),
        (_S.SUCCESS, True, True),  # a bank sent the refund back
        (_S.SUCCESS, False, None),
        (_S.NEEDS_REVIEW, False, None),
    ],
)
async def test_a_closed_operation_is_looked_up_again_if_the_notice_contradicts_it(
    books: Books, status: OperationStatus, is_refusal: bool, due: bool | None
) -> None:
    operation_id = await operation(books, status)
    assert await take_one(books, event(None, operation_id=operation_id, is_refusal=is_refusal)) == TakenEvent("taken")
    assert await row(books, operation_id, "sweep_at <= now()") == (due,)
    assert await row(books, operation_id, "status") == (status,)


@pytest.mark.parametrize("provider", ["payu", None])
async def test_a_notice_of_another_provider_or_of_no_operation_changes_nothing(
    books: Books, provider: str | None
) -> None:
    operation_id = await operation(books, _S.SUBMITTED)
    about = uuid4() if provider is None else operation_id
    before = await row(books, operation_id, "*")
    assert await take_one(books, event(None, operation_id=about), provider or STRIPE) == TakenEvent("unmatched")
    assert await row(books, operation_id, "*") == before
    assert await books.open_events() == set()


async def test_payments_and_operations_in_one_webhook_keep_their_order(books: Books) -> None:
    operation_id = await operation(books, _S.SUBMITTED)
    taken = await books.events.take(
        STRIPE, [event(None, "a"), event(None, "b", operation_id=operation_id), event(None, "c")]
    )
    assert [one.result for one in taken] == ["unmatched", "taken", "unmatched"]


@pytest.mark.parametrize(("after", "woken"), [(_S.SUBMITTED, 1), (_S.SUCCESS, 0)])
async def test_a_notice_that_came_during_a_claim_is_followed_up(
    books: Books, after: OperationStatus, woken: int
) -> None:
    operation_id = await operation(books, _S.PROCESSING)
    assert await take_one(books, event(None, operation_id=operation_id)) == TakenEvent("taken")
    payments, operations = MemoryQueue(payments_stream("test")), MemoryQueue(operations_stream("test"))
    duty = NoticeFollowUp(
        events=books.events, producer=payments, operations=operations, interval=timedelta(milliseconds=1)
    )
    assert await duty.run_once() == 0
    assert await books.open_events() == {"evt_1"}
    await execute(books.url, "UPDATE operations SET status = %s", [after])
    assert [await duty.run_once() for _ in range(2)] == [woken, 0]
    assert [(one.body, one.lane) for one in operations.published] == [(operation_id.bytes, "refund")] * woken
    assert await row(books, operation_id, "coalesce(sweep_at, now()) < now() + interval '11 s'") == (True,)
    assert payments.published == []
    assert await books.open_events() == set()


async def test_a_verified_notice_wakes_its_operation(books: Books) -> None:
    operation_id = await operation(books, _S.SUBMITTED)
    payments, operations = MemoryQueue(payments_stream("test")), MemoryQueue(operations_stream("test"))
    intake = NoticeIntake(
        events=books.events,
        payments=PaymentIntake(store=books.payments, producer=payments),
        operations=operations,
    )
    notice = Notice("evt_9", "refund.updated", None, "re_1", operation_id=operation_id)
    assert await intake.take(STRIPE, [notice]) == ["taken"]
    assert [(one.body, one.lane) for one in operations.published] == [(operation_id.bytes, "refund")]
