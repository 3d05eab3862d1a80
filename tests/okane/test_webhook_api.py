"""The routes of webhook endpoints: what is refused stores nothing, and an account sees its own alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from okane.api.access import KeyAccess
from okane.api.webhook_services import WebhookServices
from okane.api_key import Mode
from okane.http.guard import Guard
from okane.store import ApiKeyStore
from okane.store.webhook_deliveries import MAX_RECOVERIES
from okane.store.webhook_endpoints import MAX_ENDPOINTS
from okane.webhooks import confirmation, endpoint_tests
from okane.webhooks.types import API_VERSION, DEFAULT_TYPES
from tests.okane.api_keys import ask, bearer, make, store
from tests.okane.served_api import Api, serve_api
from tests.okane.webhook_rows import URL, fetch, lease, log_event

FIXTURES = (store,)
PATH = "/v1/webhook-endpoints"


async def send(api: Api, method: str, path: str, body: object = None) -> tuple[int, Any]:
    text = None if body is None else json.dumps(body)
    response, said = await ask(api, method, path, {}, text)
    return response.status, said


async def create(api: Api, **members: Any) -> tuple[str, str]:
    """Return the path and the secret of a new endpoint."""
    status, said = await send(api, "POST", PATH, {"url": URL} | members)
    assert status == 201, said
    return f"{PATH}/{said['endpoint']['id']}", said["secret"]


async def endpoints(url: str) -> int:
    [(count,)] = await fetch(url, "SELECT count(*) FROM webhook_endpoints")
    return int(count)


async def test_a_new_endpoint_has_its_defaults_and_a_secret(api: Api) -> None:
    response, said = await ask(api, "POST", PATH, {}, json.dumps({"url": URL}))
    made = said["endpoint"]
    assert (response.status, response.headers["Location"]) == (201, f"{PATH}/{made['id']}")
    assert said["secret"].startswith("whsec_")
    assert made["types"] == list(DEFAULT_TYPES)
    assert (made["payload"], made["api_version"], made["status"]) == ("snapshot", API_VERSION, "enabled")
    assert (made["max_in_flight"], made["timeout_s"], made["hold_s"], made["asymmetric"]) == (8, 15, 300, False)
    assert (made["backlog"], made["waiting"], "rate_limit" in made) == (0, 0, False)
    assert await send(api, "GET", f"{PATH}/{made['id']}") == (200, {"endpoint": made})
    assert await send(api, "GET", PATH) == (200, {"endpoints": [made]})


async def test_two_endpoints_may_have_one_url_and_no_secret_in_common(api: Api) -> None:
    (one, first), (two, second) = await create(api), await create(api)
    assert (one != two, first != second) == (True, True)


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({}, "validation_failed", "/url"),
        ({"url": ""}, "validation_failed", "/url"),
        ({"url": "https://shop.example/ü"}, "validation_failed", "/url"),
        ({"url": "https://shop.example/" + "a" * 2048}, "validation_failed", "/url"),
        ({"url": 7}, "validation_failed", "/url"),
        ({"url": "shop.example"}, "endpoint_url_refused", "/url"),
        ({"url": "ftp://shop.example/"}, "endpoint_url_refused", "/url"),
        ({"url": "https://user:pa55-w0rd@shop.example/"}, "endpoint_url_refused", "/url"),
        ({"url": "https://10.0.0.1/"}, "endpoint_url_refused", "/url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "endpoint_url_refused", "/url"),
        ({"url": "http://93.184.215.14/"}, "endpoint_url_refused", "/url"),
        ({"url": "https://169.254.169.254/latest"}, "endpoint_url_refused", "/url"),
        ({"url": URL, "types": []}, "validation_failed", "/types"),
        ({"url": URL, "types": ["payment.succeeded", "payment.won"]}, "validation_failed", "/types/1"),
        ({"url": URL, "types": ["webhook_endpoint.test"]}, "validation_failed", "/types/0"),
        ({"url": URL, "types": ["payment.succeeded"] * 33}, "validation_failed", "/types"),
        ({"url": URL, "payload": "fat"}, "validation_failed", "/payload"),
        ({"url": URL, "max_in_flight": 0}, "validation_failed", "/max_in_flight"),
        ({"url": URL, "max_in_flight": 65}, "validation_failed", "/max_in_flight"),
        ({"url": URL, "rate_limit": 0}, "validation_failed", "/rate_limit"),
        ({"url": URL, "timeout_s": 31}, "validation_failed", "/timeout_s"),
        ({"url": URL, "hold_s": -1}, "validation_failed", "/hold_s"),
        ({"url": URL, "hold_s": 72 * 3600 + 1}, "validation_failed", "/hold_s"),
        ({"url": URL, "description": "d" * 501}, "validation_failed", "/description"),
        ({"url": URL, "description": "4242 4242 4242 4242"}, "card_number", "/description"),
        ({"url": f"{URL}?card=4242424242424242"}, "card_number", "/url"),
        ({"url": URL, "secret": "whsec_short"}, "validation_failed", "/secret"),
        ({"url": URL, "asymmetric": "yes"}, "validation_failed", "/asymmetric"),
    ],
)
async def test_what_is_refused_stores_nothing(
    api: Api, database_url: str, body: dict[str, Any], code: str, pointer: str
) -> None:
    status, said = await send(api, "POST", PATH, body)
    assert (status, said["code"]) == (422, code)
    assert pointer in [error["pointer"] for error in said["errors"]]
    assert "pa55-w0rd" not in json.dumps(said)
    assert await endpoints(database_url) == 0
    assert await fetch(database_url, "SELECT 1 FROM webhook_accounts") == []


async def test_an_unknown_type_has_a_code_of_its_own(api: Api) -> None:
    _, said = await send(api, "POST", PATH, {"url": URL, "types": ["payment.won"]})
    assert [error["code"] for error in said["errors"]] == ["event_type_unknown"]


async def test_the_seventeenth_endpoint_is_refused(api: Api, database_url: str) -> None:
    for _ in range(MAX_ENDPOINTS):
        await create(api)
    status, said = await send(api, "POST", PATH, {"url": URL})
    assert (status, said["code"], said["retryable"]) == (409, "too_many_endpoints", False)
    assert await endpoints(database_url) == MAX_ENDPOINTS


async def test_a_change_that_does_not_end_refuses_the_first_endpoint(
    api: Api, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("okane.store.webhook_endpoints.PAUSE_S", 5.0)  # one try, and the end of its time
    async with locked(database_url):
        status, said = await send(api, "POST", PATH, {"url": URL})
    assert (status, said["code"], said["retryable"]) == (503, "webhooks_busy", True)
    assert await endpoints(database_url) == 0


def locked(url: str) -> Any:
    """Hold the lock of a change in progress inside the block."""

    class Held:
        async def __aenter__(self) -> None:
            import psycopg  # noqa: PLC0415

            self.connection = await psycopg.AsyncConnection.connect(url)
            await self.connection.execute("LOCK TABLE webhook_outbox IN ROW EXCLUSIVE MODE")

        async def __aexit__(self, *_: object) -> None:
            await self.connection.close()

    return Held()


async def test_a_change_sets_what_is_given_alone(api: Api) -> None:
    path, _ = await create(api, rate_limit=5, description="orders")
    status, said = await send(api, "PATCH", path, {"rate_limit": None, "types": ["payment.*"], "description": None})
    changed = said["endpoint"]
    assert (status, changed["types"], changed["description"]) == (200, ["payment.*"], "orders")
    assert "rate_limit" not in changed
    assert (await send(api, "PATCH", path, {}))[1] == {"endpoint": changed}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"url": "https://127.0.0.2.5/"}, "endpoint_url_refused"),
        ({"url": "https://192.168.0.1/"}, "endpoint_url_refused"),
        ({"payload": "thin"}, "validation_failed"),
        ({"status": "disabled"}, "validation_failed"),
        ({"types": ["payment.won"]}, "validation_failed"),
    ],
)
async def test_a_change_is_checked_like_a_new_endpoint(api: Api, body: dict[str, Any], code: str) -> None:
    path, _ = await create(api)
    before = await send(api, "GET", path)
    status, said = await send(api, "PATCH", path, body)
    assert (status, said["code"]) == (422, code)
    assert await send(api, "GET", path) == before


async def test_rotation_shows_the_new_secret_and_keeps_the_older_one(api: Api) -> None:
    path, first = await create(api, asymmetric=True)
    status, said = await send(api, "POST", f"{path}/rotate", {"older_valid_for": "90m"})
    assert (status, said["secret"] != first) == (200, True)
    until = datetime.fromisoformat(said["endpoint"]["older_key_until"])
    assert timedelta(minutes=85) < until - datetime.now(UTC) < timedelta(minutes=95)
    status, shown = await send(api, "GET", f"{path}/secret")
    assert (status, shown["secret"], shown["older_secret"]) == (200, said["secret"], first)
    assert shown["public_key"].startswith("whpk_")
    for body in (None, {}, {"older_valid_for": "0s"}):
        assert (await send(api, "POST", f"{path}/rotate", body))[0] == 200
    assert "older_secret" not in (await send(api, "GET", f"{path}/secret"))[1]


@pytest.mark.parametrize("duration", ["169h", "-1h", "a day", 24, "1.5h", ""])
async def test_the_overlap_of_secrets_is_bounded(api: Api, duration: object) -> None:
    path, first = await create(api)
    status, said = await send(api, "POST", f"{path}/rotate", {"older_valid_for": duration})
    assert (status, said["code"]) == (422, "validation_failed")
    assert (await send(api, "GET", f"{path}/secret"))[1] == {"secret": first}


async def test_an_endpoint_pauses_and_resumes(api: Api, database_url: str) -> None:
    path, _ = await create(api)
    status, said = await send(api, "POST", f"{path}/disable")
    assert (status, said["endpoint"]["status"], said["endpoint"]["disabled_reason"]) == (200, "disabled", "requested")
    await log_event(database_url)
    assert (await send(api, "GET", path))[1]["endpoint"]["backlog"] == 1
    status, said = await send(api, "POST", f"{path}/enable")
    assert (status, said["endpoint"]["status"], said["endpoint"]["backlog"]) == (200, "enabled", 1)
    status, said = await send(api, "POST", f"{path}/enable", {"from": "now"})
    assert (status, said["endpoint"]["backlog"]) == (200, 0)
    status, said = await send(api, "POST", f"{path}/enable", {"from": "then"})
    assert (status, said["code"]) == (422, "validation_failed")


@pytest.mark.parametrize("action", ["enable", "rotate"])
async def test_an_optional_body_may_be_absent_or_empty(api: Api, action: str) -> None:
    path, _ = await create(api)

    async def in_no_chunks() -> AsyncIterator[bytes]:
        return
        yield b""

    as_json = {"Content-Type": "application/json"}
    for body, headers in ((None, {}), ("", as_json), ("{}", as_json), (in_no_chunks(), {}), (in_no_chunks(), as_json)):
        async with api.client.post(f"{path}/{action}", data=body, headers=headers) as response:
            assert (response.status, (await response.json())["endpoint"]["status"]) == (200, "enabled")
    for body in ("null", "[]", " "):
        async with api.client.post(f"{path}/{action}", data=body, headers=as_json) as response:
            assert response.status in {400, 422}


async def test_a_deletion_is_answered_when_the_dispatcher_has_confirmed_it(api: Api, database_url: str) -> None:
    path, _ = await create(api)
    endpoint_id = UUID(path.rpartition("/")[2])
    await lease(database_url, endpoint_id)
    deleting = asyncio.create_task(send(api, "DELETE", path))
    while await fetch(database_url, "SELECT 1 FROM webhook_endpoints WHERE status <> 'deleted'"):
        await asyncio.sleep(0.01)
    assert (await send(api, "GET", path))[0] == 404
    assert not deleting.done()
    await lease(database_url, endpoint_id, seen_version=2)
    assert await deleting == (204, None)
    status, said = await send(api, "DELETE", path)
    assert (status, said["code"]) == (404, "endpoint_not_found")


async def test_a_deletion_that_is_not_confirmed_can_be_repeated(
    api: Api, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmation, "CONFIRM_S", 0.1)
    path, _ = await create(api)
    endpoint_id = UUID(path.rpartition("/")[2])
    await lease(database_url, endpoint_id, seconds=60)
    for _ in range(2):
        status, said = await send(api, "DELETE", path)
        assert (status, said["code"], said["retryable"]) == (503, "webhooks_busy", True)
    await lease(database_url, endpoint_id, seconds=-1)
    assert await send(api, "DELETE", path) == (204, None)


async def test_a_range_of_time_is_delivered_again(api: Api, database_url: str) -> None:
    path, _ = await create(api)
    now = datetime.now(UTC)
    for minutes in (90, 60, 30):
        await log_event(database_url, at=now - timedelta(minutes=minutes))
    await log_event(database_url, type_="payment.retried", at=now)
    since = (now - timedelta(minutes=70)).isoformat()
    assert await send(api, "POST", f"{path}/recover", {"since": since}) == (202, {"events": 2})
    rows = await fetch(database_url, "SELECT from_position, to_position, only_failed FROM webhook_replays")
    assert rows == [(2, 4, True)]
    nothing = {"since": "1999-01-01T00:00:00Z", "until": "2000-01-01T00:00:00Z", "only_failed": False}
    assert await send(api, "POST", f"{path}/recover", nothing) == (202, {"events": 0})
    for edge in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"):
        assert (await send(api, "POST", f"{path}/recover", {"since": edge, "until": edge}))[0] == 202
    for first in range(10, 10 + MAX_RECOVERIES):
        await fetch(
            database_url, "INSERT INTO webhook_replays SELECT id, %s, 99, %s, true FROM webhook_endpoints", first, first
        )
    status, said = await send(api, "POST", f"{path}/recover", {"since": (now - timedelta(minutes=40)).isoformat()})
    assert (status, said["code"]) == (409, "too_many_recoveries")


async def test_nothing_is_sent_to_an_endpoint_without_a_url(api: Api) -> None:
    path, secret = await create(api, url=None)
    assert secret.startswith("whsec_")
    for method, where, body in (
        ("POST", f"{path}/test", None),
        ("POST", f"{path}/recover", {"since": "2026-03-01T12:00:00Z"}),
        ("PATCH", path, {"url": URL}),
    ):
        status, said = await send(api, method, where, body)
        assert (status, said["code"]) == (409, "endpoint_has_no_url")
    assert (await send(api, "DELETE", path))[0] == 204


@pytest.mark.parametrize(
    ("method", "of_it", "body"),
    [
        ("GET", "", None),
        ("PATCH", "", {"description": "theirs"}),
        ("DELETE", "", None),
        ("POST", "/rotate", {}),
        ("GET", "/secret", None),
        ("POST", "/test", None),
        ("POST", "/enable", {}),
        ("POST", "/disable", None),
        ("POST", "/recover", {"since": "2026-03-01T12:00:00Z"}),
    ],
)
async def test_an_endpoint_of_another_account_is_none(
    database_url: str, redis_url: str, store: ApiKeyStore, method: str, of_it: str, body: object
) -> None:
    access = KeyAccess(store, mode=Mode.TEST)
    async for api in serve_api(database_url, redis_url, access):
        ours, theirs = await make(store, "acme"), await make(store, "globex")
        _, made = await ask(api, "POST", PATH, bearer(ours), json.dumps({"url": URL}))
        path = f"{PATH}/{made['endpoint']['id']}"
        text = None if body is None else json.dumps(body)
        for where in (path, f"{PATH}/{uuid4()}", f"{PATH}/any"):
            response, said = await ask(api, method, where + of_it, bearer(theirs), text)
            assert (response.status, said["code"]) == (404, "endpoint_not_found")
        assert (await ask(api, "GET", path, bearer(ours)))[1]["endpoint"] == made["endpoint"]
        assert (await ask(api, "GET", PATH, bearer(theirs)))[1] == {"endpoints": []}


async def test_changes_are_logged_without_url_and_secret(api: Api) -> None:
    with capture_logs() as lines:
        path, secret = await create(api, url="https://shop.example/token-5e1f")
        await send(api, "PATCH", path, {"description": "orders"})
        await send(api, "POST", f"{path}/rotate", {})
        await send(api, "GET", f"{path}/secret")
        await send(api, "POST", f"{path}/disable")
        await send(api, "POST", f"{path}/enable")
        await send(api, "DELETE", path)
    logged = [line for line in lines if line["event"].startswith("webhook_endpoint_")]
    assert [line["event"].removeprefix("webhook_endpoint_") for line in logged] == [
        "created", "changed", "rotated", "secret_shown", "disabled_by_request", "enabled", "deleted"
    ]  # fmt: skip
    assert {line["endpoint"] for line in logged} == {path.rpartition("/")[2]}
    assert {line["account"] for line in logged} == {"default"}
    assert "token-5e1f" not in str(lines)
    assert secret not in str(lines)


async def test_without_a_master_no_endpoint_is_created(api: Api, database_url: str, redis_url: str) -> None:
    services = WebhookServices.of(database_url, masters=None, guard=Guard())
    async for bare in serve_api(database_url, redis_url, webhooks=services):
        path, _ = await create(api)
        for method, where, body in (
            ("POST", PATH, {"url": URL}),
            ("POST", f"{path}/rotate", {}),
            ("GET", f"{path}/secret", None),
            ("POST", f"{path}/test", None),
        ):
            status, said = await send(bare, method, where, body)
            assert (status, said["code"], said["retryable"]) == (503, "webhooks_not_configured", False)
        assert (await send(bare, "GET", PATH))[0] == 200
    assert await endpoints(database_url) == 1


Requests = list[tuple[dict[str, str], bytes]]


@pytest.fixture
async def receiver(unused_tcp_port_factory: Callable[[], int]) -> AsyncIterator[tuple[str, Requests]]:
    """The URL of a receiver on this machine, and the requests that it got; it answers 418 on /teapot."""
    requests: Requests = []

    async def take(request: web.Request) -> web.Response:
        requests.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return web.Response(status=418 if request.path == "/teapot" else 200, text="got it")

    app = web.Application()
    app.router.add_post("/{path}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    port = unused_tcp_port_factory()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}", requests
    await runner.cleanup()


async def test_a_test_is_sent_at_once_and_verifies(api: Api, receiver: tuple[str, Requests]) -> None:
    url, requests = receiver
    path, secret = await create(api, url=f"{url}/hook", types=["payment.failed"])
    await send(api, "POST", f"{path}/disable")
    status, said = await send(api, "POST", f"{path}/test")
    assert (status, said["outcome"], said["status"], said["text"]) == (200, "delivered", 200, "got it")
    [(headers, body)] = requests
    event = Webhook(secret).verify(body, headers)
    assert (event["type"], event["id"]) == ("webhook_endpoint.test", headers["webhook-id"])
    assert event["data"]["endpoint"]["id"] == path.rpartition("/")[2]
    await send(api, "PATCH", path, {"url": f"{url}/teapot"})
    status, said = await send(api, "POST", f"{path}/test")
    assert (status, said["outcome"], said["status"]) == (200, "status_4xx", 418)


async def test_a_test_of_an_address_that_is_refused_shows_nothing_of_it(api: Api, database_url: str) -> None:
    path, _ = await create(api)
    await fetch(
        database_url, "UPDATE webhook_endpoints SET url = 'https://10.0.0.1/'"
    )  # allowed when it was registered
    status, said = await send(api, "POST", f"{path}/test")
    assert (status, said["outcome"], said["text"], "status" in said) == (200, "guard", "", False)


async def test_tests_are_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_tests, "MAX_TESTS", 0)
    path, _ = await create(api)
    status, said = await send(api, "POST", f"{path}/test")
    assert (status, said["code"], said["retryable"]) == (429, "too_many_tests", True)
