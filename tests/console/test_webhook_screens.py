"""Webhook endpoints in the console: the lists, and the actions enable, disable, test, redeliver and recover."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest

from okane.api_key import Scope
from okane.store.webhook_endpoints import Endpoint
from tests.console.served_console import Console, serve_console, text_of
from tests.okane.webhook_receiver import Receiver, receiving
from tests.okane.webhook_rows import created, fetch, log_event

MASTER = "a-master-of-webhooks-in-tests-42-characters"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


@pytest.fixture
async def hooks(database_url: str, redis_url: str) -> AsyncIterator[Console]:
    """A console that may send to this machine."""
    async with serve_console(database_url, redis_url, webhook_master=MASTER, webhook_allow=("127.0.0.0/8",)) as served:
        yield served


async def endpoint_of(console: Console, account: str = "default", **more: object) -> Endpoint:
    return await created(console.services.endpoints, account, **more)


async def delivered(database_url: str, endpoint: Endpoint, position: int, state: str = "given_up") -> None:
    await fetch(
        database_url,
        "INSERT INTO webhook_deliveries (endpoint_id, position, state, attempts, status, ms, reason, at)"
        " VALUES (%s, %s, %s, 9, 500, 12, '<b>HTTP 500</b>', now())",
        endpoint.id,
        position,
        state,
    )


async def test_endpoints_and_deliveries_are_shown(hooks: Console, database_url: str) -> None:
    own = await endpoint_of(hooks, description="<i>shop</i>")
    other = await endpoint_of(hooks, "other", url="https://other.example/hook")
    await delivered(database_url, own, await log_event(database_url))
    reader = await hooks.logged_in(Scope.READ)
    page = (await reader.get("/webhooks")).text
    assert str(own.url) in page
    assert str(other.url) not in page
    assert str(other.url) in (await (await hooks.logged_in()).get("/webhooks")).text
    page = (await reader.get(f"/webhooks/{own.id}")).text
    assert "&lt;b&gt;HTTP 500" in page
    assert "&lt;i&gt;shop" in page
    assert "<b>HTTP" not in page
    assert "Redeliver" not in page
    assert "No delivery is in this state" in (await reader.get(f"/webhooks/{own.id}?state=delivered")).text
    assert (await reader.get(f"/webhooks/{other.id}")).status == HTTPStatus.NOT_FOUND


async def test_an_endpoint_is_disabled_and_enabled(hooks: Console, database_url: str) -> None:
    endpoint = await endpoint_of(hooks)
    browser = await hooks.logged_in()
    for version, (action, status) in enumerate((("disable", "disabled"), ("enable", "enabled")), endpoint.version):
        assert f'name="version" value="{version}"' in (await browser.get(f"/webhooks/{endpoint.id}")).text
        answer = await browser.submit(f"/webhooks/{endpoint.id}/{action}", {"version": str(version)})
        assert answer.status == HTTPStatus.SEE_OTHER, text_of(answer.text)
        assert await fetch(database_url, "SELECT status FROM webhook_endpoints") == [(status,)]
        assert f"The endpoint is {status}" in (await browser.get(answer.location)).text


async def test_a_test_event_is_sent_and_its_answer_shown(hooks: Console, receiver: Receiver) -> None:
    endpoint = await endpoint_of(hooks, url=f"{receiver.url}/hook")
    browser = await hooks.logged_in()
    answer = await browser.submit(f"/webhooks/{endpoint.id}/test")
    assert answer.status == HTTPStatus.SEE_OTHER, text_of(answer.text)
    assert "Test delivered after" in (await browser.get(answer.location)).text
    assert [one.type for one in receiver.received] == ["webhook_endpoint.test"]


async def test_a_console_without_a_master_says_why_it_sends_no_test(console: Console) -> None:
    endpoint = await endpoint_of(console)
    answer = await (await console.logged_in()).submit(f"/webhooks/{endpoint.id}/test")
    assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert "OKANE_WEBHOOK_MASTER" in answer.text


async def test_an_event_is_delivered_again(hooks: Console, database_url: str) -> None:
    endpoint = await endpoint_of(hooks)
    position = await log_event(database_url)
    await delivered(database_url, endpoint, position)
    browser = await hooks.logged_in()
    answer = await browser.submit(f"/webhooks/{endpoint.id}/redeliver", {"position": str(position)})
    assert answer.status == HTTPStatus.SEE_OTHER, text_of(answer.text)
    assert await fetch(database_url, "SELECT state FROM webhook_deliveries") == [("waiting",)]


async def test_a_time_is_recovered(hooks: Console, database_url: str) -> None:
    endpoint = await endpoint_of(hooks)
    await delivered(database_url, endpoint, await log_event(database_url))
    browser = await hooks.logged_in()
    answer = await browser.submit(f"/webhooks/{endpoint.id}/recover", {"since": "2020-01-01T00:00"})
    assert answer.status == HTTPStatus.SEE_OTHER, text_of(answer.text)
    assert "Recovering 1 event of that time" in (await browser.get(answer.location)).text
    assert len(await fetch(database_url, "SELECT endpoint_id FROM webhook_replays")) == 1
    answer = await browser.submit(f"/webhooks/{endpoint.id}/recover", {"since": "2099-01-01T00:00"})
    assert "no events of that time" in (await browser.get(answer.location)).text


async def test_wrong_actions_change_nothing(hooks: Console, database_url: str) -> None:
    own, other = await endpoint_of(hooks), await endpoint_of(hooks, "other")
    silent = await endpoint_of(hooks, url=None)
    browser, reader = await hooks.logged_in(), await hooks.logged_in(Scope.READ, Scope.OPERATE)
    for target, action, fields, status in (
        (other, "disable", {"version": "1"}, HTTPStatus.NOT_FOUND),
        (own, "disable", {}, HTTPStatus.CONFLICT),
        (own, "disable", {"version": "7"}, HTTPStatus.CONFLICT),
        (own, "enable", {"version": "7"}, HTTPStatus.CONFLICT),
        (other, "test", {}, HTTPStatus.NOT_FOUND),
        (own, "redeliver", {}, HTTPStatus.BAD_REQUEST),
        (own, "redeliver", {"position": "x"}, HTTPStatus.BAD_REQUEST),
        (own, "recover", {}, HTTPStatus.BAD_REQUEST),
        (own, "recover", {"since": "soon"}, HTTPStatus.BAD_REQUEST),
        (silent, "test", {}, HTTPStatus.CONFLICT),
    ):
        answer = await browser.submit(f"/webhooks/{target.id}/{action}", fields)
        assert answer.status == status, (action, text_of(answer.text))
        assert (await reader.submit(f"/webhooks/{own.id}/{action}", fields)).status == HTTPStatus.FORBIDDEN
    assert await fetch(database_url, "SELECT DISTINCT status FROM webhook_endpoints") == [("enabled",)]
    assert await fetch(database_url, "SELECT 1 FROM webhook_deliveries") == []
