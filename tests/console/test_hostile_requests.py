"""Requests that no page of the console makes: each gets a page that says what is wrong, and nothing changes."""

from __future__ import annotations

import asyncio
import re
import socket
from urllib.parse import urlsplit

import pytest

from okane.api_key import Scope
from okane.console.session import COOKIE
from okane.store.console_audit import AuditRow
from tests.console.served_console import Browser, Console, text_of

FORM = "application/x-www-form-urlencoded"
PAYMENT = "/payments/01890000-0000-7000-8000-000000000000"


async def exchange(
    console: Console, method: str, path: str, *fields: str, body: bytes = b"", version: str = "1.1"
) -> str:
    """Send exactly this, and return the answer."""
    head = [
        f"{method} {console.base}{path} HTTP/{version}",
        *fields,
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    address = urlsplit(console.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write("".join(f"{line}\r\n" for line in (*head, "")).encode("latin-1") + body)
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return answer


def status_of(answer: str) -> int:
    return int(answer.split(" ", 2)[1])


def session_of(browser: Browser) -> tuple[str, ...]:
    return ("Host: console", f"Cookie: {COOKIE}={browser.cookies[COOKIE]}", "Sec-Fetch-Site: same-origin")


async def newest(console: Console) -> AuditRow:
    return (await console.services.audit.page(limit=1))[0]


async def test_only_plain_forms_in_utf_8_are_read(console: Console) -> None:
    browser = await console.logged_in()
    body = f"csrf={await browser.csrf()}&version=1".encode()
    charsets = ("none-such", "utf-16", "hex", "undefined", "utf-7", '"a')
    for content_type in (
        "",
        "text/plain",
        "multipart/form-data; boundary=x",
        *(f"{FORM}; charset={one}" for one in charsets),
    ):
        fields = [*session_of(browser), *([f"Content-Type: {content_type}"] if content_type else [])]
        answer = await exchange(console, "POST", f"{PAYMENT}/cancel", *fields, body=body)
        assert status_of(answer) == 415, content_type
        assert re.search(r"The console takes (plain forms|forms in UTF-8) only\.", text_of(answer))
        refused = await newest(console)
        assert refused.action == "cancel payment"
        assert (refused.answer or "").startswith("refused: The console takes ")
        assert status_of(await exchange(console, "POST", "/login", *fields, body=b"key=x")) == 415, content_type


async def test_bytes_that_are_no_text_are_refused(console: Console) -> None:
    browser = await console.logged_in()
    fields = (*session_of(browser), f"Content-Type: {FORM}")
    body = f"csrf={await browser.csrf()}&version=".encode() + b"\xff"
    for path in (f"{PAYMENT}/cancel", "/login"):
        answer = await exchange(console, "POST", path, *fields, body=body)
        assert status_of(answer) == 400
        assert "The form cannot be read." in text_of(answer)


async def test_a_referer_that_is_no_address_leads_to_the_start(console: Console) -> None:
    for referer in ("http://[", "http://[::1", "//evil.example/console/", "https://evil.example"):
        fields = ("Host: console", f"Referer: {referer}", f"Content-Type: {FORM}")
        answer = await exchange(console, "POST", f"{PAYMENT}/cancel", *fields)
        assert (status_of(answer), re.findall("Location: (.*)\r", answer)) == (303, ["/console/login"]), referer


async def test_a_request_without_a_host_asks_no_name_server(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(name: str = "") -> str:
        raise AssertionError(f"a name server was asked about {name!r}")

    monkeypatch.setattr(socket, "getfqdn", look_up)
    browser = await console.logged_in(Scope.READ)
    cookie = session_of(browser)[1]
    assert status_of(await exchange(console, "GET", "/payments", cookie, version="1.0")) == 200
    answer = await exchange(console, "POST", f"{PAYMENT}/cancel", cookie, "Origin: http://console", version="1.0")
    assert status_of(answer) == 403


async def test_a_refusal_is_written_down_whatever_its_address_holds(console: Console) -> None:
    browser = await console.logged_in()
    for path in ("/keys/%00/revoke", "/providers/a%00b/switch", "/webhooks/%00/test"):
        assert (await browser.post(path, {"csrf": "forged"})).status == 403, path
        refused = await newest(console)
        assert "\ufffd" in refused.target
        assert (refused.answer or "").startswith("refused: This form is of an earlier session")


async def test_an_action_that_its_screen_refuses_is_written_down_once(console: Console) -> None:
    browser = await console.logged_in()
    for path, fields, target, said in (
        ("/keys/none/revoke", {}, "none", "There is no such key."),
        ("/providers/No Such/switch", {"action": "drain"}, "No Such", "There is no such provider."),
        ("/payments/none/cancel", {"version": "1"}, "none", "This account has no such payment."),
        (f"{PAYMENT}/cancel", {"version": "1"}, PAYMENT[10:], "This account has no such payment."),
        ("/webhooks/none/test", {}, "none", "This account has no such endpoint."),
        ("/dead/purge", {"id": "none"}, "", "The field id is the id of a payment."),
    ):
        before = await newest(console)
        refused = await browser.submit(path, fields)
        assert 400 <= refused.status < 500
        assert said in text_of(refused.text)
        rows = [row for row in await console.services.audit.page(limit=10) if row.id > before.id]
        assert [(row.target, row.answer, row.key) for row in rows] == [
            (target, f"refused: {said}", browser.secret[:20])
        ]


async def test_a_region_that_the_browser_has_is_not_confirmed_after_the_log_out(console: Console) -> None:
    browser = await console.logged_in()
    copy = await console.browser(Cookie=f"{COOKIE}={browser.cookies[COOKIE]}")
    paths = ("/payments?part=1", "/?part=1")
    tags = {path: (await copy.get(path)).headers["ETag"] for path in paths}
    assert (await copy.get(paths[0], If_None_Match=tags[paths[0]])).status == 304
    await browser.submit("/logout")
    for path in paths:
        assert (await copy.get(path, If_None_Match=tags[path])).status == 401
        assert (await copy.get(path, If_None_Match="*")).status == 401
