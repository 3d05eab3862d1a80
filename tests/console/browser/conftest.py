"""Chromium, and visitors of the console with it. At the end of each test the browser must have complained about nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.console.browser.visitor import CHROMIUM, Visitor
from tests.console.served_console import Console

if TYPE_CHECKING:
    from playwright.async_api import Browser

NewVisitor = Callable[..., Awaitable[Visitor]]


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    """A Chromium of this test's own."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium (Debian: apt install chromium)")
    from playwright.async_api import async_playwright  # noqa: PLC0415 - collected where it is not installed

    async with async_playwright() as driver:
        # Its sandbox needs rights that a container has not; the pages are our own.
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture
async def new_visitor(chromium: Browser, console: Console) -> AsyncIterator[NewVisitor]:
    """Makes visitors of `console`: `await new_visitor(timezone_id=..., java_script_enabled=False)`."""
    visitors: list[Visitor] = []
    async with contextlib.AsyncExitStack() as closing:

        async def create(of: Console = console, **options: Any) -> Visitor:
            context = await chromium.new_context(**options)
            closing.push_async_callback(context.close)
            visitor = Visitor(of, context, await context.new_page())
            await visitor.watch()
            visitors.append(visitor)
            return visitor

        yield create
    assert [complaint for visitor in visitors for complaint in visitor.complaints] == []


@pytest.fixture
async def visitor(new_visitor: NewVisitor) -> Visitor:
    """A visitor who is not logged in."""
    return await new_visitor()
