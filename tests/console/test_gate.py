"""The checks in front of every screen, and the headers of every answer."""

from __future__ import annotations

import re

import aiohttp
import pytest

from okane.api_key import Scope
from okane.console.app import HEADERS, MAX_FORM_BYTES
from okane.console.gate import Screen
from okane.console.screens import SCREENS
from okane.console.session import COOKIE
from okane.console.session_keys import KeyHolder, SessionKeys
from tests.console.served_console import ALL, Browser, Console, serve_console, text_of

ROWS = [screen for screen, _ in SCREENS]
PAGES = [screen for screen in ROWS if screen.method == "GET" and not screen.public]
ACTIONS = [screen for screen in ROWS if screen.method == "POST" and not screen.public]
NAMES = {"payment_id": "01890000-0000-7000-8000-000000000000", "endpoint_id": "01890000-0000-7000-8000-000000000000"}


def path_of(screen: Screen) -> str:
    return re.sub(r"\{(\w+)\}", lambda name: NAMES.get(name[1], "critical"), screen.path)


async def victim_of(console: Console) -> str:
    """Return a key that an action would revoke."""
    return (await console.key(Scope.READ))[:20]


async def is_revoked(console: Console, key: str) -> bool:
    return key not in {one.prefix for one in await console.services.keys.list()}


async def refusal(console: Console) -> str:
    """Return the answer in the newest row of the audit table."""
    return (await console.services.audit.page(limit=1))[0].answer or ""


def test_only_the_log_in_is_public_and_every_action_has_a_name() -> None:
    assert {(screen.method, screen.path) for screen in ROWS if screen.public} == {("GET", "/login"), ("POST", "/login")}
    assert all(screen.action for screen in ACTIONS)
    assert {screen.path for screen in ROWS if screen.scope is None} == {"/login", "/logout"}
    assert {screen.path for screen in ACTIONS if not screen.changes} == {"/logout"}
    assert {screen.method for screen in ROWS} == {"GET", "POST"}


async def test_no_page_and_no_action_answers_without_a_session(console: Console) -> None:
    browser = await console.browser()
    for screen in PAGES:
        answer = await browser.get(path_of(screen))
        assert (answer.status, answer.location.partition("?")[0]) == (303, "/console/login"), screen
    for screen in ACTIONS:
        answer = await browser.post(path_of(screen), {"csrf": "0" * 64})
        assert (answer.status, answer.location.partition("?")[0]) == (303, "/console/login"), screen


@pytest.mark.parametrize("scope", ALL)
async def test_a_screen_is_refused_to_every_key_without_its_scope(console: Console, scope: Scope) -> None:
    browser = await console.logged_in(scope)
    for screen in PAGES:
        if screen.scope is not scope and screen.path != "/":
            answer = await browser.get(path_of(screen))
            assert answer.status == 403, screen
            assert f"scope {screen.scope}" in text_of(answer.text)
    for screen in ACTIONS:
        if screen.scope not in {scope, None}:
            assert (await browser.submit(path_of(screen))).status == 403, screen


async def test_an_action_of_the_consoles_own_page_is_done(console: Console) -> None:
    browser, key = await console.logged_in(), await victim_of(console)
    done = await browser.submit(f"/keys/{key}/revoke")
    assert (done.status, done.location) == (303, "/console/keys")
    assert await is_revoked(console, key)
    page = await browser.get(done.location)
    assert f"{key} is revoked" in text_of(page.text)
    assert f"{key} is revoked" not in text_of((await browser.get(done.location)).text)  # once


OWN = "Origin: own"


