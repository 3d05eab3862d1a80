"""Postgres or Redis goes away under an open page: the page says so and recovers, without a reload."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from okane.local.postgres import PostgresServer
from okane.local.redis_server import RedisServer
from tests.console.browser.conftest import NewVisitor
from tests.console.browser.visitor import Visitor
from tests.console.served_console import Console, serve_console

NO_WORKER = "No worker reads the stream"
_NOTE = """
window.isSamePage = true;
window.announced = [];
const verdict = document.querySelector("main [role=status]");
window.announced.push(verdict.textContent);
new MutationObserver(() => window.announced.push(verdict.textContent))
  .observe(verdict, { childList: true, characterData: true, subtree: true });
"""


@pytest_asyncio.fixture(loop_scope="session")
async def console(private_postgres: PostgresServer, private_redis: RedisServer) -> AsyncIterator[Console]:
    """A console over servers that the test may stop."""
    async with serve_console(private_postgres.url, private_redis.url) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="session")
async def overview(new_visitor: NewVisitor) -> Visitor:
    """A visitor of the overview, which notes whether its page is loaded again."""
    visitor = await new_visitor()
    await visitor.log_in()
    await visitor.open("/")
    await visitor.page.evaluate(_NOTE)
    return visitor


async def test_redis_is_away_and_comes_back_under_an_open_overview(
    overview: Visitor, private_redis: RedisServer
) -> None:
    away = overview.page.get_by_text("Redis does not answer since")
    private_redis.kill()
    await away.wait_for()
    assert await overview.flaws() == []
    private_redis.start()
    await away.wait_for(state="detached")
    assert await overview.page.evaluate("window.isSamePage")
    assert await announced(overview) == [NO_WORKER, "Redis is away: payments run from Postgres", NO_WORKER]


async def test_postgres_is_away_and_comes_back_under_an_open_overview(
    overview: Visitor, private_postgres: PostgresServer
) -> None:
    away = overview.page.get_by_text("Postgres does not answer since")
    private_postgres.kill()
    await away.wait_for()
    assert await overview.page.get_by_role("button", name="Log out").is_visible()
    private_postgres.start()
    await away.wait_for(state="detached")
    assert await overview.page.evaluate("window.isSamePage")
    assert await announced(overview) == [NO_WORKER, "Postgres is away: nothing is accepted or settled", NO_WORKER]


async def announced(overview: Visitor) -> list[str]:
    """Return all that a screen reader has announced of the system's state, after what it was at first."""
    texts: list[str] = await overview.page.evaluate("window.announced")
    return texts
