"""The console under a base path, behind a proxy that removes it and one that does not, and without a base path."""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from okane.config import Settings
from okane.console.assets import Assets
from okane.console.links import Links
from tests.console.served_console import Browser, Console, serve_console

_LINK = re.compile(r'(?:href|src|data-live)="([^"#]+)"')
_ACTION = re.compile(r'action="([^"#]+)"')
_HOP = {"transfer-encoding", "content-length", "content-encoding", "connection"}


@contextlib.asynccontextmanager
async def proxied(target: str, base: str, *, strips: bool) -> AsyncIterator[str]:
    """Serve `target` under `base` at another address inside the block; every other path is 404 there."""

    async def forward(request: web.Request) -> web.Response:
        path = request.raw_path
        if not path.startswith(f"{base}/"):
            return web.Response(status=404, text="outside of the base path")
        async with client.request(
            request.method,
            target + (path.removeprefix(base) if strips else path),
            headers=request.headers,
            data=await request.read(),
            allow_redirects=False,
        ) as answer:
            headers = [(name, value) for name, value in answer.headers.items() if name.lower() not in _HOP]
            return web.Response(status=answer.status, body=await answer.read(), headers=dict(headers))

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        await runner.cleanup()


def addresses(page: str, kind: re.Pattern[str]) -> set[str]:
    return {html.unescape(found) for found in kind.findall(page)}


def page_of(address: str) -> tuple[str, bool]:
    """Return what tells pages apart: the path, and whether it is a live region."""
    return address.partition("?")[0], "part=1" in address


async def crawled(browser: Browser, base: str) -> set[str]:
    """Follow every link and live region from the start page; return the addresses, without queries, that answered."""
    waiting, seen = {f"{base}/"}, set[str]()
    while waiting:
        address = waiting.pop()
        seen.add(address)
        answer = await browser.get(address)
        assert answer.status == 200, (address, answer.status, answer.location)
        if "text/html" not in answer.headers["Content-Type"]:
            continue
        assert all(found.startswith(f"{base}/") for found in addresses(answer.text, _ACTION)), address
        for found in addresses(answer.text, _LINK):
            assert found.startswith(f"{base}/"), (address, found)
            # One page of each kind, and its live region.
            if page_of(found) not in map(page_of, seen):
                waiting.add(found)
    return {one.partition("?")[0] for one in seen}


@pytest.mark.parametrize("strips", [False, True])
async def test_every_link_and_form_works_behind_a_proxy(database_url: str, redis_url: str, *, strips: bool) -> None:
    base = "/ops/okane"
    async with (
        serve_console(database_url, redis_url, console_base=f"{base}/") as console,
        proxied(console.url, base, strips=strips) as url,
    ):
        browser = await at(console, url)
        refused = await browser.get("/audit?after=7")
        assert refused.location == f"{base}/login?next=%2Fops%2Fokane%2Faudit%3Fafter%3D7"
        assert (await browser.log_in(await console.key(), f"{base}/audit?after=7")).location == f"{base}/audit?after=7"
        seen = await crawled(browser, base)
        assert {f"{base}/", f"{base}/audit", f"{base}/keys", f"{base}/streams"} <= seen
        assert any(one.startswith(f"{base}/static/") for one in seen)
        done = await browser.submit("/logout")
        assert (done.status, done.location) == (303, f"{base}/login")


async def test_the_console_works_without_a_base_path(database_url: str, redis_url: str) -> None:
    async with serve_console(database_url, redis_url, console_base="/") as console:
        browser = await console.browser()
        entered = await browser.log_in(await console.key(), "/audit")
        assert (entered.location, "Path=/;" in entered.headers["Set-Cookie"]) == ("/audit", True)
        assert "/keys" in await crawled(browser, "")


async def test_the_base_path_without_its_slash_leads_to_the_console(console: Console) -> None:
    answer = await (await console.browser()).get("")
    assert (answer.status, answer.location) == (303, "/console/")


@pytest.mark.parametrize(
    "path", ["console", "/a b", "/a//b", "//evil.example", "/é", "/a/../b", "https://x/y", f"/{'a' * 201}"]
)
def test_a_base_path_that_is_not_plain_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="must be a path like"):
        Settings(_env_file=None, console_base=path)


def test_query_parameters_without_a_value_are_left_out() -> None:
    links = Links("/console", Assets.load())
    assert links.payments(q="", status=None, cursor="a b") == "/console/payments?cursor=a+b"
    assert links.payments(status=["pending", "success"]) == "/console/payments?status=pending&status=success"
    assert links.payment("../../x?y") == "/console/payments/..%2F..%2Fx%3Fy"


async def test_a_long_address_is_forgotten_at_the_log_in_rather_than_refused(console: Console) -> None:
    browser = await console.browser()
    refused = await browser.get(f"/payments?q={'%C3%A9' * 600}")  # twice as long again as a value of `next`
    assert (refused.status, refused.location) == (303, "/console/login")
    assert (await browser.get(refused.location)).status == 200


async def at(console: Console, url: str) -> Browser:
    browser = await console.browser()
    return Browser(browser.client, url, console.base)
