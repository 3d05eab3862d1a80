"""The members of a payment that concern its provider: requested, stored, shown, waited for, and refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from okane.client import Client, Conflict, NewPayment, Receipt
from okane.payment import NextAction, Status
from okane.store import Settlement
from tests.okane.api_requests import get, post, rows, settle
from tests.okane.served_api import Api, serve_api
from tests.okane.stored_payments import accept_one

MEMBERS = {"payment_method": 'pm_"card\\visa', "return_url": "https://shop.example/done?a=b&c=d"}
ACTION = NextAction('https://bank.example/3ds?id=7&x="y"')
SHOWN_ACTION = {"kind": "redirect", "url": ACTION.url}


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Api]:
    async for one in serve_api(database_url, redis_url, providers=("http", "stripe")):
        yield one


def body(key: str = "k", **members: object) -> str:
    return json.dumps({"amount": 440, "idempotency_key": key} | members)


async def made(api: Api, key: str = "k", **members: object) -> str:
    response, answer = await post(api, "/v1/payments", body(key, **members))
    assert response.status == 202, answer
    return str(answer["payment"]["id"])


async def wait_for_customer(api: Api, payment_id: str) -> Settlement:
    return await settle(
        api,
        payment_id,
        Status.REQUIRES_ACTION,
        event="pending",
        attempt_ref="pi_1",
        next_action=ACTION,
        delay=timedelta(minutes=1),
    )


async def claim_again(api: Api, payment_id: str) -> None:
    await api.store._rare.fetch("UPDATE payments SET retry_at = now() WHERE id = %(id)s", {"id": payment_id})


async def shown(api: Api, payment_id: str) -> Any:
    _, answer = await get(api, f"/v1/payments/{payment_id}")
    return answer["payment"]


@pytest.mark.parametrize("way", ["/v1/payments", "/payments", "aiohttp", "batch", "lines"])
async def test_they_are_kept_and_shown_on_every_way(api: Api, way: str) -> None:
    text = body(**MEMBERS, provider="stripe")
    if way in {"batch", "lines"}:
        headers = {"Content-Type": "application/x-ndjson"} if way == "lines" else {}
        _, answer = await post(api, "/v1/payments/batch", f"[{text}]" if way == "batch" else text, **headers)
        [answer] = answer["results"]
    else:
        headers = {"Prefer": "wait=0"} if way == "aiohttp" else {}
        _, answer = await post(api, way if way.startswith("/") else "/v1/payments", text, **headers)
    payment = answer["payment"]
    assert {name: payment[name] for name in MEMBERS} == MEMBERS
    assert "provider" not in payment  # none has been chosen yet
    assert await shown(api, payment["id"]) == payment
    [(requested,)] = await api.store._rare.fetch("SELECT requested_provider FROM payments")
    assert requested == "stripe"
    _, page = await get(api, "/v1/payments")
    assert page["payments"] == [payment]


@pytest.mark.parametrize("name", ["payment_method", "return_url", "provider"])
async def test_a_key_belongs_to_one_meaning_of_them(api: Api, name: str) -> None:
    values = {"payment_method": "pm_1", "return_url": "https://shop.example/", "provider": "http"}
    others = {"payment_method": "pm_2", "return_url": "https://shop.example/2", "provider": "stripe"}
    await made(api, **values)
    response, _ = await post(api, "/v1/payments", body(**values))
    assert response.status == 200
    without = {one: text for one, text in values.items() if one != name}
    for other in (values | {name: others[name]}, without):
        response, problem = await post(api, "/v1/payments", body(**other))
        assert (response.status, problem["code"]) == (422, "idempotency_key_reused")
    assert await rows(api) == 1


async def test_a_provider_that_the_server_lacks_is_refused_with_the_names_that_it_has(api: Api) -> None:
    for headers in ({}, {"Prefer": "wait=0"}):
        response, problem = await post(api, "/v1/payments", body(provider="payu"), **headers)
        assert (response.status, problem["code"], problem["retryable"]) == (422, "provider_unknown", False)
        assert problem["detail"] == "/provider: the providers here are http, stripe"
        assert [(one["pointer"], one["code"]) for one in problem["errors"]] == [("/provider", "provider_unknown")]
    _, answer = await post(api, "/v1/payments/batch", f"[{body(provider='payu')}, {body('k2', provider='http')}]")
    assert [one["status"] for one in answer["results"]] == [422, 202]
    assert await rows(api) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [("payment_method", "4242424242424242"), ("return_url", "https://shop.example/4242-4242-4242-4242")],
)
async def test_a_card_number_is_no_token(api: Api, name: str, text: str) -> None:
    response, problem = await post(api, "/v1/payments", body(**{name: text}))
    assert (response.status, problem["code"], problem["errors"][0]["pointer"]) == (422, "card_number", f"/{name}")
    assert text not in json.dumps(problem)
    assert await rows(api) == 0


async def test_a_repeat_may_name_a_provider_that_the_server_does_not_have_any_more(api: Api) -> None:
    text = body(provider="payu")
    await accept_one(api.store, api.creation.parse(text.encode(), (), account_id="default"))
    for headers in ({}, {"Prefer": "wait=0"}):
        response, _ = await post(api, "/v1/payments", text, **headers)
        assert (response.status, response.headers["Idempotent-Replayed"]) == (200, "true")


@pytest.mark.parametrize("name", ["payment_method", "return_url", "provider"])
async def test_the_older_queues_route_takes_none_of_them(api: Api, name: str) -> None:
    for headers in ({}, {"Prefer": "wait=0"}):
        response, problem = await post(api, "/pay", body(**{name: "http"}), **headers)
        assert (response.status, problem["code"]) == (422, "validation_failed")
        [error] = problem["errors"]
        assert (error["pointer"], error["code"]) == (f"/{name}", "unknown_member")
        assert name not in error["detail"]


async def test_a_payment_that_requires_an_action_shows_it_until_the_provider_has_decided(api: Api) -> None:
    payment_id = await made(api, **MEMBERS)
    await wait_for_customer(api, payment_id)
    payment = await shown(api, payment_id)
    assert (payment["status"], payment["next_action"]) == ("requires_action", SHOWN_ACTION)
    assert (payment["provider"], payment["provider_ref"]) == ("http", "pi_1")  # of the attempt
    response, older = await get(api, f"/payments/pay_{UUID(payment_id).hex}")
    assert (response.status, older["status"]) == (200, "PROCESSING")
    await claim_again(api, payment_id)
    await settle(api, payment_id, Status.SUCCESS, call="look_up", provider_ref="ch_1")
    payment = await shown(api, payment_id)
    assert (payment["status"], payment["provider_ref"]) == ("success", "ch_1")  # of the charge
    assert "next_action" not in payment
    _, history = await get(api, f"/v1/payments/{payment_id}/events")
    assert [(one["event"], one["status"]) for one in history["events"]] == [
        ("accepted", "pending"),
        ("claimed", "processing"),
        ("pending", "requires_action"),
        ("claimed", "processing"),
        ("success", "success"),
    ]
    _, attempts = await get(api, f"/v1/payments/{payment_id}/attempts")
    assert [one["outcome"] for one in attempts["attempts"]] == ["pending", "success"]


async def test_lists_find_payments_that_are_at_their_provider_by_status_and_by_reference(api: Api) -> None:
    acting, submitted, paid = [await made(api, key) for key in ("acting", "submitted", "paid")]
    await wait_for_customer(api, acting)
    await settle(
        api,
        submitted,
        Status.SUBMITTED,
        event="pending",
        attempt_ref="pi_2",
        delay=timedelta(minutes=1),
        provider="http",
    )
    await settle(api, paid, Status.SUCCESS, provider_ref="ch_3", attempt_ref="pi_3", provider="http")
    for query, found in {
        "status=requires_action": [acting],
        "status=submitted": [submitted],
        "status=submitted&status=requires_action": [submitted, acting],
        "status=requires_action&status=success": [paid, acting],
        "provider_ref=pi_1": [acting],
        "provider_ref=pi_2": [submitted],
        "provider_ref=ch_3": [paid],
    }.items():
        _, page = await get(api, f"/v1/payments?{query}")
        assert [one["id"] for one in page["payments"]] == found, query


@pytest.mark.parametrize(
    ("status", "said"),
    [(Status.REQUIRES_ACTION, "when the customer acts"), (Status.SUBMITTED, "will report whether it was charged")],
)
@pytest.mark.parametrize("action", ["cancel", "retry"])
async def test_a_payment_that_is_at_its_provider_can_be_neither_canceled_nor_retried(
    api: Api, status: Status, said: str, action: str
) -> None:
    payment_id = await made(api)
    await settle(api, payment_id, status, event="pending", attempt_ref="pi_1", delay=timedelta(minutes=1))
    response, problem = await post(api, f"/v1/payments/{payment_id}/{action}", "")
    assert (response.status, problem["code"], problem["payment_status"]) == (409, "status_conflict", status.value)
    assert said in problem["detail"]


async def until_waiting(api: Api, count: int = 1) -> None:
    async with asyncio.timeout(60):
        while len(api.long_polling) < count:
            await asyncio.sleep(0.01)


async def test_a_next_action_ends_the_wait_of_requests_that_do_not_know_it_yet(api: Api) -> None:
    making = asyncio.create_task(post(api, "/v1/payments", body(), Prefer="wait=30"))
    await until_waiting(api)
    payment_id = await made_id(api)
    reading = asyncio.create_task(get(api, f"/v1/payments/{payment_id}", Prefer="wait=30"))
    await until_waiting(api, 2)
    await wait_for_customer(api, payment_id)
    for response, answer in (await making, await reading):
        assert response.headers["Preference-Applied"] == "wait=30"
        assert answer["payment"]["next_action"] == SHOWN_ACTION


async def made_id(api: Api) -> str:
    _, page = await get(api, "/v1/payments")
    return str(page["payments"][0]["id"])


async def test_a_request_that_knows_the_next_action_waits_for_its_result(api: Api) -> None:
    payment_id = await made(api)
    await wait_for_customer(api, payment_id)
    reading = asyncio.create_task(get(api, f"/v1/payments/{payment_id}", Prefer="wait=30"))
    await until_waiting(api)
    await claim_again(api, payment_id)
    await wait_for_customer(api, payment_id)  # polled: still not done
    other = await made(api, "other")
    seeing = asyncio.create_task(get(api, f"/v1/payments/{other}", Prefer="wait=30"))
    await until_waiting(api, 2)
    await settle(api, other, Status.SUCCESS)
    await seeing  # the waits have been looked at
    assert not reading.done()
    await claim_again(api, payment_id)
    await settle(api, payment_id, Status.SUCCESS, call="look_up", provider_ref="ch_1")
    _, answer = await reading
    assert answer["payment"]["status"] == "success"


async def test_the_client_sends_them_and_reads_them(api: Api) -> None:
    token, url = MEMBERS["payment_method"], MEMBERS["return_url"]
    new = NewPayment(amount=440, idempotency_key="k", payment_method=token, return_url=url, provider="stripe")
    async with Client(api.url) as client:
        payment = (await client.pay(new)).payment
        assert (payment.payment_method, payment.return_url) == (token, url)
        assert (payment.provider, payment.next_action) == (None, None)
        [repeat] = await client.pay_many([new])
        assert isinstance(repeat, Receipt)
        assert not repeat.created
        plain = (await client.pay(NewPayment(amount=440, idempotency_key="plain"))).payment
        await wait_for_customer(api, str(plain.id))
        plain = await client.payment(plain.id)
        assert plain.status is Status.REQUIRES_ACTION
        assert plain.next_action is not None
        assert (plain.next_action.kind, plain.next_action.url) == ("redirect", ACTION.url)
        assert (plain.provider, plain.provider_ref) == ("http", "pi_1")
        assert [one.id async for one in client.payments(status=[Status.REQUIRES_ACTION])] == [plain.id]
        with pytest.raises(Conflict) as conflict:
            await client.cancel(plain.id)
        assert conflict.value.payment_status == "requires_action"
