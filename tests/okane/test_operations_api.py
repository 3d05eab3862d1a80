"""Captures, voids and refunds over HTTP: what they take, how they repeat, and what is refused with nothing changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from okane.operation import OperationStatus
from okane.payment import Status
from okane.providers.base import Capability
from okane.store.webhook_events import WebhookEventStore
from tests.okane.api_requests import get, post, settle
from tests.okane.operated_payments import CAPABLE, cancel, capture, charged, executed, held, refund, shown
from tests.okane.served_api import Api, serve_api


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Api]:
    async for one in serve_api(database_url, redis_url, capabilities=CAPABLE):
        yield one


async def changes(api: Api) -> int:
    """Return how many rows captures and refunds have written."""
    counts = "SELECT (SELECT count(*) FROM operations) + (SELECT count(*) FROM idempotency_keys)"
    return int((await api.store._rare.fetch(counts))[0][0])


async def test_a_payment_is_held_and_captured(api: Api) -> None:
    payment_id = await held(api)
    payment = (await shown(api, f"/v1/payments/{payment_id}"))["payment"]
    assert (payment["status"], payment["capture_method"], payment["provider_ref"]) == ("authorized", "manual", "auth_1")
    assert "capture_before" in payment
    assert "amount_captured" not in payment

    status, answer = await capture(api, payment_id, metadata={"order": "7"})
    assert (status, answer["created"], answer["enqueued"]) == (202, True, True)
    operation = answer["operation"]
    assert (operation["kind"], operation["amount"], operation["currency"]) == ("capture", 440, "USD")
    assert (operation["status"], operation["payment"], operation["metadata"]) == ("pending", payment_id, {"order": "7"})
    assert await capture(api, payment_id, metadata={"order": "7"}) == (
        200,
        {"operation": operation, "created": False, "enqueued": False},
    )

    await executed(api, operation["id"])
    payment = (await shown(api, f"/v1/payments/{payment_id}"))["payment"]
    assert (payment["status"], payment["amount_captured"]) == ("success", 440)
    assert "capture_before" not in payment
    [listed] = (await shown(api, f"/v1/payments/{payment_id}/operations"))["operations"]
    assert (listed["id"], listed["status"], listed["provider_ref"]) == (operation["id"], "success", "op_1")
    history = (await shown(api, f"/v1/payments/{payment_id}/events"))["events"]
    assert [(one["event"], one.get("operation")) for one in history[-2:]] == [
        ("capture_requested", operation["id"]),
        ("captured", operation["id"]),
    ]
    [attempt] = (await shown(api, f"/v1/payments/{payment_id}/attempts"))["attempts"]
    assert attempt["outcome"] == "authorized"  # the capture is no outcome of it


async def test_a_wait_ends_when_the_money_is_held_and_goes_on_for_who_knows_that(api: Api) -> None:
    text = json.dumps({"amount": 440, "idempotency_key": "k", "capture_method": "manual"})
    waiting = asyncio.ensure_future(post(api, "/v1/payments", text, Prefer="wait=30"))
    async with asyncio.timeout(30):
        while not (found := await api.store._rare.fetch("SELECT id FROM payments")):
            await asyncio.sleep(0.01)
    until = datetime.now(UTC) + timedelta(days=1)
    await settle(api, str(found[0][0]), Status.AUTHORIZED, provider="http", attempt_ref="auth_1", capture_before=until)
    _, answer = await waiting
    assert answer["payment"]["status"] == "authorized"

    path = f"/v1/payments/{answer['payment']['id']}"
    waiting = asyncio.ensure_future(get(api, path, Prefer="wait=30"))
    async with asyncio.timeout(30):
        while not len(api.long_polling):
            await asyncio.sleep(0.01)
    _, captured = await capture(api, answer["payment"]["id"])
    assert not waiting.done()
    await executed(api, captured["operation"]["id"])
    assert (await waiting)[1]["payment"]["status"] == "success"


EVENTS = "INSERT INTO webhook_accounts VALUES ('default')"


async def test_the_outcomes_of_refunds_are_events_with_the_refund(api: Api, database_url: str) -> None:
    await api.store._rare.fetch(EVENTS)
    payment_id = await held(api)
    _, captured = await capture(api, payment_id, amount=300)
    await executed(api, captured["operation"]["id"])
    _, first = await refund(api, payment_id, amount=100, reason="returned")
    await executed(api, first["refund"]["id"])
    _, second = await refund(api, payment_id, "r-2")
    await executed(api, second["refund"]["id"], OperationStatus.FAILED_FINAL, decline_code="closed", reason="is closed")
    events = WebhookEventStore(database_url)
    assert await events.sequence() is not None
    await events.aclose()
    found = (await shown(api, f"/v1/events?payment={payment_id}"))["events"]
    assert [one["type"] for one in found] == [
        "payment.authorized",
        "payment.succeeded",
        "refund.succeeded",
        "refund.failed",
    ]
    assert found[1]["data"]["payment"]["amount_captured"] == 300
    refunds = [one["data"]["refund"] for one in found[2:]]
    assert [(one["id"], one["status"], one["amount"]) for one in refunds] == [
        (first["refund"]["id"], "success", 100),
        (second["refund"]["id"], "failed_final", 200),
    ]
    assert (refunds[0]["reason"], refunds[1]["decline_code"], refunds[1]["last_error"]) == (
        "returned",
        "closed",
        "is closed",
    )


async def test_a_part_is_captured_once_and_what_was_captured_is_refunded(api: Api) -> None:
    payment_id = await held(api)
    status, problem = await capture(api, payment_id, amount=441)
    assert (status, problem["code"], problem["limit"]) == (422, "capture_exceeds_authorized", 440)
    _, answer = await capture(api, payment_id, amount=300)
    await executed(api, answer["operation"]["id"])
    payment = (await shown(api, f"/v1/payments/{payment_id}"))["payment"]
    assert (payment["status"], payment["amount"], payment["amount_captured"]) == ("success", 440, 300)

    status, problem = await refund(api, payment_id, amount=301)
    assert (status, problem["code"], problem["limit"]) == (422, "refund_exceeds_captured", 300)
    _, answer = await refund(api, payment_id)
    assert answer["refund"]["amount"] == 300
    status, problem = await capture(api, payment_id, "c-2", amount=1)
    assert (status, problem["code"]) == (409, "payment_not_authorized")


async def test_a_capture_that_fails_leaves_the_money_held(api: Api) -> None:
    payment_id = await held(api)
    _, answer = await capture(api, payment_id)
    status, problem = await capture(api, payment_id, "c-2")
    assert (status, problem["code"]) == (409, "operation_in_progress")
    status, problem = await cancel(api, payment_id)
    assert (status, problem["code"]) == (409, "operation_in_progress")
    await executed(api, answer["operation"]["id"], OperationStatus.FAILED_FINAL, decline_code="expired")
    payment = (await shown(api, f"/v1/payments/{payment_id}"))["payment"]
    assert payment["status"] == "authorized"
    assert (await capture(api, payment_id, "c-3"))[0] == 202


async def test_the_cancel_of_a_held_payment_is_a_void(api: Api) -> None:
    payment_id = await held(api)
    status, answer = await cancel(api, payment_id)
    assert (status, answer["created"], answer["enqueued"]) == (202, True, True)
    assert (answer["operation"]["kind"], answer["payment"]["status"]) == ("void", "authorized")
    status, again = await cancel(api, payment_id)
    assert (status, again["operation"]["id"], again["created"]) == (202, answer["operation"]["id"], False)

    await executed(api, answer["operation"]["id"])
    for _ in range(2):
        status, canceled = await cancel(api, payment_id)
        assert (status, canceled["payment"]["status"]) == (200, "canceled")
    status, problem = await capture(api, payment_id)
    assert (status, problem["code"]) == (409, "payment_not_authorized")


async def test_a_payment_that_is_not_held_is_canceled_as_ever(api: Api) -> None:
    _, answer = await post(api, "/v1/payments", '{"amount": 440, "idempotency_key": "k"}')
    status, canceled = await cancel(api, answer["payment"]["id"])
    assert (status, canceled["payment"]["status"]) == (200, "canceled")
    payment_id = await charged(api)
    status, problem = await cancel(api, payment_id)
    assert (status, problem["code"], problem["payment_status"]) == (409, "status_conflict", "success")


async def test_two_cancels_at_once_make_one_void(api: Api) -> None:
    payment_id = await held(api)
    answers = await asyncio.gather(*(cancel(api, payment_id) for _ in range(8)))
    assert {status for status, _ in answers} == {202}
    assert len({answer["operation"]["id"] for _, answer in answers}) == 1
    assert [answer["created"] for _, answer in answers].count(True) == 1


async def test_refunds_together_never_exceed_what_was_captured(api: Api) -> None:
    payment_id = await charged(api)
    answers = await asyncio.gather(*(refund(api, payment_id, f"r-{number}", amount=100) for number in range(12)))
    made = [answer["refund"] for status, answer in answers if status == 202]
    assert [status for status, _ in answers].count(422) == 8
    assert {answer["code"] for status, answer in answers if status == 422} == {"refund_exceeds_captured"}
    assert {answer["limit"] for status, answer in answers if status == 422} <= {40, 140, 240, 340}
    await executed(api, made[0]["id"])
    await executed(
        api, made[1]["id"], OperationStatus.FAILED_FINAL, decline_code="closed", reason="the account is closed"
    )
    payment = (await shown(api, f"/v1/payments/{payment_id}"))["payment"]
    assert (payment["status"], payment["amount_refunded"]) == ("success", 100)
    failed = (await shown(api, f"/v1/refunds/{made[1]['id']}"))["refund"]
    assert (failed["status"], failed["decline_code"]) == ("failed_final", "closed")

    # What the failed one had reserved is free again.
    status, answer = await refund(api, payment_id, "r-rest")
    assert (status, answer["refund"]["amount"]) == (202, 140)


async def test_a_repeat_finds_the_refund_and_another_meaning_does_not(api: Api) -> None:
    payment_id = await charged(api)
    status, first = await refund(api, payment_id, amount=40, reason="returned")
    assert (status, first["refund"]["reason"]) == (202, "returned")
    path = "/v1/refunds"
    text = json.dumps({"payment": f"pay_{payment_id.replace('-', '')}", "amount": 40, "reason": "returned"})
    response, again = await post(api, path, text, **{"Idempotency-Key": '"r-1"'})
    assert (response.status, again["refund"], again["created"]) == (200, first["refund"], False)
    assert response.headers["Idempotent-Replayed"] == "true"
    assert response.headers["Location"] == f"{path}/{first['refund']['id']}"
    for other in ({"amount": 41}, {"reason": None}, {"metadata": {"a": "b"}}, {"currency": "USD"}):
        members: dict[str, Any] = {"amount": 40, "reason": "returned"} | other
        status, problem = await refund(api, payment_id, **members)
        assert (status, problem["code"]) == (422, "idempotency_key_reused")
        assert problem["operation_id"] == first["refund"]["id"]
    # The keys of payments are apart.
    assert (await refund(api, payment_id, "p-1", amount=1))[0] == 202


async def test_refunds_are_listed_by_filter_and_in_pages(api: Api) -> None:
    one, other = await charged(api, "p-1"), await charged(api, "p-2")
    ids = []
    for number in range(5):
        _, answer = await refund(api, (one, other)[number % 2], f"r-{number}", amount=10)
        ids.append(answer["refund"]["id"])
    await executed(api, ids[0])
    await held(api, "p-3")

    async def listed(query: str) -> list[Any]:
        return [ids.index(found["id"]) for found in (await shown(api, f"/v1/refunds?{query}"))["refunds"]]

    assert await listed("") == [4, 3, 2, 1, 0]
    assert await listed("order=ascending") == [0, 1, 2, 3, 4]
    assert await listed(f"payment={one}") == [4, 2, 0]
    assert await listed("status=success") == [0]
    assert await listed("status=success&status=pending&limit=2") == [4, 3]
    assert await listed("idempotency_key=r-3") == [3]
    assert await listed("currency=EUR") == []
    assert await listed("created_before=2020-01-01T00:00:00Z") == []
    assert await listed("created_after=2020-01-01T00:00:00Z&limit=1") == [4]

    response, page = await get(api, "/v1/refunds?limit=2")
    assert page["has_more"]
    assert await listed(f"limit=2&after={page['after']}") == [2, 1]
    assert response.headers["Link"] == f'</v1/refunds?limit=2&after={page["after"]}>; rel="next"'
    response, page = await get(api, f"/v1/payments/{one}/operations?limit=1")
    assert [found["id"] for found in page["operations"]] == [ids[0]]
    _, page = await get(api, f"/v1/payments/{one}/operations?after={page['after']}")
    assert [found["id"] for found in page["operations"]] == [ids[2], ids[4]]


async def test_a_refund_is_canceled_retried_and_decided(api: Api) -> None:
    payment_id = await charged(api)
    _, answer = await refund(api, payment_id)
    path = f"/v1/refunds/{answer['refund']['id']}"
    response, found = await get(api, path)
    assert (found["refund"], response.headers["ETag"]) == (answer["refund"], '"0"')
    response, problem = await post(api, f"{path}/retry", "")
    assert (response.status, problem["code"], problem["operation_status"]) == (409, "status_conflict", "pending")
    for _ in range(2):
        response, canceled = await post(api, f"{path}/cancel", "")
        assert (response.status, canceled["refund"]["status"]) == (200, "canceled")

    _, answer = await refund(api, payment_id, "r-2")  # what the first had reserved is free
    path = f"/v1/refunds/{answer['refund']['id']}"
    await executed(api, answer["refund"]["id"], OperationStatus.FAILED_FINAL, reason="the bank is away")
    response, retried = await post(api, f"{path}/retry", "")
    assert (response.status, retried["refund"]["status"], retried["enqueued"]) == (202, "pending", True)
    assert response.headers["Location"] == path
    await executed(api, answer["refund"]["id"], OperationStatus.NEEDS_REVIEW, reason="no answer")
    decision = '{"as": "success", "reason": "found at the provider", "provider_ref": "re_1"}'
    response, decided = await post(api, f"{path}/resolve", decision)
    assert (response.status, decided["refund"]["status"]) == (200, "success")
    assert decided["refund"]["provider_ref"] == "re_1"
    payment = (await shown(api, f"/v1/payments/{payment_id}"))["payment"]
    assert payment["amount_refunded"] == 440


async def test_a_retry_of_what_is_no_longer_there_is_refused(api: Api) -> None:
    payment_id = await charged(api)
    _, failed = await refund(api, payment_id, amount=400)
    await executed(api, failed["refund"]["id"], OperationStatus.FAILED_FINAL, reason="closed")
    assert (await refund(api, payment_id, "r-2", amount=100))[0] == 202
    response, problem = await post(api, f"/v1/refunds/{failed['refund']['id']}/retry", "")
    assert (response.status, problem["code"], problem["limit"]) == (422, "refund_exceeds_captured", 340)


UNKNOWN = str(uuid4())
BAD: list[tuple[str, dict[str, Any], int, str]] = [
    ("refund", {"amount": 0}, 422, "validation_failed"),
    ("refund", {"amount": -1}, 422, "validation_failed"),
    ("refund", {"amount": "40"}, 422, "validation_failed"),
    ("refund", {"amount": 1.5}, 422, "validation_failed"),
    ("refund", {"amount": True}, 422, "validation_failed"),
    ("refund", {"amount": 2**53}, 422, "amount_unsafe_integer"),
    ("refund", {"amount": 441}, 422, "refund_exceeds_captured"),
    ("refund", {"amount": 40, "currency": "EUR"}, 422, "currency_mismatch"),
    ("refund", {"currency": "usd"}, 422, "validation_failed"),
    ("refund", {"payment": UNKNOWN}, 404, "payment_not_found"),
    ("refund", {"payment": "x"}, 422, "validation_failed"),
    ("refund", {"payment": None}, 422, "validation_failed"),
    ("refund", {"amont": 4}, 422, "validation_failed"),
    ("refund", {"reason": " "}, 422, "validation_failed"),
    ("refund", {"reason": "r" * 501}, 422, "validation_failed"),
    ("refund", {"reason": "card 4242 4242 4242 4242"}, 422, "card_number"),
    ("refund", {"metadata": {"card": "4242424242424242"}}, 422, "card_number"),
    ("refund", {"metadata": {"4242424242424242": ""}}, 422, "card_number"),
    ("refund", {"metadata": {"a": 1}}, 422, "validation_failed"),
    ("refund", {"idempotency_key": "4242424242424242"}, 422, "card_number"),
    ("refund", {"idempotency_key": None}, 400, "idempotency_key_missing"),
    ("refund", {"idempotency_key": "a b"}, 400, "idempotency_key_invalid"),
    ("capture", {"amount": 0}, 422, "validation_failed"),
    ("capture", {"amount": 2**53}, 422, "amount_unsafe_integer"),
    ("capture", {"amount": 441}, 422, "capture_exceeds_authorized"),
    ("capture", {"amount": 40, "currency": "EUR"}, 422, "currency_mismatch"),
    ("capture", {"currency": "usd"}, 422, "validation_failed"),
    ("capture", {"reason": "mine"}, 422, "validation_failed"),
    ("capture", {"idempotency_key": None}, 400, "idempotency_key_missing"),
    ("capture", {"metadata": {"card": "4242424242424242"}}, 422, "card_number"),
    ("capture of a success", {}, 409, "payment_not_authorized"),
    ("refund of a held one", {}, 409, "payment_not_captured"),
]


async def test_what_is_wrong_is_refused_with_a_code_and_changes_nothing(api: Api) -> None:
    paid, locked = await charged(api), await held(api, "p-2")
    payments = [await shown(api, f"/v1/payments/{one}") for one in (paid, locked)]
    for what, members, status, code in BAD:
        key = {"idempotency_key": "k-1"} | members
        if what.startswith("refund"):
            of = locked if "held" in what else paid
            response, problem = await post(api, "/v1/refunds", json.dumps({"payment": of} | key))
        else:
            of = paid if "success" in what else locked
            response, problem = await post(api, f"/v1/payments/{of}/capture", json.dumps(key))
        assert (response.status, problem["code"]) == (status, code), (what, members, problem)
    for text in ("", "[]", "{", '{"amount": 1, "amount": 2}'):
        response, _ = await post(api, "/v1/refunds", text)
        assert response.status == 400
    for path in (f"/v1/payments/{UNKNOWN}/capture", "/v1/payments/x/capture"):
        response, problem = await post(api, path, '{"idempotency_key": "k"}')
        assert (response.status, problem["code"]) == (404, "payment_not_found")
    for path in (f"/v1/refunds/{UNKNOWN}", "/v1/refunds/x"):
        response, problem = await get(api, path)
        assert (response.status, problem["code"]) == (404, "refund_not_found")
    assert await changes(api) == 0
    assert payments == [await shown(api, f"/v1/payments/{one}") for one in (paid, locked)]


async def test_a_capture_is_no_refund(api: Api) -> None:
    _, answer = await capture(api, await held(api))
    path = f"/v1/refunds/{answer['operation']['id']}"
    assert (await get(api, path))[0].status == 404
    for action in ("cancel", "retry"):
        assert (await post(api, f"{path}/{action}", ""))[0].status == 404
    assert (await shown(api, "/v1/refunds"))["refunds"] == []


async def test_a_provider_that_cannot_is_named_before_anything_is_written(database_url: str, redis_url: str) -> None:
    capabilities = {"http": frozenset[Capability](("manual_capture", "void", "refund"))}
    async for api in serve_api(database_url, redis_url, capabilities=capabilities):
        locked, paid = await held(api), await charged(api, "p-2")
        status, problem = await capture(api, locked, amount=1)
        assert (status, problem["code"]) == (422, "unsupported_by_provider")
        status, problem = await refund(api, paid, amount=1)
        assert (status, problem["code"]) == (422, "unsupported_by_provider")
        assert await changes(api) == 0
        assert (await refund(api, paid))[0] == 202
        assert (await capture(api, locked))[0] == 202


async def test_a_repeat_is_answered_whatever_the_provider_can_now(api: Api, database_url: str, redis_url: str) -> None:
    payment_id = await charged(api)
    _, first = await refund(api, payment_id, amount=40)
    async for later in serve_api(database_url, redis_url, capabilities={"http": frozenset()}):
        status, again = await refund(later, payment_id, amount=40)
        assert (status, again["refund"]["id"]) == (200, first["refund"]["id"])
        status, problem = await refund(later, payment_id, "r-2", amount=40)
        assert (status, problem["code"]) == (422, "unsupported_by_provider")


async def test_a_void_that_the_provider_does_not_have_is_refused(api: Api, database_url: str, redis_url: str) -> None:
    locked, under_way = await held(api), await held(api, "p-2")
    assert (await cancel(api, under_way))[0] == 202
    async for later in serve_api(database_url, redis_url, capabilities={"http": frozenset({"manual_capture"})}):
        status, problem = await cancel(later, locked)
        assert (status, problem["code"]) == (422, "unsupported_by_provider")
        assert (await shown(later, f"/v1/payments/{locked}/operations"))["operations"] == []
        # The one that another process has accepted is found.
        status, repeat = await cancel(later, under_way)
        assert (status, repeat["created"]) == (202, False)


@pytest.mark.parametrize("provider", [None, "http"])
async def test_no_money_is_held_where_no_provider_can(database_url: str, redis_url: str, provider: str | None) -> None:
    text = json.dumps({"amount": 1, "idempotency_key": "k", "capture_method": "manual", "provider": provider})
    async for api in serve_api(database_url, redis_url, capabilities={"http": frozenset({"refund"})}):
        response, problem = await post(api, "/v1/payments", text)
        assert (response.status, problem["code"]) == (422, "unsupported_by_provider")
        assert "http" in problem["detail"]


async def test_a_payment_that_is_captured_at_once_looks_as_ever(api: Api) -> None:
    payment_id = await charged(api)
    payment = (await shown(api, f"/v1/payments/{payment_id}"))["payment"]
    assert {"capture_method", "capture_before", "amount_captured", "amount_refunded"}.isdisjoint(payment)
    _, automatic = await post(
        api, "/v1/payments", '{"amount": 440, "idempotency_key": "p-1", "capture_method": "automatic"}'
    )
    assert automatic["payment"]["id"] == payment_id  # the default, given by name, means the same


async def test_a_refund_of_an_open_payment_is_refused(api: Api) -> None:
    _, answer = await post(api, "/v1/payments", '{"amount": 440, "idempotency_key": "k"}')
    payment_id = answer["payment"]["id"]
    for status in (None, Status.FAILED_FINAL):
        if status is not None:
            await settle(api, payment_id, status)
        code, problem = await refund(api, payment_id)
        assert (code, problem["code"]) == (409, "payment_not_captured")
