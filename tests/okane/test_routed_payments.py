"""The routes of new payments in the API: candidates are stored on every way, and what none can take is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Sequence

import pytest

from okane.api.problems import Problem
from okane.intake.accept import IntakeReceipt
from okane.providers.routing import Router, RouteRule
from tests.okane.api_requests import post
from tests.okane.served_api import Api, serve_api

RULES = (
    {"currency": "PLN", "use": ["payu", "http"]},
    {"capture_method": "manual", "use": ["payu"]},
    {"amount_from": 1_000, "weights": {"http": 1, "payu": 1}},
)
ROUTER = Router(
    [RouteRule.model_validate(rule) for rule in RULES], defaults=["http"], capabilities={"http": {"manual_capture"}}
)


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Api]:
    async for one in serve_api(database_url, redis_url, providers=("http", "payu"), router=ROUTER):
        yield one


def body(key: str = "k", **members: object) -> str:
    return json.dumps({"amount": 440, "currency": "PLN", "idempotency_key": key} | members)


async def candidates(api: Api) -> Sequence[Sequence[str] | None]:
    """Return the candidates of every payment, in the order of acceptance."""
    return [found for (found,) in await api.store._rare.fetch("SELECT candidates FROM payments ORDER BY id")]


@pytest.mark.parametrize("way", ["/v1/payments", "/payments", "aiohttp", "batch"])
async def test_the_candidates_of_a_payment_are_stored_on_every_way(api: Api, way: str) -> None:
    if way == "batch":
        await post(api, "/v1/payments/batch", f"[{body()}]")
    else:
        headers = {"Prefer": "wait=0"} if way == "aiohttp" else {}
        response, _ = await post(api, way if way.startswith("/") else "/v1/payments", body(), **headers)
        assert response.status == 202
    assert await candidates(api) == [["payu", "http"]]


async def test_a_payment_without_a_rule_and_one_that_names_its_provider_have_no_candidates(api: Api) -> None:
    await post(api, "/v1/payments", body(currency="EUR"))
    await post(api, "/v1/payments", body("k2", provider="http"))
    assert await candidates(api) == [None, None]


async def test_the_first_candidate_by_weight_differs_from_payment_to_payment(api: Api) -> None:
    for number in range(40):
        await post(api, "/v1/payments", body(f"k{number}", currency="EUR", amount=1_000))
    found = await candidates(api)
    assert {tuple(one or ()) for one in found} == {("http", "payu"), ("payu", "http")}


async def test_a_repeat_keeps_the_candidates_of_the_first_request(api: Api) -> None:
    await post(api, "/v1/payments", body())
    ROUTER.set_rules([])
    try:
        response, _ = await post(api, "/v1/payments", body())
    finally:
        ROUTER.set_rules([RouteRule.model_validate(rule) for rule in RULES])
    assert response.status == 200
    assert await candidates(api) == [["payu", "http"]]


async def test_what_no_candidate_can_take_is_refused_alone_and_not_if_it_repeats_an_accepted_request(api: Api) -> None:
    async def create(*keys: str) -> Sequence[IntakeReceipt | BaseException]:
        news = [api.creation.parse(body(key, currency="EUR").encode(), (), account_id="default") for key in keys]
        return await api.creation.create([dataclasses.replace(news[0], manual_capture=True), *news[1:]])

    refused, accepted = await create("k", "k2")
    assert isinstance(refused, Problem)
    assert (refused.status, refused.code, refused.retryable) == (422, "unsupported_by_provider", False)
    assert str(refused.detail).endswith("can: route 2: payu: it cannot capture manually")
    assert isinstance(accepted, IntakeReceipt)
    ROUTER.set_rules([])
    await create("k")
    ROUTER.set_rules([RouteRule.model_validate(rule) for rule in RULES])
    [repeated] = await create("k")
    assert isinstance(repeated, IntakeReceipt)
    assert not repeated.created
