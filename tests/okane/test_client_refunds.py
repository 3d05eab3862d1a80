"""The client's captures and refunds: against the API, and over a connection that loses answers."""

from __future__ import annotations

import pytest

from okane.client import Client, Conflict, KeyReused, NewPayment, NewRefund, NotFound, OperationRefused
from okane.operation import OperationKind, OperationStatus
from tests.okane.faulty_proxy import Way
from tests.okane.operated_payments import charged, executed, held
from tests.okane.served_api import Api


async def test_a_payment_is_held_captured_and_refunded(api: Api, client: Client) -> None:
    payment_id = await held(api)
    payment = await client.payment(payment_id)
    assert (payment.capture_method, payment.capture_before is None, payment.amount_captured) == ("manual", False, None)
    with pytest.raises(OperationRefused) as raised:
        await client.capture(payment_id, amount=441, idempotency_key="c-1")
    assert (raised.value.code, raised.value.limit) == ("capture_exceeds_authorized", 440)
    with pytest.raises(OperationRefused, match="currency"):
        await client.capture(payment_id, currency="EUR", idempotency_key="c-1")
    receipt = await client.capture(payment_id, amount=300, currency="USD", idempotency_key="c-1", metadata={"a": "b"})
    assert (receipt.operation.kind, receipt.operation.payment_id) == (OperationKind.CAPTURE, payment.id)
    await executed(api, str(receipt.operation.id))
    assert (await client.payment(payment_id)).amount_captured == 300

    new = NewRefund(payment_id=payment_id, idempotency_key="r-1", amount=100, currency="USD", reason="returned")
    first, again = await client.refunds.create(new), await client.refunds.create(new)
    assert (first.created, again.created, first.operation) == (True, False, again.operation)
    with pytest.raises(KeyReused) as reused:
        await client.refunds.create(NewRefund(payment_id=payment_id, idempotency_key="r-1", amount=1))
    assert (reused.value.operation_id, reused.value.payment_id) == (first.operation.id, None)
    await executed(api, str(first.operation.id))
    found = await client.refunds.get(first.operation.id)
    assert (found.status, found.reason, found.amount, found.version) == (OperationStatus.SUCCESS, "returned", 100, 2)
    assert (await client.payment(payment_id)).amount_refunded == 100
    assert [one.id async for one in client.refunds.list(status=[OperationStatus.SUCCESS], payment=payment_id)] == [
        found.id
    ]
    assert [one.kind async for one in client.operations(payment_id)] == [OperationKind.CAPTURE, OperationKind.REFUND]
    [event] = [one async for one in client.events(payment_id) if one.event == "refunded"]
    assert event.operation_id == found.id


async def test_the_cancel_of_a_held_payment_returns_it_as_it_still_is(api: Api, client: Client) -> None:
    payment_id = await held(api)
    assert (await client.cancel(payment_id)).status == "authorized"
    [void] = [one async for one in client.operations(payment_id)]
    await executed(api, str(void.id))
    assert (await client.cancel(payment_id)).status == "canceled"


async def test_a_refund_is_canceled_retried_and_decided(api: Api, client: Client) -> None:
    payment_id = await charged(api)
    refund = (await client.refunds.create(NewRefund(payment_id=payment_id, idempotency_key="r-1"))).operation
    with pytest.raises(Conflict) as raised:
        await client.refunds.retry(refund.id)
    assert (raised.value.operation_status, raised.value.payment_status) == ("pending", "")
    assert (await client.refunds.cancel(refund.id)).status is OperationStatus.CANCELED
    refund = (await client.refunds.create(NewRefund(payment_id=payment_id, idempotency_key="r-2"))).operation
    await executed(api, str(refund.id), OperationStatus.FAILED_FINAL, reason="away")
    assert (await client.refunds.retry(refund.id)).operation.status is OperationStatus.PENDING
    await executed(api, str(refund.id), OperationStatus.NEEDS_REVIEW, reason="no answer")
    decided = await client.refunds.resolve(refund.id, as_="failed_final", reason="not there")
    assert decided.status is OperationStatus.FAILED_FINAL
    with pytest.raises(NotFound):
        await client.refunds.get(payment_id)


async def test_a_refund_whose_answer_is_lost_is_made_once(api: Api, way: tuple[Way, Client]) -> None:
    payment_id = await charged(api)
    lossy, client = way
    lossy.wrong = [None, None]
    receipt = await client.refunds.create(NewRefund(payment_id=payment_id, idempotency_key="r-1", amount=40))
    assert not receipt.created
    assert len(lossy.asked) == 3
    assert len([one async for one in client.refunds.list()]) == 1


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"payment_id": "x"}, ValueError),
        ({"payment_id": 7}, TypeError),
        ({"amount": 4.4}, TypeError),
        ({"amount": 2**53}, ValueError),
        ({"amount": True}, TypeError),
        ({"currency": "usd"}, ValueError),
        ({"idempotency_key": "a b"}, ValueError),
        ({"reason": "\0"}, ValueError),
        ({"metadata": {"a": 1}}, TypeError),
    ],
)
def test_what_json_would_change_is_refused_before_it_is_sent(
    members: dict[str, object], error: type[Exception]
) -> None:
    plain: dict[str, object] = {"payment_id": "0" * 32, "idempotency_key": "r-1"}
    with pytest.raises(error):
        NewRefund(**plain | members)  # type: ignore[arg-type]  # the test


async def test_a_manual_capture_is_asked_for_by_name(api: Api, client: Client) -> None:
    receipt = await client.pay(NewPayment(amount=440, idempotency_key="k-1", capture_method="manual"))
    assert receipt.payment.capture_method == "manual"
    assert (await client.pay(NewPayment(amount=440, idempotency_key="k-2"))).payment.capture_method == "automatic"
