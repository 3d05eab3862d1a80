"""Input to the routes of webhooks and events that is too long, too large or too much: a problem each, and nothing stored."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from okane.api.long_polling import LONGEST_WAIT_S
from okane.store.webhook_events import WebhookEventStore
from okane.webhooks.types import MAX_PATTERNS
from tests.contract.answers import the_document
from tests.okane.api_keys import ask
from tests.okane.served_api import Api
from tests.okane.webhook_rows import URL, fetch, log_event

PATH, EVENTS = "/v1/webhook-endpoints", "/v1/events"

# Members that both a new endpoint and a change take.
TOO_MUCH: list[dict[str, Any]] = [
    {"url": "https://shop.example/" + "a" * 2048},
    {"types": ["payment.succeeded"] * (MAX_PATTERNS + 1)},
    {"types": ["payment.succeeded"] * 2000},
    {"types": ["p" * 10_000]},
    {"description": "d" * 501},
    {"description": "a\0b"},
    {"max_in_flight": 65},
    {"rate_limit": 10_001},
    {"rate_limit": 10**30},
    {"timeout_s": 10**12},
    {"hold_s": 10**12},
]


async def send(api: Api, method: str, path: str, text: str | None = None, **headers: str) -> tuple[int, Any]:
    response, said = await ask(api, method, path, headers, text)
    if response.status >= 400:
        assert response.content_type == "application/problem+json"
        assert len(json.dumps(said)) < 8192  # an answer does not grow with the request that it refuses
    return response.status, said


async def stored(url: str) -> list[Any]:
    """Return every row that a request could have written."""
    tables = ("webhook_accounts", "webhook_endpoints", "webhook_deliveries", "webhook_replays")
    return [await fetch(url, f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables]


async def test_a_new_endpoint_and_its_changes_are_bounded(api: Api, database_url: str) -> None:
    for members in TOO_MUCH:
        status, said = await send(api, "POST", PATH, json.dumps({"url": URL} | members))
        assert status in {400, 422}, (members, said)
    status, said = await send(api, "POST", PATH, json.dumps({"url": URL, "description": "d" * 70_000}))
    assert status == 413, said
    assert not any(await stored(database_url))
    _, made = await send(api, "POST", PATH, json.dumps({"url": URL}))
    before = await stored(database_url)
    for members in TOO_MUCH:
        status, said = await send(api, "PATCH", f"{PATH}/{made['endpoint']['id']}", json.dumps(members))
        assert status in {400, 422}, (members, said)
    assert await stored(database_url) == before


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("rotate", {"older_valid_for": "999999h"}),
        ("rotate", {"older_valid_for": "9" * 5000 + "h"}),
        ("enable", {"from": "x" * 5000}),
        ("recover", {}),
        ("recover", {"since": "9" * 5000}),
        ("recover", {"since": "10000-01-01T00:00:00Z"}),
        ("recover", {"since": 10**30}),
        ("recover", {"since": "2026-01-01T00:00:00Z", "endpoints": ["x"] * 900}),
    ],
)
async def test_actions_are_bounded(api: Api, database_url: str, action: str, body: dict[str, Any]) -> None:
    _, made = await send(api, "POST", PATH, json.dumps({"url": URL}))
    before = await stored(database_url)
    status, said = await send(api, "POST", f"{PATH}/{made['endpoint']['id']}/{action}", json.dumps(body))
    assert (status, said["code"]) == (422, "validation_failed")
    assert await stored(database_url) == before


async def test_a_recovery_of_all_years_takes_one_row(api: Api, database_url: str) -> None:
    _, made = await send(api, "POST", PATH, json.dumps({"url": URL}))
    for _ in range(3):
        await log_event(database_url)
    body = json.dumps({"since": "0001-01-01T00:00:00Z", "until": "9999-12-31T23:59:59Z"})
    for _ in range(20):  # the same range again is the same recovery
        status, said = await send(api, "POST", f"{PATH}/{made['endpoint']['id']}/recover", body)
        assert (status, said) == (202, {"events": 3})
    assert len(await fetch(database_url, "SELECT 1 FROM webhook_replays")) == 1
    assert await fetch(database_url, "SELECT 1 FROM webhook_deliveries") == []


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=" + "9" * 30,
        "limit=-1",
        "after=" + "A" * 3000,
        "since=" + "9" * 3000,
        "payment=" + "a" * 3000,
        "endpoint=" + "a" * 3000,
        "type=" + "a" * 3000,
        "&".join(["type=payment.succeeded"] * 101),
    ],
)
async def test_a_query_for_events_is_bounded(api: Api, query: str) -> None:
    status, said = await send(api, "GET", f"{EVENTS}?{query}")
    assert (status, said["code"]) == (400, "query_invalid")


async def test_a_wait_has_a_longest_time(api: Api, database_url: str) -> None:
    await send(api, "POST", PATH, json.dumps({"url": URL}))
    await log_event(database_url, type_="webhook_endpoint.failing")
    for preferred, applied in (("wait=99999", f"wait={LONGEST_WAIT_S}"), ("wait=9999999999", None), ("wait=-1", None)):
        response, _ = await ask(api, "GET", EVENTS, {"Prefer": preferred})
        assert (response.status, response.headers.get("Preference-Applied")) == (200, applied)


async def test_a_redelivery_names_one_endpoint(api: Api, database_url: str) -> None:
    await send(api, "POST", PATH, json.dumps({"url": URL}))
    payment_id = uuid4()
    await log_event(database_url, payment_id=payment_id)
    before = await stored(database_url)
    path = f"{EVENTS}/evt_{payment_id.hex}_2/redeliver"
    for body in ({}, {"endpoint": "a" * 5000}, {"endpoint": [str(uuid4())] * 900}, {"endpoint": 10**30}):
        status, said = await send(api, "POST", path, json.dumps(body))
        assert (status, said["code"]) == (422, "validation_failed")
    for method, of_it, text in (("GET", "", None), ("POST", "/redeliver", json.dumps({"endpoint": str(uuid4())}))):
        status, said = await send(api, method, f"{EVENTS}/evt_{'0' * 1000}_1{of_it}", text)
        assert (status, said["code"]) == (404, "event_not_found")
    assert await stored(database_url) == before


async def test_a_page_of_a_payment_reads_no_more_bodies_than_it_has(database_url: str) -> None:
    payment_id = uuid4()
    for version in range(30):
        await log_event(database_url, payment_id=payment_id, version=version)
    events = WebhookEventStore(database_url)
    page = await events.page("default", 3, 5, None, payment_id)
    assert [row.event.position for row in page.rows] == [4, 5, 6, 7, 8]
    page = await events.page("default", 0, 100, ["payment.failed"], payment_id)
    assert (list(page.rows), page.reached) == ([], 30)
    await events.aclose()


def test_the_document_has_the_bounds() -> None:
    create = the_document()["components"]["schemas"]["CreateEndpoint"]["properties"]
    text = json.dumps(create)
    for bound in ('"maxLength": 2048', '"maxItems": 32', '"maxLength": 500', '"maximum": 64', '"maximum": 10000'):
        assert bound in text
