"""The answers about captures, voids and refunds in the corner cases: races, old payments, wrong filters, known versions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from uuid import UUID

import pytest

from okane.api_key import ACCOUNT
from okane.intake.accept import PaymentIntake
from okane.intake.operations import OperationIntake, OperationReceipt
from okane.lanes import operations_stream, payments_stream
from okane.operation import Operation, OperationStatus
from okane.payment import Payment
from okane.providers.base import Capability
from streams.testing import MemoryQueue
from tests.okane.api_requests import get, post
from tests.okane.operated_payments import CAPABLE, charged, executed, held, refund, shown
from tests.okane.served_api import Api, serve_api

WHOLE: frozenset[Capability] = frozenset({"refund"})


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Api]:
    async for one in serve_api(database_url, redis_url, capabilities=CAPABLE):
        yield one


async def test_a_payment_of_before_version_4_is_refunded_at_its_provider(api: Api) -> None:
    payment_id = await charged(api)
    await api.store._rare.fetch("UPDATE payments SET provider = NULL, pinned = NULL")
    status, answer = await refund(api, payment_id, amount=40)
    assert (status, answer["refund"]["provider"]) == (202, "http")
    await executed(api, answer["refund"]["id"])
    assert (await shown(api, f"/v1/payments/{payment_id}"))["payment"]["amount_refunded"] == 40
    await api.store._rare.fetch(
        "UPDATE payments SET provider = NULL, attempts = 0"
    )  # as if buried, and decided by hand
    status, problem = await refund(api, payment_id, "r-2")
    assert (status, problem["code"]) == (409, "payment_not_captured")
    assert problem["detail"] == "a payment that is success cannot be refunded: no provider has charged it"


async def test_an_old_payment_is_refunded_as_its_provider_can(database_url: str, redis_url: str) -> None:
    async for api in serve_api(database_url, redis_url, capabilities={"http": WHOLE}):
        payment_id = await charged(api)
        await api.store._rare.fetch("UPDATE payments SET provider = NULL, pinned = NULL")
        status, problem = await refund(api, payment_id, amount=40)
        assert (status, problem["code"]) == (422, "unsupported_by_provider")
        assert problem["detail"].startswith("the provider http ")


async def test_a_refund_that_the_client_has_already_is_not_sent_again(api: Api) -> None:
    _, answer = await refund(api, await charged(api))
    path = f"/v1/refunds/{answer['refund']['id']}"
    etag = (await get(api, path))[0].headers["ETag"]
    for known in (etag, f'"9", W/{etag}', "*"):
        async with api.client.get(path, headers={"If-None-Match": known}) as response:
            assert (response.status, response.headers["ETag"], await response.read()) == (304, etag, b"")
    await executed(api, answer["refund"]["id"])
    response, changed = await get(api, path, **{"If-None-Match": etag})
    assert (response.status, changed["refund"]["status"]) == (200, "success")
    assert response.headers["ETag"] != etag


async def test_a_capture_of_all_needs_no_body_beside_the_key(api: Api) -> None:
    path = f"/v1/payments/{await held(api)}/capture"
    response, problem = await post(api, path, b"")
    assert (response.status, problem["code"]) == (400, "idempotency_key_missing")
    response, answer = await post(api, path, b"", **{"Idempotency-Key": "c-1"})
    assert (response.status, answer["operation"]["amount"]) == (202, 440)
    assert (await post(api, path, b"{}", **{"Idempotency-Key": "c-1"}))[0].status == 200


async def test_a_wrong_text_is_explained(api: Api) -> None:
    for query, detail in (
        ("/v1/refunds?idempotency_key=a+b", "idempotency_key: an idempotency key has no spaces"),
        ("/v1/payments?idempotency_key=a+b", "idempotency_key: an idempotency key has no spaces"),
        ("/v1/payment-methods?customer=a+b", "customer: the name of a customer has no spaces"),
    ):
        response, problem = await get(api, query)
        assert (response.status, problem["code"]) == (400, "query_invalid")
        assert problem["detail"] == f"{detail}; a + in a query means a space: write it as %2B"
    payment_id = await charged(api)
    _, problem = await refund(api, payment_id, reason="r" * 501)
    assert problem["detail"] == "/reason: String should have at most 500 characters"
    decision = json.dumps({"as": "success", "reason": "r" * 501, "provider_ref": "c" * 256})
    _, problem = await post(api, f"/v1/payments/{payment_id}/resolve", decision)
    assert [one["detail"] for one in problem["errors"]] == [
        "String should have at most 500 characters",
        "String should have at most 255 characters",
    ]


def intake_that_reads(
    api: Api, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Awaitable[None]]
) -> OperationIntake:
    """Return an intake in which `happens` comes between the refusal of a void and the look at what refused it."""
    lists = api.operations.lists
    read = lists.of_payment

    async def of_payment(payment_id: UUID, *, account_id: str | None) -> Sequence[Operation]:
        await happens()
        return await read(payment_id, account_id=account_id)

    monkeypatch.setattr(lists, "of_payment", of_payment)
    payments = PaymentIntake(store=api.store, producer=MemoryQueue(payments_stream("test")))
    producer = MemoryQueue(operations_stream("test"))
    return OperationIntake(store=api.operations.store, lists=lists, payments=payments, producer=producer)


@pytest.mark.parametrize("outcome", [OperationStatus.SUCCESS, OperationStatus.FAILED_FINAL])
async def test_a_cancel_finds_what_became_of_a_void_that_ended_before_it_was_read(
    api: Api, monkeypatch: pytest.MonkeyPatch, outcome: OperationStatus
) -> None:
    payment_id = UUID(await held(api))
    voids: list[Operation] = []

    async def end() -> None:
        if voids:
            await executed(api, str(voids.pop().id), outcome)

    intake = intake_that_reads(api, monkeypatch, end)
    first = await intake.cancel_payment(payment_id, account_id=ACCOUNT, actor="api")
    assert isinstance(first, OperationReceipt)
    voids.append(first.operation)
    second = await intake.cancel_payment(payment_id, account_id=ACCOUNT, actor="api")
    if outcome is OperationStatus.SUCCESS:
        assert isinstance(second, Payment)
        assert second.status == "canceled"
    else:
        assert isinstance(second, OperationReceipt)
        assert (second.created, second.operation.id != first.operation.id) == (True, True)
