"""The parts that pages share: times in the reader's zone, and buttons that copy."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.console.browser.conftest import NewVisitor
from tests.console.browser.live_page import LivePage
from tests.console.browser.visitor import Visitor

# The clocks of St. John's went back from 02:00 -02:30 to 01:00 -03:30 at 04:30 UTC on the first of November 2026.
ZONES = {
    "Asia/Kathmandu": [
        (datetime(2026, 11, 30, 14, 4, 55, 123000, UTC), "2026-11-30 19:49:55.123 GMT+05:45"),
        (datetime(2026, 12, 31, 18, 15, 0, 0, UTC), "2027-01-01 00:00:00.000 GMT+05:45"),
    ],
    "America/St_Johns": [
        (datetime(2026, 11, 1, 4, 15, 0, 1000, UTC), "2026-11-01 01:45:00.001 GMT-02:30"),
        (datetime(2026, 11, 1, 5, 15, 0, 999000, UTC), "2026-11-01 01:45:00.999 GMT-03:30"),
    ],
}


@pytest.mark.parametrize("zone", ZONES)
async def test_the_switch_shows_times_in_the_zone_of_the_browser_and_names_it(
    new_visitor: NewVisitor, zone: str
) -> None:
    visitor = await new_visitor(timezone_id=zone)
    live = await LivePage.opened(visitor)
    time, switch = visitor.page.locator("time"), visitor.page.locator("#zone")
    for at, text in ZONES[zone]:
        live.at, live.state = at, "waiting"
        written = f"{at.isoformat(sep=' ', timespec='milliseconds')[:23]} UTC"
        await visitor.page.reload()
        assert await time.inner_text() == written
        await switch.click()
        assert await time.inner_text() == text
        live.state = "settled"
        await live.poll()
        assert await time.inner_text() == text, "a region that changes keeps the zone"
        await visitor.page.reload()
        assert await time.inner_text() == text, "so does the next page"
        await switch.click()
        assert await time.inner_text() == written


async def test_a_button_copies_the_text_beside_it(new_visitor: NewVisitor) -> None:
    visitor = await new_visitor(permissions=["clipboard-read", "clipboard-write"])
    await LivePage.opened(visitor)
    await visitor.page.get_by_role("button", name="Copy").click()
    await visitor.page.get_by_role("button", name="Copied").wait_for()
    assert await visitor.page.evaluate("navigator.clipboard.readText()") == "01a2279d-06ea"


async def test_without_a_clipboard_the_text_is_selected(visitor: Visitor) -> None:
    """Browsers offer the clipboard over HTTPS and on the own machine only."""
    await visitor.page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    await LivePage.opened(visitor)
    await visitor.page.get_by_role("button", name="Copy").click()
    assert await visitor.page.evaluate("getSelection().toString()") == "01a2279d-06ea"


async def test_a_page_without_javascript_shows_utc_and_no_button_that_needs_it(new_visitor: NewVisitor) -> None:
    visitor = await new_visitor(java_script_enabled=False)
    await visitor.open("/login")
    assert await visitor.page.locator("#zone").is_hidden()
