"""Log-in, log-out and lost sessions in the browser."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from okane.api_key import Scope
from okane.console import login_limit
from okane.redis.buckets import Allowance
from tests.console.browser.conftest import NewVisitor
from tests.console.browser.visitor import Visitor


async def test_the_log_in_looks_right_and_leads_back_to_the_address_that_was_asked_for(visitor: Visitor) -> None:
    await visitor.open("/payments?status=pending&q=key%3Aorder")
    assert urlsplit(visitor.page.url).path == f"{visitor.console.base}/login"
    assert await visitor.flaws() == []
    await visitor.log_in()
    assert visitor.page.url == visitor.at("/payments?status=pending&q=key%3Aorder")


@pytest.mark.parametrize("wanted", ["//evil.example", "https://evil.example/console/", "/\\evil.example"])
async def test_no_address_leads_to_another_host_after_the_log_in(visitor: Visitor, wanted: str) -> None:
    await visitor.open(f"/login?next={wanted}")
    await visitor.log_in()
    assert visitor.page.url == visitor.at("/")


async def test_a_wrong_key_is_refused_in_words_and_the_page_stays_accessible(visitor: Visitor) -> None:
    await visitor.open("/login")
    await visitor.page.get_by_label("API key").fill("sk_live_of_someone_else")
    await visitor.page.get_by_role("button", name="Log in").click()
    await visitor.page.get_by_role("alert").wait_for()
    assert await visitor.flaws() == []


async def test_the_eleventh_attempt_to_log_in_must_wait(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_limit, "PER_ADDRESS", Allowance(1 / 3600, 10))  # however long ten attempts take
    for _ in range(10):
        await visitor.open("/login")
        await visitor.page.get_by_label("API key").fill("wrong")
        async with visitor.page.expect_navigation() as navigation:
            await visitor.page.get_by_role("button", name="Log in").click()
        assert (await navigation.value).status == 401
    await visitor.page.get_by_label("API key").fill("wrong")
    async with visitor.page.expect_navigation() as navigation:
        await visitor.page.get_by_role("button", name="Log in").click()
    assert (await navigation.value).status == 429
    assert "Try again in" in await visitor.page.get_by_role("alert").inner_text()


async def test_the_log_in_and_the_log_out_need_no_mouse(visitor: Visitor) -> None:
    await visitor.open("/login")
    assert await visitor.page.evaluate("document.activeElement.name") == "key"
    await visitor.page.keyboard.type(await visitor.console.key(Scope.READ, Scope.SYSTEM))
    await visitor.page.keyboard.press("Enter")
    await visitor.page.get_by_role("button", name="Log out").wait_for()
    await visitor.page.keyboard.press("Tab")
    assert await visitor.focused() == "Skip to the content"
    await visitor.page.keyboard.press("Enter")
    assert await visitor.page.evaluate("document.activeElement.id") == "content"
    await visitor.tab_to("Log out")
    await visitor.page.keyboard.press("Enter")
    await visitor.page.get_by_label("API key").wait_for()


async def test_the_log_in_works_without_javascript(new_visitor: NewVisitor) -> None:
    visitor = await new_visitor(java_script_enabled=False)
    await visitor.log_in()
    assert urlsplit(visitor.page.url).path == f"{visitor.console.base}/"
