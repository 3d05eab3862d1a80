"""The webhooks of the client against the API, and over a connection that loses answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from okane.client import Client, CreatedEndpoint, Invalid, NewEndpoint, NewPayment, NoAnswer, NotFound, Refused
from okane.payment import Status
from okane.store.webhook_events import WebhookEventStore
from tests.okane.api_requests import settle
from tests.okane.faulty_proxy import Way
from tests.okane.served_api import Api

URL = "https://example.com/hook"
NEW = NewEndpoint(url=URL, types=["payment.*"])
NOTHING = UUID(int=1)
EVENT = f"evt_{'0' * 32}_1"


@pytest.fixture
async def log(database_url: str) -> AsyncIterator[WebhookEventStore]:
    store = WebhookEventStore(database_url)
    yield store
    await store.aclose()


async def changed(api: Api, client: Client, log: WebhookEventStore, *keys: str) -> list[str]:
    """Settle payments under these keys; return the ids of their events."""
    ids = []
    for key in keys:
        payment = (await client.pay(NewPayment(amount=440, idempotency_key=key, metadata={"order": key}))).payment
        await settle(api, str(payment.id), Status.SUCCESS)
        ids.append(f"evt_{payment.id.hex}_2")
    await log.sequence()
    return ids


async def test_an_endpoint_has_the_members_that_were_given(client: Client) -> None:
    new = NewEndpoint(
        url=URL,
        types=["payment.failed", "webhook_endpoint.*"],
        payload="thin",
        description="shop",
        max_in_flight=2,
        rate_limit=50,
        timeout_s=5,
        hold_s=0,
    )
    made = await client.webhooks.create(new)
    found = await client.webhooks.endpoint(made.endpoint.id)
    assert found == made.endpoint
    assert [found] == await client.webhooks.endpoints()
    assert (found.url, found.types, found.payload) == (URL, ["payment.failed", "webhook_endpoint.*"], "thin")
    assert (found.max_in_flight, found.rate_limit, found.timeout_s, found.hold_s) == (2, 50, 5, 0)
    assert (found.status, found.backlog, found.failing_since) == ("enabled", 0, None)
    assert made.secret.startswith("whsec_")
    assert made.secret not in repr(made)


async def test_an_endpoint_is_changed_paused_resumed_and_deleted(client: Client) -> None:
    endpoint_id = (await client.webhooks.create(NEW)).endpoint.id
    changed = await client.webhooks.change(endpoint_id, types=["payment.failed"], rate_limit=7)
    assert (changed.types, changed.rate_limit) == (["payment.failed"], 7)
    assert (await client.webhooks.change(endpoint_id, rate_limit=None)).rate_limit is None
    assert (await client.webhooks.disable(str(endpoint_id))).status == "disabled"
    assert (await client.webhooks.enable(endpoint_id, from_now=True)).status == "enabled"
    await client.webhooks.delete(endpoint_id)
    with pytest.raises(NotFound):
        await client.webhooks.endpoint(endpoint_id)
    with pytest.raises(NotFound):
        await client.webhooks.delete(endpoint_id)


async def test_a_rotation_keeps_the_older_secret_for_a_while(client: Client) -> None:
    made = await client.webhooks.create(NEW)
    rotated = await client.webhooks.rotate(made.endpoint.id, older_valid_for=timedelta(hours=1))
    found = await client.webhooks.secrets(made.endpoint.id)
    assert (found.secret, found.older_secret) == (rotated.secret, made.secret)
    assert found.older_key_until == rotated.endpoint.older_key_until
    assert found.older_key_until is not None
    assert timedelta(minutes=59) < found.older_key_until - datetime.now(UTC) < timedelta(minutes=61)
    assert made.secret not in repr(found)


async def test_a_lost_answer_makes_no_second_endpoint_and_no_second_rotation(way: tuple[Way, Client]) -> None:
    lossy, client = way
    lossy.wrong = [None]
    with pytest.raises(NoAnswer):
        await client.webhooks.create(NEW)
    [endpoint] = await client.webhooks.endpoints()
    secret = (await client.webhooks.secrets(endpoint.id)).secret
    lossy.wrong = [None]
    with pytest.raises(NoAnswer):
        await client.webhooks.rotate(endpoint.id)
    assert (await client.webhooks.secrets(endpoint.id)).older_secret == secret


async def test_a_delete_whose_answer_is_lost_is_done(way: tuple[Way, Client]) -> None:
    lossy, client = way
    made = await client.webhooks.create(NEW)
    lossy.wrong = [(0, {}, {}), None]
    await client.webhooks.delete(made.endpoint.id)
    assert [method for method, _, _ in lossy.asked] == ["POST", "GET", "DELETE", "DELETE"]
    assert await client.webhooks.endpoints() == []


async def test_the_log_is_gone_through_to_its_end(api: Api, client: Client, log: WebhookEventStore) -> None:
    assert [one async for one in client.webhooks.events()] == []
    await client.webhooks.create(NEW)
    ids = await changed(api, client, log, *(f"k-{number}" for number in range(105)))
    events = [one async for one in client.webhooks.events()]
    assert [one.id for one in events] == ids
    payment = events[7].payment
    assert payment is not None
    assert (payment.status, payment.version, payment.metadata) == (Status.SUCCESS, 2, {"order": "k-7"})
    assert [one.id async for one in client.webhooks.events(types=["payment.failed"])] == []
    assert [one.id async for one in client.webhooks.events(payment_id=payment.id)] == [ids[7]]
    page = await client.webhooks.page(limit=100)
    assert (len(page.events), page.has_more) == (100, True)
    assert [one.id async for one in client.webhooks.events(after=page.after)] == ids[100:]
    assert await client.webhooks.event(ids[7]) == events[7]
    past = datetime.now(UTC) - timedelta(hours=1)
    assert [one.id for one in (await client.webhooks.page(since=past, limit=5)).events] == ids[:5]
    assert (await client.webhooks.page(since=datetime.now(UTC) + timedelta(hours=1))).events == []


async def test_follow_waits_for_the_next_events_and_goes_on_after_a_lost_answer(
    api: Api, way: tuple[Way, Client], log: WebhookEventStore
) -> None:
    lossy, client = way
    await client.webhooks.create(NEW)
    [first] = await changed(api, client, log, "first")
    following = client.webhooks.follow(types=["payment.succeeded"])
    page = await anext(following)
    assert [one.id for one in page.events] == [first]
    lossy.wrong = [(502, {}, {}), None]
    waiting = asyncio.create_task(_next(following))
    async with asyncio.timeout(30):
        while len([path for _, path, _ in lossy.asked if "after=" in path]) < 2:  # this one's answer will be lost
            await asyncio.sleep(0.01)
        [second] = await changed(api, client, log, "second")
        assert [one.id for one in (await waiting).events] == [second]
    again = await anext(client.webhooks.follow(after=page.after))
    assert [one.id for one in again.events] == [second]


async def test_an_endpoint_without_a_url_gets_what_is_redelivered_until_it_goes_on(
    api: Api, client: Client, log: WebhookEventStore
) -> None:
    reader = (await client.webhooks.create(NewEndpoint(url=None, types=["*"]))).endpoint
    assert reader.url is None
    [event] = await changed(api, client, log, "k")
    page = await client.webhooks.page(endpoint_id=reader.id)
    assert ([one.id for one in page.events], page.redelivered) == ([event], [])
    await client.webhooks.redeliver(event, endpoint_id=reader.id)
    seen = [await client.webhooks.page(after=page.after, endpoint_id=reader.id) for _ in range(2)]
    assert [[one.id for one in each.redelivered] for each in seen] == [[event], [event]]
    assert (await client.webhooks.page(after=seen[1].after, endpoint_id=reader.id)).redelivered == []


async def test_deliveries_show_every_attempt(
    api: Api, client: Client, log: WebhookEventStore, database_url: str
) -> None:
    endpoint_id = (await client.webhooks.create(NEW)).endpoint.id
    [event] = await changed(api, client, log, "k")
    assert await client.webhooks.deliveries(event) == []
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(
            "INSERT INTO webhook_deliveries (endpoint_id, position, state, attempts, status, ms, reason, at, earlier)"
            " SELECT %s, position, 'given_up', 2, 500, 12, 'status_5xx', now(),"
            """ '[{"at": "2026-11-22T01:19:52.796174Z", "ms": 15000, "reason": "timeout"}]' FROM webhook_events""",
            (endpoint_id,),
        )
    [delivery] = await client.webhooks.deliveries(event)
    assert (delivery.endpoint_id, delivery.state, delivery.attempts) == (endpoint_id, "given_up", 2)
    assert (delivery.status, delivery.ms, delivery.reason, delivery.next_at) == (500, 12, "status_5xx", None)
    [earlier] = delivery.earlier
    assert (earlier.status, earlier.ms, earlier.reason) == (None, 15_000, "timeout")
    page = await client.webhooks.endpoint_deliveries(endpoint_id, states=["given_up"])
    assert (page.deliveries, page.after) == ([delivery], None)
    assert (delivery.event_id, delivery.type) == (event, "payment.succeeded")
    assert (await client.webhooks.endpoint_deliveries(endpoint_id, states=["waiting"])).deliveries == []
    await client.webhooks.redeliver(event, endpoint_id=endpoint_id)
    assert [one.state for one in await client.webhooks.deliveries(event)] == ["waiting"]
    since = datetime.now(UTC) - timedelta(minutes=5)
    assert await client.webhooks.recover(endpoint_id, since=since) == 1
    assert await client.webhooks.recover(endpoint_id, since=since, until=since + timedelta(minutes=1)) == 0


async def test_a_test_returns_the_answer(client: Client) -> None:
    made = await client.webhooks.create(NewEndpoint(url="https://127.0.0.1:1/hook"))
    answer = await client.webhooks.test(made.endpoint.id)
    assert (answer.outcome, answer.status, answer.text) == ("connect", None, "")
    assert answer.reason


Ask = Callable[[Client], Awaitable[Any]]
REFUSED: Sequence[tuple[Ask, type[Refused]]] = [
    (lambda client: client.webhooks.create(NewEndpoint(url="ftp://example.com")), Invalid),
    (lambda client: client.webhooks.create(NewEndpoint(url=URL, types=["payment.payed"])), Invalid),
    (lambda client: client.webhooks.create(NewEndpoint(url=URL, max_in_flight=65)), Invalid),
    (lambda client: client.webhooks.page(after="???"), Invalid),
    (lambda client: client.webhooks.rotate(NOTHING), NotFound),
    (lambda client: client.webhooks.secrets(NOTHING), NotFound),
    (lambda client: client.webhooks.enable(NOTHING), NotFound),
    (lambda client: client.webhooks.recover(NOTHING, since=datetime.now(UTC)), NotFound),
    (lambda client: client.webhooks.event(EVENT), NotFound),
    (lambda client: client.webhooks.deliveries(EVENT), NotFound),
    (lambda client: client.webhooks.endpoint_deliveries(NOTHING), NotFound),
    (lambda client: client.webhooks.redeliver(EVENT, endpoint_id=NOTHING), NotFound),
]


async def test_refusals_have_a_type(client: Client) -> None:
    for ask, error in REFUSED:
        with pytest.raises(error):
            await ask(client)


WRONG: Sequence[tuple[Ask, type[Exception], str]] = [
    (lambda client: client.webhooks.endpoint("7"), ValueError, "is not an endpoint's id"),
    (lambda client: client.webhooks.endpoint(f"{NOTHING}/secret"), ValueError, "is not an endpoint's id"),
    (lambda client: client.webhooks.endpoint(7), TypeError, "must be str"),  # type: ignore[arg-type]  # the test
    (lambda client: client.webhooks.event(f"{EVENT}/../x"), ValueError, "is not an event's id"),
    (lambda client: client.webhooks.create(URL), TypeError, "must be NewEndpoint"),  # type: ignore[arg-type]  # the test
    (lambda client: client.webhooks.create(NewEndpoint(url=URL, types="a")), TypeError, "types must be a list"),
    (lambda client: client.webhooks.create(NewEndpoint(url=URL, hold_s=True)), TypeError, "hold_s must be int"),
    (lambda client: client.webhooks.change(NOTHING, status="x"), TypeError, "no member 'status'"),  # type: ignore[call-arg]  # the test
    (lambda client: client.webhooks.recover(NOTHING, since=datetime(2027, 1, 1)), ValueError, "time zone"),
    (lambda client: client.webhooks.rotate(NOTHING, older_valid_for=timedelta(-1)), ValueError, "not be negative"),
]


@pytest.mark.parametrize(("ask", "error", "message"), WRONG)
async def test_wrong_arguments_are_refused_before_a_request(ask: Ask, error: type[Exception], message: str) -> None:
    async with Client("http://127.0.0.1:1", patience_s=0) as client:
        with pytest.raises(error, match=message):
            await ask(client)


async def _next(pages: AsyncIterator[Any]) -> Any:
    return await anext(pages)


def test_a_created_endpoint_hides_its_secret() -> None:
    fields = {name: field.repr for name, field in CreatedEndpoint.__dataclass_fields__.items()}
    assert fields == {"endpoint": True, "secret": False}
