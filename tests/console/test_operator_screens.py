"""The screens of operators: every one answers, needs its scope, and shows no markup that came from outside."""

from __future__ import annotations

import re
from http import HTTPStatus

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from okane.api_key import Scope
from okane.console import sampler
from okane.metrics import OkaneMetrics
from okane.payment import Status
from okane.webhooks.metrics import DispatcherMetrics
from streams.prometheus import PrometheusMetrics
from tests.console.console_payments import settled
from tests.console.served_console import Console, serve_console, text_of
from tests.okane.stored_payments import accept_one, new
from tests.okane.webhook_rows import created

SYSTEM_PAGES = (
    "/",
    "/streams",
    "/streams/delayed",
    "/streams/critical/pending",
    "/providers",
    "/workers",
    "/keys",
    "/doctor",
    "/audit",
)
READ_PAGES = ("/dead", "/reviews", "/disputes", "/webhooks")


async def test_every_screen_answers_on_an_empty_system(console: Console) -> None:
    browser = await console.logged_in()
    for path in (*SYSTEM_PAGES, *READ_PAGES, "/dead/replay", "/dead/purge"):
        answer = await browser.get(path)
        assert answer.status == HTTPStatus.OK, (path, text_of(answer.text))
        assert "<h1" in answer.text


async def test_a_screen_needs_its_scope(console: Console) -> None:
    reader, operator = await console.logged_in(Scope.READ), await console.logged_in(Scope.SYSTEM)
    for path in SYSTEM_PAGES[1:]:
        assert (await reader.get(path)).status == HTTPStatus.FORBIDDEN, path
        assert (await operator.get(path)).status == HTTPStatus.OK, path
    for path in READ_PAGES:
        assert (await reader.get(path)).status == HTTPStatus.OK, path
        assert (await operator.get(path)).status == HTTPStatus.FORBIDDEN, path
    for path in ("/dead/replay", "/dead/purge"):
        assert (await reader.get(path)).status == HTTPStatus.FORBIDDEN, path


@pytest.mark.parametrize(
    "path",
    [
        "/streams/unknown/pending",
        "/streams/critical/pending?after=no-id",
        "/streams/delayed?after=no-id",
        "/dead?status=success",
        "/dead?currency=dollar",
        "/dead?lane=fast",
        "/dead?since=yesterday",
        "/dead?after=nowhere",
        "/dead/replay?id=none",
        "/dead/replay?limit=501",
        "/reviews?after=none",
        "/audit?after=-1",
        f"/keys?account={'a' * 65}",
        "/webhooks/none",
        "/webhooks/00000000-0000-0000-0000-000000000000",
    ],
)
async def test_a_wrong_address_is_a_page_that_says_so(console: Console, path: str) -> None:
    answer = await (await console.logged_in()).get(path)
    assert answer.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND}, text_of(answer.text)
    assert "This is a fault of the console" not in answer.text


async def test_live_regions_are_parts_of_their_pages(console: Console) -> None:
    browser = await console.logged_in()
    for path in ("/", "/streams", "/workers"):
        part = await browser.get(f"{path}?part=1")
        assert part.status == HTTPStatus.OK
        assert "<html" not in part.text
        assert part.headers["ETag"]
        assert f'data-live="{console.base}{path}?part=1"' in (await browser.get(path)).text


async def test_a_sample_is_rendered_once_for_all_tabs(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "INTERVAL_S", 600.0)
    tabs = [await console.logged_in(Scope.SYSTEM), await console.logged_in(Scope.SYSTEM)]
    first, second = [await tab.get("/?part=1") for tab in tabs]
    assert first.text == second.text
    again = await tabs[0].get("/?part=1", If_None_Match=first.headers["ETag"])
    assert again.status == HTTPStatus.NOT_MODIFIED


async def test_no_secret_of_a_session_is_in_a_live_region(console: Console) -> None:
    browser = await console.logged_in()
    token = await browser.csrf()
    assert token
    for path in ("/", "/streams", "/workers"):
        assert token not in (await browser.get(f"{path}?part=1")).text


async def test_without_redis_the_pages_say_so_and_show_the_rest(database_url: str) -> None:
    async with serve_console(database_url, "redis://127.0.0.1:1/0") as console:
        browser = await console.logged_in()
        for path in ("/", "/streams", "/workers"):
            answer = await browser.get(path)
            assert answer.status == HTTPStatus.OK
            assert "Redis does not answer since" in answer.text
        assert "Redis is away: payments run from Postgres" in (await browser.get("/")).text
        for path in ("/streams/delayed", "/streams/low/pending"):
            answer = await browser.get(path)
            assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
            assert "Redis does not answer, so this page cannot be read. No answer since 2" in text_of(answer.text)
        assert (await browser.get("/dead")).status == HTTPStatus.OK


async def test_without_rights_and_where_the_console_is_read_only_there_are_no_buttons(
    database_url: str, redis_url: str
) -> None:
    async with serve_console(database_url, redis_url, console_read_only=True) as console:
        endpoint = await created(console.services.endpoints)
        payment_id = (await accept_one(console.services.payments, new())).payment.id
        assert await console.services.payments.bury(payment_id, reason="poison")
        browser = await console.logged_in()
        await settled(console, "spent", Status.FAILED_FINAL, event="spent", reason="HTTP 503")
        action_pages = ("/dead/replay", "/dead/purge", f"/payments/{payment_id}")
        for path in ("/dead", "/providers", "/keys", f"/webhooks/{endpoint.id}", *action_pages):
            page = (await browser.get(path)).text
            forms = re.findall(r'<form method="post" action="([^"]*)"', page)
            assert forms == [f"{console.base}/logout"], path
            assert "show-modal" not in page
            assert "Replay…" not in page
        answer = await browser.submit("/providers/http/switch", {"action": "drain", "reason": "because"})
        assert answer.status == HTTPStatus.FORBIDDEN


def test_every_sample_that_is_asked_for_is_a_metric_of_a_process() -> None:
    registry = CollectorRegistry()
    OkaneMetrics(registry)
    PrometheusMetrics(prefix="okane", registry=registry)
    DispatcherMetrics(registry)
    exposed = generate_latest(registry).decode()
    families = {line.split()[2] for line in exposed.splitlines() if line.startswith("# TYPE")}
    assert {name.removesuffix("_bucket") for name in sampler.NAMES} <= families


async def test_charts_link_to_grafana_where_a_setting_names_it(
    console: Console, database_url: str, redis_url: str
) -> None:
    assert "rafana" not in (await (await console.logged_in()).get("/")).text
    async with serve_console(database_url, redis_url, console_grafana="https://grafana.example/ops/") as linked:
        browser = await linked.logged_in()
        for path, name, count in (("/", "overview", 5), ("/?part=1", "overview", 4), ("/streams", "streams", 1)):
            page = (await browser.get(path)).text
            assert page.count(f'href="https://grafana.example/ops/d/okane-{name}"') == count, path
