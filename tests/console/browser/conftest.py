"""Chromium, and visitors of the console with it. At the end of each test the browser must have complained about nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.console.browser.visitor import CHROMIUM, Visitor
from tests.console.served_console import Console, serve_console

if TYPE_CHECKING:
    from playwright.async_api import Browser

NewVisitor = Callable[..., Awaitable[Visitor]]


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makemodule() -> Generator[None, pytest.Module, pytest.Module]:
    """Run the tests of this folder, and so their fixtures, on one event loop, that of Chromium's driver."""
    module = yield
    module.add_marker(pytest.mark.asyncio(loop_scope="session"))
    return module


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The Chromium of all tests: to start one takes longer than most of them. Each has windows of its own in it."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium (Debian: apt install chromium)")
    from playwright.async_api import async_playwright  # noqa: PLC0415 - collected where it is not installed

    async with async_playwright() as driver:
        # Its sandbox needs rights that a container has not; the pages are our own.
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def console(database_url: str, redis_url: str) -> AsyncIterator[Console]:
    """A served console with the default settings, on the loop of the browser."""
    async with serve_console(database_url, redis_url) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="session")
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


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(new_visitor: NewVisitor) -> Visitor:
    """A visitor who is not logged in."""
    return await new_visitor()
