"""Actions in the browser: without a mouse, without the scope, and from a page of another site."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from aiohttp import web

from okane.api_key import ACCOUNT, Scope
from okane.payment import Payment, Status
from tests.console.browser.visitor import Visitor
from tests.console.served_console import Console
from tests.okane.stored_payments import accept_one, claimed, new, settlement

FIRST_VISIT_BYTES = 15_000


async def dead_letter(console: Console) -> Payment:
    """Write a payment that was given up."""
    store = console.services.payments
    claim = await claimed(store, (await accept_one(store, new())).payment.id)
    await store.settle(settlement(claim.payment, Status.FAILED_FINAL, event="spent", reason="HTTP 503"))
    return await store.get(claim.payment.id, account_id=ACCOUNT)


@pytest_asyncio.fixture(loop_scope="session")
async def other_site(console: Console) -> AsyncIterator[str]:
    """The address of a site whose page sends a form to the console as soon as it is opened."""

    async def page(request: web.Request) -> web.Response:
        action = f"{console.url}{console.base}/payments/{request.query['id']}/retry"
        form = f'<form method="post" action="{action}"><input name="version" value="3"></form>'
        return web.Response(text=f"{form}<script>document.forms[0].submit()</script>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.2", 0).start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}/"
    await runner.cleanup()


async def test_a_dead_letter_is_replayed_after_a_dry_run_without_a_mouse(visitor: Visitor, console: Console) -> None:
    payment = await dead_letter(console)
    await visitor.log_in()
    await visitor.open("/dead")
    page = visitor.page
    await visitor.tab_to(f"Select {payment.id}")
    await page.keyboard.press("Space")
    await visitor.tab_to("Replay…")
    await page.keyboard.press("Enter")
    await page.get_by_text("Nothing is changed yet.").wait_for()
    assert await visitor.flaws() == []
    unchanged = await console.services.payments.get(payment.id, account_id=ACCOUNT)
    assert unchanged.version == payment.version
    await visitor.tab_to("Retry 1 payment")
    await page.keyboard.press("Enter")
    await page.locator("[role=status].banner").wait_for()
    replayed = await console.services.payments.get(payment.id, account_id=ACCOUNT)
    assert replayed.status is Status.PENDING


async def test_a_key_that_only_reads_sees_no_button_that_changes_a_payment(visitor: Visitor, console: Console) -> None:
    payment = await dead_letter(console)
    await visitor.log_in(Scope.READ)
    for path in (f"/payments/{payment.id}", "/dead"):
        await visitor.open(path)
        buttons = await visitor.page.locator("main").get_by_role("button").all_inner_texts()
        assert {text.split()[0] for text in buttons} <= {"Copy", "Filter"}, path
        assert await visitor.page.locator("main form[method=post]").count() == 0


async def test_a_form_of_another_site_changes_nothing(visitor: Visitor, console: Console, other_site: str) -> None:
    payment = await dead_letter(console)
    await visitor.log_in()
    async with visitor.page.expect_response(f"**/payments/{payment.id}/retry") as answered:
        await visitor.page.goto(f"{other_site}?id={payment.id}")
    assert (await answered.value).status in {303, 403}
    visitor.complaints.remove(f"a request to {other_site}?id={payment.id}")
    unchanged = await console.services.payments.get(payment.id, account_id=ACCOUNT)
    assert (unchanged.status, unchanged.version) == (Status.FAILED_FINAL, payment.version)


async def test_a_first_visit_is_small(visitor: Visitor, console: Console) -> None:
    """The page, the style sheet, two scripts and the icon, with the headers of their answers."""
    for number in range(50):
        await accept_one(console.services.payments, new(f"key-{number}"))
    await visitor.log_in()
    sizes: dict[str, int] = {}
    fresh = await visitor.context.new_page()
    devtools = await visitor.context.new_cdp_session(fresh)
    await devtools.send("Network.enable")
    await devtools.send("Network.setCacheDisabled", {"cacheDisabled": True})
    devtools.on("Network.loadingFinished", lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}))
    await fresh.goto(visitor.at("/payments"), wait_until="networkidle")
    assert len(sizes) >= 5
    assert sum(sizes.values()) <= FIRST_VISIT_BYTES
