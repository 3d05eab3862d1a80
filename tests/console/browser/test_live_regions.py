"""Live regions: polled while the tab is visible, changed in place, and honest about a server that is away."""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests.console.browser.live_page import LivePage
from tests.console.browser.visitor import Visitor


@pytest_asyncio.fixture(loop_scope="session")
async def live(visitor: Visitor) -> LivePage:
    """A page with one live region, open."""
    return await LivePage.opened(visitor)


async def test_a_change_appears_and_the_reader_keeps_place_and_words(live: LivePage) -> None:
    page = live.visitor.page
    await page.get_by_text("Raw JSON").click()
    await page.get_by_label("Note").fill("half a wo")
    await page.evaluate("note.setSelectionRange(2, 4)")
    live.state = "settled"
    await live.poll()
    assert await page.locator("#state").inner_text() == "settled"
    assert await page.get_by_role("button", name="Cancel this payment").count() == 0
    assert await page.locator("#raw").get_attribute("open") is not None
    assert await page.get_by_label("Note").input_value() == "half a wo"
    assert await page.evaluate("document.activeElement.id") == "note"
    assert await page.evaluate("[note.selectionStart, note.selectionEnd]") == [2, 4]


async def test_text_that_is_selected_stays_selected(live: LivePage) -> None:
    page = live.visitor.page
    await page.evaluate("getSelection().selectAllChildren(document.querySelector('.id'))")
    live.state = "settled"
    await live.poll()
    assert await page.evaluate("getSelection().toString()") == "01a2279d-06ea"


async def test_an_open_dialog_stays_with_the_version_that_was_shown(live: LivePage) -> None:
    page = live.visitor.page
    await page.get_by_role("button", name="Cancel this payment").click()
    live.version = 4
    await live.poll()
    assert await page.locator("dialog[open] input[name=version]").get_attribute("value") == "3"
    live.state = "settled"
    await live.poll()
    assert await page.locator("dialog[open] input[name=version]").get_attribute("value") == "3"
    assert await page.get_by_role("button", name="Cancel the payment").is_visible()
    await page.keyboard.press("Escape")
    live.version = 5
    await live.poll()
    assert await page.locator("dialog").count() == 0


async def test_a_dialog_needs_no_mouse_and_gives_the_focus_back(live: LivePage) -> None:
    page = live.visitor.page
    await page.get_by_role("button", name="Cancel this payment").focus()
    await page.keyboard.press("Enter")
    await page.locator("dialog[open]").wait_for()
    assert await live.visitor.violations() == []
    assert await page.evaluate("document.querySelector('dialog').contains(document.activeElement)")
    await page.keyboard.press("Escape")
    await page.locator("dialog").wait_for(state="hidden")
    assert await live.visitor.focused() == "Cancel this payment"
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Keep it as it is").press("Enter")
    await page.locator("dialog").wait_for(state="hidden")
    assert await live.visitor.focused() == "Cancel this payment"


async def test_what_has_not_changed_is_not_sent_again(live: LivePage) -> None:
    for _ in range(3):
        await live.poll()
    assert live.statuses == [200, 304, 304]
    assert live.sent_etags[0] is None
    assert await live.pauses_ms() == [2000] * 4


async def test_a_hidden_tab_sends_no_request_and_a_visible_one_asks_at_once(live: LivePage) -> None:
    await live.poll()
    await live.hide(True)
    assert await live.visitor.page.evaluate("window.next === null")
    live.state = "settled"
    await live.hide(False)
    await live.visitor.page.locator("#state", has_text="settled").wait_for()
    assert len(live.statuses) == 2


@pytest.mark.parametrize("status", [0, 502, 429])
async def test_a_server_that_is_away_is_announced_once_and_asked_less_and_less(live: LivePage, status: int) -> None:
    await live.poll()
    live.status = status
    for _ in range(7):
        await live.poll()
    [announced] = await live.announced()
    assert announced.startswith("The console does not answer.")
    assert announced.endswith("UTC.")
    assert await live.visitor.page.locator("#state").inner_text() == "waiting"
    assert await live.pauses_ms() == [2000, 2000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]
    assert await live.visitor.violations() == []
    live.status, live.state = 200, "settled"
    await live.poll()
    assert await live.visitor.page.locator("#away").inner_text() == ""
    assert await live.visitor.page.locator("#state").inner_text() == "settled"
    assert (await live.pauses_ms())[-1] == 2000
    assert (await live.announced(), live.loads) == ([announced], 1)


async def test_a_refused_region_loads_the_page_which_says_why(live: LivePage) -> None:
    for loads, status in enumerate((401, 403, 404), 2):
        live.status = status
        async with live.visitor.page.expect_navigation():
            await live.visitor.page.evaluate("void window.next()")
        assert live.loads == loads
        await live.visitor.page.wait_for_function("window.next !== null")


async def test_a_redirect_of_a_region_is_not_shown_in_its_place(live: LivePage) -> None:
    """A proxy may answer with a redirect to its own log-in: the page goes there, not a part of it."""
    await live.visitor.page.route("**/live?part=1", lambda route: route.fulfill(status=302, headers={"Location": "/x"}))
    async with live.visitor.page.expect_navigation():
        await live.visitor.page.evaluate("void window.next()")
    assert live.loads == 2
