"""The console's process is killed under an open page, which says so once and recovers without a reload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest_asyncio

from okane.local.okane_process import answers_http
from okane.local.ports import free_port as find_free_port
from tests.console.browser.conftest import NewVisitor
from tests.console.served_console import SECRET, Console
from tests.forked_process import ForkedOkaneProcess
from tests.okane.stored_payments import accept_one, claimed, new, settlement

_NOTE = """
window.isSamePage = true;
window.announced = [];
const line = document.getElementById("away");
new MutationObserver(() => line.textContent && window.announced.push(line.textContent)).observe(line, { childList: true });
"""


@pytest_asyncio.fixture(loop_scope="session")
async def process(
    console: Console, database_url: str, redis_url: str, free_port: int, tmp_path: Path
) -> AsyncIterator[ForkedOkaneProcess]:
    """A console that is a process of its own, over the servers and the stream of `console`."""
    env = {
        "OKANE_CONSOLE_PORT": str(free_port),
        "OKANE_CONSOLE_SECRET": SECRET,
        "OKANE_DATABASE_URL": database_url,
        "OKANE_METRICS_PORT": str(find_free_port(besides=[free_port])),
        "OKANE_REDIS_URL": redis_url,
        "OKANE_STREAM": console.services.stream.name,
    }
    one = ForkedOkaneProcess(
        name="console",
        arguments=["console"],
        env=env,
        log=tmp_path / "console.log",
        probe=answers_http(free_port, "/healthz"),
        drain_s=5,
    )
    one.launch()  # in this thread, which outlives it
    while not await asyncio.to_thread(one.ready):
        one.check_alive()
    yield one
    await asyncio.to_thread(one.stop)


async def test_a_killed_console_is_announced_once_and_its_pages_recover_by_themselves(
    new_visitor: NewVisitor, console: Console, process: ForkedOkaneProcess, free_port: int
) -> None:
    store = console.services.payments
    payment = (await accept_one(store, new())).payment
    visitor = await new_visitor(replace(console, url=f"http://127.0.0.1:{free_port}"))
    page = visitor.page
    await visitor.log_in()
    await visitor.open(f"/payments/{payment.id}")
    await page.evaluate(_NOTE)
    process.kill()
    for _ in range(2):
        await page.wait_for_event("requestfailed")
    await page.get_by_text("The console does not answer.").wait_for()
    assert await page.locator("h1 .status").inner_text() == "pending"
    await store.settle(settlement((await claimed(store, payment.id)).payment))
    process.launch()
    await page.locator("h1 .status", has_text="success").wait_for()
    assert await page.locator("#away").inner_text() == ""
    assert [text.partition(".")[0] for text in await page.evaluate("window.announced")] == [
        "The console does not answer"
    ]
    assert await page.evaluate("window.isSamePage")
    await page.get_by_role("link", name="Keys").click()
    await page.get_by_role("heading", name="Keys").wait_for()
