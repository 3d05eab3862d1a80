"""The console under a path of another site, behind a proxy that removes the path and one that does not."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web

from okane.payment import Status
from tests.console.browser.conftest import NewVisitor
from tests.console.served_console import Console, serve_console
from tests.okane.stored_payments import accept_one, new

BASE = "/ops/okane"
_HOP = {"connection", "content-encoding", "content-length", "keep-alive", "transfer-encoding"}


@contextlib.asynccontextmanager
async def proxied(console: Console, *, removes_path: bool) -> AsyncIterator[Console]:
    """Yield the console as a proxy shows it, which answers nothing outside of the base path."""

    async def forward(request: web.Request) -> web.Response:
        path = request.raw_path.removeprefix(BASE) if removes_path else request.raw_path
        body = await request.read()
        async with client.request(
            request.method, console.url + path, headers=request.headers, data=body, allow_redirects=False
        ) as answer:
            headers = [(name, value) for name, value in answer.headers.items() if name.lower() not in _HOP]
            response = web.Response(status=answer.status, body=await answer.read())
            response.headers.clear()
            response.headers.extend(headers)
            return response

    app = web.Application()
    app.router.add_route("*", BASE + "/{path:.*}", forward)
    runner = web.AppRunner(app, access_log=None)
    async with aiohttp.ClientSession() as client:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        try:
            yield replace(console, url=f"http://{host}:{port}")
        finally:
            await runner.cleanup()


@pytest.mark.parametrize("removes_path", [True, False])
async def test_every_link_form_and_live_region_works_behind_a_proxy(
    new_visitor: NewVisitor, database_url: str, redis_url: str, removes_path: bool
) -> None:
    async with (
        serve_console(database_url, redis_url, console_base=BASE, console_proxies="127.0.0.1/32") as served,
        proxied(served, removes_path=removes_path) as console,
    ):
        visitor = await new_visitor(console)
        page = visitor.page
        payment = (await accept_one(console.services.payments, new())).payment
        await visitor.open(f"/payments/{payment.id}")
        await visitor.log_in()
        assert page.url == f"{console.url}{BASE}/payments/{payment.id}"
        await page.get_by_role("button", name="Cancel this payment").click()
        await page.get_by_role("button", name="Cancel the payment").click()
        await page.get_by_text("The payment is canceled.").wait_for()
        found = await console.services.payments.get(payment.id, account_id=payment.account_id)
        assert found.status is Status.CANCELED
        screens = page.get_by_role("navigation", name="Screens").get_by_role("link")
        for name in await screens.all_inner_texts():
            async with page.expect_navigation() as navigation:
                await screens.get_by_text(name, exact=True).click()
            assert (await navigation.value).status == 200, name
            assert page.url.startswith(f"{console.url}{BASE}/"), name
        async with page.expect_response("**/?part=1") as polled:
            await visitor.open("/")
        assert (await polled.value).status == 200
        await page.get_by_role("button", name="Log out").click()
        await page.get_by_label("API key").wait_for()
        await page.context.close()