@pytest.mark.parametrize(
    ("headers", "is_taken"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": OWN}, False),
        ({"Origin": OWN}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({}, False),
    ],
)
async def test_a_form_counts_from_the_console_only(
    console: Console, headers: dict[str, str], *, is_taken: bool
) -> None:
    browser, key = await console.logged_in(), await victim_of(console)
    token = await browser.csrf()
    sent = {name: console.url if value is OWN else value for name, value in headers.items()}
    url = browser.at(f"/keys/{key}/revoke")
    async with browser.client.post(url, data={"csrf": token}, headers=sent, allow_redirects=False) as answer:
        assert answer.status == (303 if is_taken else 403)
    assert await is_revoked(console, key) is is_taken
    if not is_taken:
        assert "did not come from a page of the console" in await refusal(console)


async def test_a_form_needs_the_token_of_its_own_session(console: Console) -> None:
    browser, other, key = await console.logged_in(), await console.logged_in(), await victim_of(console)
    for token in ("", "0" * 64, await other.csrf(), "é", "\ud800"):
        refused = await browser.post(f"/keys/{key}/revoke", {"csrf": token.encode(errors="replace").decode()})
        assert refused.status == 403, token
        assert "of an earlier session" in await refusal(console)
    assert not await is_revoked(console, key)


async def test_a_refused_action_is_in_the_audit_table_with_its_target(console: Console) -> None:
    browser, key = await console.logged_in(Scope.READ), await victim_of(console)
    assert (await browser.submit(f"/keys/{key}/revoke")).status == 403
    row = (await console.services.audit.page(limit=1))[0]
    assert (row.action, row.target, row.key) == ("revoke key", key, browser.secret[:20])
    assert row.answer == "refused: This takes a key with the scope system."
    assert not await is_revoked(console, key)


async def test_a_read_only_console_takes_log_in_and_log_out_alone(database_url: str, redis_url: str) -> None:
    async with serve_console(database_url, redis_url, console_read_only=True) as console:
        browser, key = await console.logged_in(), await victim_of(console)
        for screen in ACTIONS:
            if screen.changes:
                assert (await browser.submit(path_of(screen))).status == 403, screen
                assert "read-only" in await refusal(console)
        assert (await browser.submit(f"/keys/{key}/revoke")).status == 403
        assert not await is_revoked(console, key)
        assert (await browser.submit("/logout")).status == 303


async def test_files_and_large_forms_are_refused(console: Console) -> None:
    browser, key = await console.logged_in(), await victim_of(console)
    form = aiohttp.FormData({"csrf": await browser.csrf()})
    form.add_field("file", b"x", filename="x")
    url, headers = browser.at(f"/keys/{key}/revoke"), {"Sec-Fetch-Site": "same-origin"}
    async with browser.client.post(url, data=form, headers=headers, allow_redirects=False) as answer:
        assert answer.status == 415
    large = await browser.submit(f"/keys/{key}/revoke", {"reason": "x" * MAX_FORM_BYTES})
    assert large.status == 413
    assert "more than the console takes" in text_of(large.text)
    assert not await is_revoked(console, key)


async def test_a_post_without_a_session_leads_back_to_its_page_after_the_log_in(console: Console) -> None:
    browser = await console.browser()
    refused = await browser.post("/keys/x/revoke", Referer=f"{console.url}/console/keys?account=acme")
    assert refused.location == "/console/login?next=%2Fconsole%2Fkeys%3Faccount%3Dacme"
    foreign = await browser.post("/keys/x/revoke", Referer="http://evil.example//evil.example/x")
    assert foreign.location == "/console/login"


async def answers(console: Console, browser: Browser) -> list[dict[str, str]]:
    stranger = await console.browser()
    asset = re.findall(r'href="(/console/static/[^"]+\.css)"', (await stranger.get("/login")).text)[0]
    found = [
        await stranger.get("/login"),
        await stranger.get("/"),
        await stranger.post("/login", {"key": "x"}),
        await browser.get("/audit"),
        await browser.get("/?part=1"),
        await browser.get("/nowhere"),
        await browser.get("/streams/none/pending"),
        await browser.post("/keys/x/revoke"),
        await browser.post("/audit"),
        await stranger.get("/healthz"),
        await stranger.get("/static/none.css"),
        await stranger.get(asset),
    ]
    return [dict(one.headers) for one in found]


async def test_every_answer_has_the_headers_that_keep_it_safe(console: Console) -> None:
    found = await answers(console, await console.logged_in())
    for headers in found[:-1]:
        assert {name: headers.get(name) for name in HEADERS} == HEADERS
    assert found[-1]["Cache-Control"] == "public, max-age=31536000, immutable"
    assert "Content-Security-Policy" in found[-1]
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


async def test_an_unknown_page_says_so_to_those_who_are_logged_in(console: Console) -> None:
    browser = await console.logged_in()
    for path in ("/nowhere", "/static", "/payments/x/y/z", "/%00"):
        answer = await browser.get(path)
        assert (answer.status, "<h1>Not found</h1>" in answer.text) == (404, True), path
    assert (await browser.post("/audit")).status == 405
    assert (await browser.get("/static/none.css")).status == 404


async def test_a_head_request_changes_and_shows_nothing(console: Console) -> None:
    browser = await console.logged_in()
    async with browser.client.head(browser.at("/audit")) as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_without_authentication_there_is_no_log_in_and_other_names_are_refused(
    database_url: str, redis_url: str
) -> None:
    async with serve_console(database_url, redis_url, auth="none") as console:
        browser, key = await console.browser(), await victim_of(console)
        page = await browser.get("/keys")
        assert (page.status, "Log out" in page.text) == (200, False)
        assert (await browser.get("/login")).location == "/console/"
        assert (await browser.submit(f"/keys/{key}/revoke")).status == 303
        assert await is_revoked(console, key)
        rebound = await browser.get("/keys", Host="evil.example")  # a name that its DNS server points to 127.0.0.1
        assert rebound.status == 421
        other = await victim_of(console)
        token = await browser.csrf()
        assert (await browser.post(f"/keys/{other}/revoke", {"csrf": token}, Sec_Fetch_Site="cross-site")).status == 403
        assert not await is_revoked(console, other)


async def test_a_session_cookie_of_another_console_is_none(database_url: str, redis_url: str, console: Console) -> None:
    browser = await console.logged_in()
    async with serve_console(database_url, redis_url, console_secret="b" * 32) as other:
        stranger = await other.browser(Cookie=f"{COOKIE}={browser.cookies[COOKIE]}")
        refused = await stranger.get("/audit")
        assert (refused.status, refused.location) == (303, "/console/login?next=%2Fconsole%2Faudit&ended=1")
        assert "This session has ended, or is none of this console." in (await stranger.get(refused.location)).text


async def test_a_session_that_cannot_be_checked_may_look_and_not_act(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, key = await console.logged_in(), await victim_of(console)
    token = await browser.csrf()

    async def unchecked(_keys: SessionKeys, prefix: str) -> KeyHolder:
        return KeyHolder(prefix, "default", frozenset(ALL), checked=False)

    monkeypatch.setattr(SessionKeys, "holder", unchecked)
    page = await browser.get("/streams")
    assert (page.status, "Postgres does not answer" in text_of(page.text)) == (200, True)
    assert (await browser.post(f"/keys/{key}/revoke", {"csrf": token})).status == 503
    assert not await is_revoked(console, key)
