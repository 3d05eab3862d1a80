"""The feed of events: every event once and in order, by page and by waiting, and the repeat of deliveries."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from okane.api.access import KeyAccess
from okane.api.event_waiting import MAX_WAITING
from okane.api_key import Mode, Scope
from okane.errors import AccountBusy
from okane.payment import Status
from okane.store import ApiKeyStore
from okane.store.webhook_events import WebhookEventStore
from okane.webhooks import payload
from tests.contract.answers import the_document, validator
from tests.okane.api_keys import ask, bearer, make, store
from tests.okane.api_requests import settle
from tests.okane.served_api import Api, serve_api
from tests.okane.webhook_rows import URL, fetch

FIXTURES = (store,)
PATH = "/v1/events"


class Feed:
    """An API whose one account has an endpoint, and the sequencer."""

    def __init__(self, api: Api, log: WebhookEventStore) -> None:
        self.api = api
        self.log = log
        self.endpoint = ""

    async def send(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        text = None if body is None else json.dumps(body)
        response, said = await ask(self.api, method, path, headers, text)
        return response.status, said

    async def page(self, query: str = "", **headers: str) -> Any:
        status, said = await self.send("GET", f"{PATH}{query}", **headers)
        assert status == 200, said
        return said

    async def happen(self, status: Status = Status.SUCCESS, **more: object) -> str:
        """Make and settle a payment; return the id of its event."""
        payment_id = await self.pay()
        await settle(self.api, payment_id, status, **more)
        await self.log.sequence()
        return payload.event_id(UUID(payment_id), 2)

    async def pay(self) -> str:
        body = {"amount": 440, "idempotency_key": str(uuid4()), "metadata": {"order": "ü𝄞"}}
        status, said = await self.send("POST", "/v1/payments", body)
        assert status == 202
        return str(said["payment"]["id"])


@pytest.fixture
async def feed(api: Api, database_url: str) -> AsyncIterator[Feed]:
    log = WebhookEventStore(database_url)
    one = Feed(api, log)
    _, made = await one.send("POST", "/v1/webhook-endpoints", {"url": URL, "types": ["payment.*"]})
    one.endpoint = made["endpoint"]["id"]
    yield one
    await log.aclose()


def ids(page: Any) -> list[str]:
    return [event["id"] for event in page["events"]]


async def test_events_are_listed_in_order_and_every_page_leads_to_the_next(feed: Feed) -> None:
    happened = [await feed.happen() for _ in range(5)]
    assert ids(await feed.page()) == happened
    seen, after = [], ""
    for has_more in (True, True, False):
        page = await feed.page(f"?limit=2{after}")
        assert page["has_more"] is has_more
        seen += ids(page)
        after = f"&after={page['after']}"
    assert seen == happened
    empty = await feed.page(f"?limit=2{after}")
    assert (empty["events"], empty["has_more"], f"&after={empty['after']}") == ([], False, after)
    later = await feed.happen()
    assert ids(await feed.page(f"?limit=2{after}")) == [later]


async def test_the_link_leads_to_the_next_page(feed: Feed) -> None:
    happened = [await feed.happen() for _ in range(2)]
    response, _ = await ask(feed.api, "GET", f"{PATH}?limit=1&type=payment.*", {})
    link = response.headers["Link"].partition(">")[0].removeprefix("<")
    _, following = await ask(feed.api, "GET", link, {})
    assert ids(following) == [happened[1]]


async def test_filters_take_types_and_one_payment(feed: Feed) -> None:
    failed = await feed.happen(Status.FAILED_FINAL, event="declined", decline_code="stolen_card")
    won, again = await feed.happen(), await feed.happen()
    assert ids(await feed.page("?type=payment.failed")) == [failed]
    assert ids(await feed.page("?type=payment.failed&type=payment.succeeded")) == [failed, won, again]
    assert ids(await feed.page("?type=payment.*")) == [failed, won, again]
    assert ids(await feed.page("?type=webhook_endpoint.*")) == []
    payment = won.removeprefix("evt_").partition("_")[0]
    assert ids(await feed.page(f"?payment={UUID(payment)}")) == [won]
    assert ids(await feed.page(f"?payment={UUID(payment)}&type=payment.failed")) == []
    page = await feed.page("?type=payment.canceled")
    assert (page["events"], page["has_more"]) == ([], False)


async def test_a_feed_begins_at_a_time(feed: Feed, database_url: str) -> None:
    happened = [await feed.happen() for _ in range(4)]
    now = datetime.now(UTC)
    for number in range(4):
        at = now - timedelta(hours=4 - number)
        await fetch(database_url, "UPDATE webhook_events SET at = %s WHERE position = %s", at, number + 1)
    since = (now - timedelta(hours=2, minutes=30)).isoformat().replace("+", "%2B")
    assert ids(await feed.page(f"?since={since}")) == happened[2:]
    first = await feed.page("?limit=3")
    assert ids(await feed.page(f"?since={since}&after={first['after']}")) == happened[3:]
    future = (now + timedelta(hours=1)).isoformat().replace("+", "%2B")
    end = await feed.page(f"?since={future}")
    assert (end["events"], end["after"]) == ([], (await feed.page())["after"])


@pytest.mark.parametrize(
    "query",
    [
        "?limit=0",
        "?limit=101",
        "?after=x",
        "?after=________AAA",
        "?type=payment.won",
        "?type=",
        "?payment=1",
        "?endpoint=1",
        "?since=yesterday",
        "?order=descending",
        "?after=AAAAAAAAAAA&after=AAAAAAAAAAA",
    ],
)
async def test_a_wrong_parameter_is_refused(api: Api, query: str) -> None:
    response, said = await ask(api, "GET", f"{PATH}{query}", {})
    assert (response.status, said["code"]) == (400, "query_invalid")


async def test_a_request_waits_for_the_next_event(feed: Feed) -> None:
    after = (await feed.page())["after"]
    waiting = asyncio.create_task(feed.page(f"?after={after}", Prefer="wait=20"))
    while not len(feed.api.event_waiting):
        await asyncio.sleep(0.01)
    happened = await feed.happen()
    async with asyncio.timeout(15):
        assert ids(await waiting) == [happened]
    assert len(feed.api.event_waiting) == 0


async def test_a_request_that_waits_for_one_type_lets_the_others_pass(feed: Feed) -> None:
    waiting = asyncio.create_task(feed.page("?type=payment.failed", Prefer="wait=20"))
    while not len(feed.api.event_waiting):
        await asyncio.sleep(0.01)
    for _ in range(3):
        await feed.happen()
    failed = await feed.happen(Status.FAILED_FINAL, event="declined")
    async with asyncio.timeout(15):
        assert ids(await waiting) == [failed]


async def test_a_request_that_finds_events_does_not_wait(feed: Feed) -> None:
    happened = await feed.happen()
    async with asyncio.timeout(15):
        response, page = await ask(feed.api, "GET", PATH, {"Prefer": "wait=30"})
    assert (ids(page), response.headers["Preference-Applied"]) == ([happened], "wait=30")


async def test_the_wait_ends_without_an_event(feed: Feed) -> None:
    page = await feed.page(Prefer="wait=1")
    assert (page["events"], page["has_more"]) == ([], False)


async def test_every_event_reaches_a_reader_that_follows_while_they_happen(feed: Feed) -> None:
    """One that is sequenced between a read and the wait after it is not slept through."""

    async def follow() -> list[str]:
        seen: list[str] = []
        after = ""
        while len(seen) < 30:
            page = await feed.page(f"?limit=3{after}", Prefer="wait=20")
            seen += ids(page)
            after = f"&after={page['after']}"
        return seen

    following = asyncio.create_task(follow())
    happened = [await feed.happen() for _ in range(30)]
    async with asyncio.timeout(30):
        assert await following == happened


async def test_a_server_that_stops_releases_those_who_wait(feed: Feed) -> None:
    waiting = asyncio.create_task(feed.page(Prefer="wait=30"))
    while not len(feed.api.event_waiting):
        await asyncio.sleep(0.01)
    await feed.api.event_waiting.aclose()
    async with asyncio.timeout(20):
        assert (await waiting)["events"] == []


async def test_an_event_is_shown_as_it_is_sent(feed: Feed) -> None:
    happened = await feed.happen()
    async with feed.api.client.get(f"{PATH}/{happened}") as response:
        body = await response.read()
        assert (response.status, response.content_type) == (200, "application/json")
    position = (await feed.log.page("default", 0, 10)).rows[0]
    assert body == payload.body(position, Format())
    assert json.loads(body) == (await feed.page())["events"][0]
    assert "ü𝄞".encode() in body


class Format:
    payload: Any = "snapshot"
    api_version = "2026-12-01"


@pytest.mark.parametrize("event_id", ["evt_1", "evt_" + "0" * 32 + "_1", "evt_" + "0" * 32 + "_99999999999", "x" * 200])
async def test_there_is_no_event_of_an_unknown_id(api: Api, event_id: str) -> None:
    for method, of_it in (("GET", ""), ("GET", "/deliveries"), ("POST", "/redeliver")):
        body = json.dumps({"endpoint": str(uuid4())}) if method == "POST" else None
        response, said = await ask(api, method, f"{PATH}/{event_id}{of_it}", {}, body)
        assert (response.status, said["code"]) == (404, "event_not_found")


async def test_a_delivered_event_is_delivered_again(feed: Feed, database_url: str) -> None:
    happened = await feed.happen()
    assert await feed.send("GET", f"{PATH}/{happened}/deliveries") == (200, {"deliveries": []})
    await fetch(
        database_url,
        """INSERT INTO webhook_deliveries (endpoint_id, position, state, attempts, status, ms, at, earlier)
        SELECT id, 1, 'delivered', 2, 200, 9, now(), jsonb_build_array(jsonb_build_object(
            'at', now(), 'status', 503, 'ms', 12, 'reason', 'status_5xx')) FROM webhook_endpoints""",
    )
    status, said = await feed.send("GET", f"{PATH}/{happened}/deliveries")
    [delivery] = said["deliveries"]
    assert (status, delivery["endpoint"], delivery["state"], delivery["attempts"]) == (
        200,
        feed.endpoint,
        "delivered",
        2,
    )
    assert [one["status"] for one in delivery["earlier"]] == [503]
    status, said = await feed.send("POST", f"{PATH}/{happened}/redeliver", {"endpoint": feed.endpoint})
    assert (status, said["delivery"]["state"], "next_at" in said["delivery"]) == (202, "waiting", True)
    status, said = await feed.send("POST", f"{PATH}/{happened}/redeliver", {"endpoint": str(uuid4())})
    assert (status, said["code"]) == (404, "endpoint_not_found")
    status, said = await feed.send("POST", f"{PATH}/{happened}/redeliver", {"endpoint": "x"})
    assert (status, said["code"]) == (422, "validation_failed")


async def test_the_deliveries_of_an_endpoint_are_listed_newest_first(feed: Feed, database_url: str) -> None:
    happened = [await feed.happen() for _ in range(3)]
    await fetch(
        database_url,
        """INSERT INTO webhook_deliveries (endpoint_id, position, state, attempts, status, ms, reason, at)
        SELECT id, n, CASE n WHEN 1 THEN 'given_up' ELSE 'delivered' END, 1, 200, 9, NULL, now()
        FROM webhook_endpoints, generate_series(1, 3) n""",
    )
    path = f"/v1/webhook-endpoints/{feed.endpoint}/deliveries"
    seen, after = [], ""
    for has_more in (True, False):
        response, page = await ask(feed.api, "GET", f"{path}?limit=2{after}", {})
        assert (response.status, page["has_more"], "Link" in response.headers) == (200, has_more, has_more)
        seen += [(one["event"], one["type"], one["endpoint"]) for one in page["deliveries"]]
        after = f"&after={page['after']}"
    assert seen == [(event, "payment.succeeded", feed.endpoint) for event in reversed(happened)]
    _, page = await feed.send("GET", f"{path}?state=given_up&state=waiting")
    assert ([one["event"] for one in page["deliveries"]], page["has_more"], page["after"]) == (
        [happened[0]],
        False,
        None,
    )
    for query in ("?state=failed", "?after=x", "?limit=101", "?type=payment.failed"):
        status, said = await feed.send("GET", path + query)
        assert (status, said["code"]) == (400, "query_invalid")
    status, said = await feed.send("GET", f"/v1/webhook-endpoints/{uuid4()}/deliveries")
    assert (status, said["code"]) == (404, "endpoint_not_found")


async def test_a_reader_gets_the_types_of_its_endpoint_and_what_is_redelivered(feed: Feed) -> None:
    body = {"url": None, "types": ["payment.failed"]}
    _, made = await feed.send("POST", "/v1/webhook-endpoints", body)
    reader, start = made["endpoint"]["id"], made["endpoint"]["starts_after"]
    won, failed = await feed.happen(), await feed.happen(Status.FAILED_FINAL, event="declined")
    page = await feed.page(f"?endpoint={reader}&after={start}")
    assert (ids(page), page["redelivered"]) == ([failed], [])
    waiting = asyncio.create_task(feed.page(f"?endpoint={reader}&after={page['after']}", Prefer="wait=20"))
    assert (await feed.send("POST", f"{PATH}/{won}/redeliver", {"endpoint": reader}))[0] == 202
    async with asyncio.timeout(15):
        again = await waiting
    assert ([event["id"] for event in again["redelivered"]], again["events"]) == ([won], [])
    lost = await feed.page(f"?endpoint={reader}&after={page['after']}")  # as if the answer had not come
    assert [event["id"] for event in lost["redelivered"]] == [won]
    assert (await feed.page(f"?after={lost['after']}"))["events"] == []  # without the endpoint it confirms nothing
    assert (await feed.page(f"?endpoint={reader}&after={page['after']}"))["redelivered"] != []
    read = await feed.page(f"?endpoint={reader}&after={lost['after']}")
    assert (read["redelivered"], read["after"]) == ([], page["after"])
    deliveries = (await feed.send("GET", f"{PATH}/{won}/deliveries"))[1]["deliveries"]
    assert [one["state"] for one in deliveries] == ["delivered"]
    status, said = await feed.send("GET", f"{PATH}?endpoint={uuid4()}")
    assert (status, said["code"]) == (404, "endpoint_not_found")


async def test_the_reader_of_an_endpoint_needs_a_key_that_may_change_it(
    database_url: str, redis_url: str, store: ApiKeyStore
) -> None:
    async for api in serve_api(database_url, redis_url, KeyAccess(store, mode=Mode.TEST)):
        full = await make(store, "acme")
        reading = await make(store, "acme", Scope.READ)
        body = json.dumps({"url": None})
        _, made = await ask(api, "POST", "/v1/webhook-endpoints", bearer(full), body)
        path = f"{PATH}?endpoint={made['endpoint']['id']}"
        long_ago = "UPDATE webhook_endpoints SET polled_at = now() - interval '30 minutes' RETURNING polled_at"
        [before] = await fetch(database_url, long_ago)
        response, said = await ask(api, "GET", path, bearer(reading))
        assert (response.status, said["code"]) == (403, "scope_missing")
        assert 'scope="webhooks"' in response.headers["WWW-Authenticate"]
        assert [before] == list(await fetch(database_url, "SELECT polled_at FROM webhook_endpoints"))
        assert (await ask(api, "GET", PATH, bearer(reading)))[0].status == 200
        assert (await ask(api, "GET", path, bearer(full)))[0].status == 200


@pytest.mark.parametrize(
    "after",
    [
        "",
        "x",
        "AAAAAAAAAAA.AAAAAAAAAAA",
        ".".join(["AAAAAAAAAAA"] * 23),
        "AAAAAAAAAAA.",
        "AAAAAAAAAAA.AAAAAAAAAAA.gggggggggg8",
    ],
)
async def test_a_cursor_that_was_not_given_out_is_refused(feed: Feed, after: str) -> None:
    status, said = await feed.send("GET", f"{PATH}?after={after}")
    assert (status, said["code"]) == (400, "query_invalid")


async def test_events_of_another_account_are_none(database_url: str, redis_url: str, store: ApiKeyStore) -> None:
    log = WebhookEventStore(database_url)
    async for api in serve_api(database_url, redis_url, KeyAccess(store, mode=Mode.TEST)):
        ours, theirs = await make(store, "acme"), await make(store, "globex")
        endpoint = json.dumps({"url": URL})
        made = [(await ask(api, "POST", "/v1/webhook-endpoints", bearer(key), endpoint))[1] for key in (ours, theirs)]
        own_endpoint, their_endpoint = [one["endpoint"]["id"] for one in made]
        body = json.dumps({"amount": 440, "idempotency_key": "k"})
        _, said = await ask(api, "POST", "/v1/payments", bearer(ours), body)
        await settle(api, said["payment"]["id"], Status.SUCCESS)
        await log.sequence()
        [event] = (await ask(api, "GET", PATH, bearer(ours)))[1]["events"]
        for query in ("", f"?payment={said['payment']['id']}", f"?endpoint={their_endpoint}"):
            assert (await ask(api, "GET", PATH + query, bearer(theirs)))[1]["events"] == []
        assert (await ask(api, "GET", f"{PATH}?endpoint={own_endpoint}", bearer(theirs)))[0].status == 404
        deliveries = f"/v1/webhook-endpoints/{own_endpoint}/deliveries"
        assert [(await ask(api, "GET", deliveries, bearer(key)))[0].status for key in (ours, theirs)] == [200, 404]
        again = json.dumps({"endpoint": their_endpoint})
        for method, of_it, text in (("GET", "", None), ("GET", "/deliveries", None), ("POST", "/redeliver", again)):
            response, refused = await ask(api, method, f"{PATH}/{event['id']}{of_it}", bearer(theirs), text)
            assert (response.status, refused["code"]) == (404, "event_not_found")
        response, refused = await ask(api, "POST", f"{PATH}/{event['id']}/redeliver", bearer(ours), again)
        assert (response.status, refused["code"]) == (404, "endpoint_not_found")
    await log.aclose()


async def test_the_first_endpoint_misses_no_change_that_is_settled_at_the_same_time(
    api: Api, database_url: str
) -> None:
    """Payments are settled all the while: those that end after the answer are in the log."""
    feed = Feed(api, WebhookEventStore(database_url))
    settled: dict[str, float] = {}
    loop = asyncio.get_running_loop()

    async def settle_all(payment_ids: list[str]) -> None:
        for payment_id in payment_ids:
            began_s = loop.time()
            await settle(api, payment_id, Status.SUCCESS)
            settled[payment_id] = began_s

    payments = [[await feed.pay() for _ in range(8)] for _ in range(4)]
    settling = [asyncio.create_task(settle_all(some)) for some in payments]
    while len(settled) < 4:
        await asyncio.sleep(0.001)
    status, _ = await feed.send("POST", "/v1/webhook-endpoints", {"url": URL})
    answered_s = loop.time()
    await asyncio.gather(*settling)
    assert status == 201
    await feed.log.sequence()
    listed = {event["data"]["payment"]["id"] for event in (await feed.page())["events"]}
    assert {payment_id for payment_id, began_s in settled.items() if began_s > answered_s} <= listed
    await feed.log.aclose()


def test_the_document_lists_what_endpoints_receive() -> None:
    described = the_document()["webhooks"]
    for name, methods in described.items():
        operation = methods["post"]
        assert {one["name"] for one in operation["parameters"]} == {
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
        }
        example = schema_example(operation)
        assert name.startswith(("payment.", "refund.", "dispute.", "webhook_endpoint."))
        assert validator(json.dumps(content(operation))).is_valid(example) == (example["type"] == name)


def content(operation: Any) -> Any:
    return operation["requestBody"]["content"]["application/json"]["schema"]


def schema_example(operation: Any) -> Any:
    name = content(operation)["allOf"][0]["$ref"].rpartition("/")[2]
    return the_document()["components"]["schemas"][name]["examples"][0]


async def test_an_account_may_have_so_many_requests_that_wait_and_no_more(feed: Feed) -> None:
    waiting = feed.api.event_waiting
    with contextlib.ExitStack() as held:
        for _ in range(MAX_WAITING):
            held.enter_context(waiting.waiter("default"))
        with pytest.raises(AccountBusy, match="256 requests"), waiting.waiter("default"):
            pass
        with waiting.waiter("another"):
            assert len(waiting) == MAX_WAITING + 1
    assert len(waiting) == 0
