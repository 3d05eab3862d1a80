"""Every screen, with something on it: at every width, light and dark, accessible, and with markup of others as text."""

from __future__ import annotations

import re
from http import HTTPStatus

import pytest

from okane.api_key import Scope
from okane.console.screens import SCREENS as DECLARED
from tests.console.browser.full_console import filled
from tests.console.browser.visitor import Visitor

SCREENS = {
    "money": ["/", "/payments", "/payments?q=none&status=pending", "/payments?amount_from=9999&currency=USD"],
    "payments": [
        f"/payments/{{{status}}}"
        for status in ("pending", "success", "needs_review", "failed_final", "failed_retryable", "held", "refunded")
    ],
    "streams": ["/streams", "/streams/critical/pending", "/streams/delayed", "/workers"],
    "repairs": ["/dead", "/dead?lane=low&currency=EUR", "/dead/replay", "/dead/purge", "/reviews", "/disputes"],
    "webhooks": ["/providers", "/webhooks", "/webhooks/{enabled}", "/webhooks/{disabled}"],
    "system": ["/keys", "/keys?account=none", "/doctor", "/audit"],
}
DIALOGS = {
    "/payments/{held}": ["Capture…", "Cancel this payment"],
    "/payments/{refunded}": ["Refund…", "Retry…", "Cancel…", "Decide…"],
    "/keys": ["Revoke…"],
    "/providers": ["Enable…", "Disable…"],
    "/webhooks/{enabled}": ["Disable…", "Recover…"],
    "/webhooks/{disabled}": ["Enable…", "Recover…"],
}
ERRORS = {
    "/no-such-page": HTTPStatus.NOT_FOUND,
    "/payments/0198c0de-0000-7000-8000-000000000001": HTTPStatus.NOT_FOUND,
    "/keys": HTTPStatus.FORBIDDEN,
    "/dead?since=yesterday": HTTPStatus.BAD_REQUEST,
}
LOOKED_AT_ELSEWHERE = {"/login"}  # test_sessions.py


async def test_every_screen_is_looked_at() -> None:
    paths = [path for group in SCREENS.values() for path in group]
    for screen, _ in DECLARED:
        pattern = re.sub(r"\{\w+\}", r"[^/?]+", screen.path) + r"(\?.*)?"
        if screen.method == "GET" and screen.path not in LOOKED_AT_ELSEWHERE:
            assert any(re.fullmatch(pattern, path) for path in paths), screen.path


@pytest.mark.parametrize("group", SCREENS)
async def test_a_screen_fits_every_window_and_violates_no_rule(
    visitor: Visitor, database_url: str, redis_url: str, group: str
) -> None:
    ids = await filled(visitor.console, database_url, redis_url)
    await visitor.log_in()
    flaws = []
    for path in SCREENS[group]:
        answer = await visitor.open(path.format(**ids))
        assert answer.status == HTTPStatus.OK, path
        flaws += [*await visitor.flaws(), *await foreign_elements(visitor)]
    assert flaws == []


async def test_a_dialog_fits_every_window_and_violates_no_rule(
    visitor: Visitor, database_url: str, redis_url: str
) -> None:
    ids = await filled(visitor.console, database_url, redis_url)
    await visitor.log_in()
    flaws = []
    for path, buttons in DIALOGS.items():
        await visitor.open(path.format(**ids))
        openers = visitor.page.locator("button[command=show-modal]")
        assert set(await openers.all_inner_texts()) == set(buttons), path
        for button in buttons:
            await openers.filter(has_text=button).first.click()
            dialog = visitor.page.locator("dialog[open]")
            await dialog.wait_for()
            flaws += await visitor.flaws()
            await visitor.page.keyboard.press("Escape")
            await dialog.wait_for(state="detached")
    assert flaws == []


async def test_a_page_that_says_what_is_wrong_fits_every_window_and_violates_no_rule(visitor: Visitor) -> None:
    await visitor.log_in(Scope.READ)
    flaws = []
    for path, status in ERRORS.items():
        assert (await visitor.open(path)).status == status, path
        flaws += await visitor.flaws()
    assert flaws == []


async def foreign_elements(visitor: Visitor) -> list[str]:
    """Return the elements of a page that no template has: they would come from a text that was not escaped."""
    found: list[str] = await visitor.page.evaluate(
        "[...document.querySelectorAll('body script, main img, b')].map((element) => element.outerHTML.slice(0, 120))"
    )
    return found
