"""Requests for captures, voids and refunds while Redis is away: none waits for it, and no operation is forgotten."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from uuid import UUID

import pytest

from okane.api_key import ACCOUNT
from okane.errors import VersionConflict
from okane.intake import wake_sending
from okane.intake.accept import PaymentIntake
from okane.intake.operations import OperationIntake, OperationReceipt
from okane.lanes import operations_stream, payments_stream
from okane.operation import NewOperation, OperationKind
from okane.payment import Payment
from streams.testing import MemoryQueue
from tests.okane.operated_payments import charged, executed, held
from tests.okane.served_api import Api


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue(operations_stream("test"))


@pytest.fixture
def intake(api: Api, queue: MemoryQueue) -> OperationIntake:
    payments = PaymentIntake(store=api.store, producer=MemoryQueue(payments_stream("test")))
    return OperationIntake(store=api.operations.store, lists=api.operations.lists, payments=payments, producer=queue)


def refund_of(payment_id: str, key: str = "r-1") -> NewOperation:
    return NewOperation(
        payment_id=UUID(payment_id),
        account_id=ACCOUNT,
        kind=OperationKind.REFUND,
        idempotency_key=key,
        fingerprint=b"f" * 32,
        amount_minor=40,
    )


async def test_a_wake_up_goes_to_the_lane_of_its_kind(api: Api, intake: OperationIntake, queue: MemoryQueue) -> None:
    receipt = await intake.request(refund_of(await charged(api)), actor="api")
    assert (receipt.created, receipt.enqueued) == (True, True)
    again = await intake.request(refund_of(str(receipt.operation.payment_id)), actor="api")
    assert (again.created, again.enqueued, again.operation.id) == (False, False, receipt.operation.id)
    [sent] = queue.published
    assert (sent.body, sent.lane) == (receipt.operation.id.bytes, "refund")


async def test_while_redis_is_away_an_operation_waits_for_the_sweep(
    api: Api, intake: OperationIntake, queue: MemoryQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake_sending, "AWAY_S", 3600)
    payment_id = await charged(api)
    queue.down = True
    first = await intake.request(refund_of(payment_id), actor="api")
    queue.down = False  # it is back, but no request has tried it yet
    second = await intake.request(refund_of(payment_id, "r-2"), actor="api")
    assert [one.enqueued for one in (first, second)] == [False, False]
    assert queue.published == []
    await api.store._rare.fetch("UPDATE operations SET sweep_at = now()")
    due = await api.operations.store.due({"refund": timedelta(minutes=1)}, limit=10)
    assert {one.operation_id for one in due} == {first.operation.id, second.operation.id}


async def test_a_cancel_that_comes_after_the_void_finds_the_payment_canceled(api: Api, intake: OperationIntake) -> None:
    payment_id = await held(api)

    async def cancel() -> Payment | OperationReceipt:
        return await intake.cancel_payment(UUID(payment_id), account_id=ACCOUNT, actor="operator")

    void, repeat = await cancel(), await cancel()
    assert isinstance(void, OperationReceipt)
    assert isinstance(repeat, OperationReceipt)
    assert (void.created, repeat.created, repeat.operation.id) == (True, False, void.operation.id)
    await executed(api, str(void.operation.id))
    canceled = await cancel()
    assert isinstance(canceled, Payment)
    assert canceled.status == "canceled"


async def test_a_cancel_by_version_is_refused_once_a_capture_has_failed_meanwhile(
    api: Api, intake: OperationIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment_id = UUID(await held(api))
    capture = dataclasses.replace(refund_of(str(payment_id), "c-1"), kind=OperationKind.CAPTURE)
    await intake.request(capture, actor="api")
    seen = (await api.store.get(payment_id, account_id=ACCOUNT)).version

    async def fails(*_: object) -> bool:
        await api.store._rare.fetch("UPDATE operations SET status = 'failed_final'")
        await api.store._rare.fetch("UPDATE payments SET open_operation = NULL, version = version + 1")
        return False

    monkeypatch.setattr(intake, "_is_under_way", fails)
    with pytest.raises(VersionConflict):
        await intake.cancel_payment(payment_id, account_id=ACCOUNT, actor="operator", version=seen)
    assert (await api.store.get(payment_id, account_id=ACCOUNT)).open_operation is None
