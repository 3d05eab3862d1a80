"""Saved payment methods over HTTP: saved once for a key, shown without tokens, listed, deleted, and named by payments."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import structlog

from okane.payment_id import PaymentId
from tests.okane.api_requests import get, post
from tests.okane.served_api import Api, serve_api

PATH = "/v1/payment-methods"
TOKENS = {"stripe": "cus_17/pm_secret_1", "payu": "TOKC_secret_2"}
CARD = {"tokens": TOKENS, "kind": "card", "brand": "visa", "last4": "4242", "expires": "2028-02", "customer": "c-17"}
CARD_NUMBER = "4242424242424242"


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Api]:
    providers = ("http", "stripe", "payu")
    async for one in serve_api(database_url, redis_url, providers=providers, default_providers=providers):
        yield one


async def save(api: Api, key: str = "m", **members: object) -> tuple[int, Any]:
    response, answer = await post(api, PATH, json.dumps(CARD | {"idempotency_key": key} | members))
    return response.status, answer


async def saved(api: Api, key: str = "m", **members: object) -> str:
    status, answer = await save(api, key, **members)
    assert status == 201, answer
    return str(answer["payment_method"]["id"])


async def pay(api: Api, method: str, key: str = "p", **members: object) -> tuple[int, Any]:
    body = {"amount": 440, "idempotency_key": key, "payment_method": method} | members
    response, answer = await post(api, "/v1/payments", json.dumps(body))
    return response.status, answer


async def test_a_method_is_saved_once_for_a_key_and_shown_without_its_tokens(api: Api) -> None:
    with structlog.testing.capture_logs() as logs:
        response, answer = await post(api, PATH, json.dumps(CARD), **{"Idempotency-Key": "m"})
    assert (response.status, answer["created"]) == (201, True)
    method = answer["payment_method"]
    shown = {name: value for name, value in CARD.items() if name != "tokens"}
    assert method == shown | {"id": method["id"], "providers": ["payu", "stripe"], "created_at": method["created_at"]}
    assert response.headers["Location"] == f"{PATH}/{method['id']}"
    again, repeated = await post(api, PATH, json.dumps(CARD), **{"Idempotency-Key": "m"})
    assert (again.status, again.headers["Idempotent-Replayed"], repeated["created"]) == (200, "true", False)
    assert repeated["payment_method"] == method
    assert (await get(api, f"{PATH}/{method['id']}"))[1] == {"payment_method": method}
    assert not any("secret" in text for text in (str(logs), str(answer), str(repeated)))
    assert [one["event"] for one in logs if one["event"].startswith("payment_method")] == ["payment_method_saved"]


async def test_a_key_with_another_meaning_is_refused_and_names_the_method_that_has_it(api: Api) -> None:
    method = await saved(api)
    for other in ({"last4": "1111"}, {"tokens": TOKENS | {"stripe": "pm_other"}}, {"customer": None}):
        status, problem = await save(api, **other)
        assert (status, problem["code"], problem["payment_method_id"]) == (422, "idempotency_key_reused", method)
    # A payment's keys are its own.
    assert (await pay(api, method, key="m"))[0] == 202


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tokens": {}}, "/tokens"),
    ({"tokens": {"stripe": ""}}, "/tokens/stripe"),
    ({"tokens": {"Stripe": "pm_1"}}, "/tokens/Stripe"),
    ({"tokens": {f"p{number}": "t" for number in range(17)}}, "/tokens"),
    ({"tokens": {"stripe": 1}}, "/tokens/stripe"),
    ({"kind": "Card"}, "/kind"),
    ({"kind": None}, "/kind"),
    ({"last4": "424"}, "/last4"),
    ({"last4": "٤٢٤٢"}, "/last4"),
    ({"expires": "2028-13"}, "/expires"),
    ({"expires": "04/28"}, "/expires"),
    ({"brand": ""}, "/brand"),
    ({"brand": "a\nb"}, "/brand"),
    ({"customer": "c 17"}, "/customer"),
    ({"number": "1"}, "/number"),
]


async def test_a_wrong_member_is_named_and_nothing_is_saved(api: Api) -> None:
    for wrong, pointer in WRONG:
        status, problem = await save(api, **wrong)
        assert (status, problem["code"]) == (422, "validation_failed")
        assert [one["pointer"] for one in problem["errors"]] == [pointer]
        assert "secret" not in str(problem)
    assert (await get(api, PATH))[1]["payment_methods"] == []


async def test_the_number_of_a_card_is_refused_in_every_member(api: Api) -> None:
    for member, pointer in (
        ({"tokens": {"stripe": CARD_NUMBER}}, "/tokens/stripe"),
        ({"brand": CARD_NUMBER}, "/brand"),
        ({"customer": f"c-{CARD_NUMBER}"}, "/customer"),
        ({"kind": f"c_{CARD_NUMBER}"}, "/kind"),
        ({"idempotency_key": CARD_NUMBER}, "/idempotency_key"),
    ):
        response, problem = await post(api, PATH, json.dumps(CARD | {"idempotency_key": "m"} | member))
        assert (response.status, problem["code"]) == (422, "card_number")
        assert [one["pointer"] for one in problem["errors"]] == [pointer]
        assert CARD_NUMBER not in str(problem)


async def test_a_token_for_an_unknown_provider_is_refused_unless_it_was_accepted_before(
    api: Api, database_url: str, redis_url: str
) -> None:
    status, problem = await save(api, tokens={"adyen": "t"})
    assert (status, problem["code"], problem["errors"][0]["pointer"]) == (422, "provider_unknown", "/tokens/adyen")
    method = await saved(api)
    async for fewer in serve_api(database_url, redis_url, providers=("http",)):
        status, answer = await save(fewer)
        assert (status, answer["payment_method"]["id"]) == (200, method)


async def test_lists_are_paged_newest_first_by_customer_and_without_deleted_ones(api: Api) -> None:
    made = [await saved(api, f"m{number}", customer=f"c-{number % 2}") for number in range(5)]
    assert (await api.client.delete(f"{PATH}/{made[2]}")).status == 204
    _, first = await get(api, f"{PATH}?limit=3")
    _, last = await get(api, f"{PATH}?limit=3&after={first['after']}")
    assert [one["id"] for one in first["payment_methods"]] == [made[4], made[3], made[1]]
    assert [one["id"] for one in last["payment_methods"]] == [made[0]]
    assert not last["has_more"]
    _, of_customer = await get(api, f"{PATH}?customer=c-0")
    assert [one["id"] for one in of_customer["payment_methods"]] == [made[4], made[0]]
    assert (await get(api, f"{PATH}?customer=c-2"))[1]["payment_methods"] == []
    response, problem = await get(api, f"{PATH}?kind=card")
    assert (response.status, problem["code"]) == (400, "query_invalid")


async def test_a_deleted_method_takes_no_new_payments_and_is_still_shown(api: Api) -> None:
    method = await saved(api)
    status, accepted = await pay(api, method)
    assert status == 202
    for _ in range(2):
        assert (await api.client.delete(f"{PATH}/{method}")).status == 204
    assert "deleted_at" in (await get(api, f"{PATH}/{method}"))[1]["payment_method"]
    status, problem = await pay(api, method, key="later")
    assert (status, problem["code"]) == (422, "payment_method_unknown")
    status, repeated = await pay(api, method)  # of the payment that was accepted before
    assert (status, repeated["payment"]["id"]) == (200, accepted["payment"]["id"])
    status, again = await save(api)
    assert (status, "deleted_at" in again["payment_method"]) == (200, True)


async def test_a_method_that_is_not_there_is_a_404(api: Api) -> None:
    paths = [f"{PATH}/{uuid4()}", f"{PATH}/no-id", f"{PATH}/%ff"]
    for method, path in itertools.product(("get", "delete"), paths):
        async with api.client.request(method, path) as response:
            assert (response.status, (await response.json())["code"]) == (404, "payment_method_not_found")


@pytest.mark.parametrize("way", ["/v1/payments", "/payments", "aiohttp", "batch"])
async def test_a_payment_may_name_a_saved_method_on_every_way(api: Api, way: str) -> None:
    method = await saved(api)
    own_token = str(uuid4())  # many providers have such
    bodies = [
        json.dumps({"amount": 1, "idempotency_key": key, "payment_method": name})
        for key, name in (("a", method), ("b", str(PaymentId())), ("c", own_token))
    ]
    if way == "batch":
        _, answer = await post(api, "/v1/payments/batch", f"[{','.join(bodies)}]")
        statuses = [one["status"] for one in answer["results"]]
        problem = answer["results"][1]["problem"]
    else:
        headers = {"Prefer": "wait=0"} if way == "aiohttp" else {}
        path = way if way.startswith("/") else "/v1/payments"
        answers = [await post(api, path, one, **headers) for one in bodies]
        statuses, problem = [response.status for response, _ in answers], answers[1][1]
    assert statuses == [202, 422, 202]
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("payment_method_unknown", "/payment_method")
    named = await api.store._rare.fetch("SELECT payment_method FROM payments")
    assert {method, own_token} == {one for (one,) in named}


async def test_a_payment_is_led_to_a_provider_with_a_token_of_its_method(api: Api) -> None:
    method = await saved(api)
    assert (await pay(api, method, key="any"))[0] == 202
    assert (await pay(api, method, key="own", provider="payu"))[0] == 202
    status, problem = await pay(api, method, key="other", provider="http")
    assert (status, problem["code"]) == (422, "payment_method_unusable")
    assert "payu, stripe" in problem["detail"]
    assert "secret" not in str(problem)
    led = await api.store._rare.fetch(
        "SELECT idempotency_key, requested_provider, candidates FROM payments ORDER BY id"
    )
    assert led == [("any", None, ["stripe", "payu"]), ("own", "payu", None)]


async def test_a_payment_says_whether_its_customer_is_present(api: Api) -> None:
    method, url = await saved(api), "https://shop.example/done"
    right: list[dict[str, Any]] = [{"customer_present": True, "return_url": url}, {"customer_present": False}, {}]
    wrong: list[dict[str, Any]] = [{"customer_present": True}, {"customer_present": False, "return_url": url}]
    for number, members in enumerate(right):
        assert (await pay(api, method, key=f"right-{number}", **members))[0] == 202
    for members in wrong:
        status, problem = await pay(api, method, key="wrong", **members)
        assert (status, problem["errors"][0]["pointer"]) == (422, "/customer_present")
    # It says what the return_url says already: the request has the same meaning without it.
    status, answer = await pay(api, method, key="right-0", return_url=url)
    assert (status, answer["created"]) == (200, False)
