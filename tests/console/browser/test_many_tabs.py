"""Many tabs of one browser: all stay live, and a lost session is lost in all of them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from tests.console.browser.visitor import Visitor
from tests.okane.stored_payments import accept_one, claimed, new, settlement

if TYPE_CHECKING:
    from playwright.async_api import Page

TABS = 8
LOGGED_OUT_S = 5.0
NEXT_TAB_S = 1.0  # on an idle machine it takes a fifth of that


async def opened(visitor: Visitor, path: str) -> Page:
    """Open a further tab."""
    page = await visitor.context.new_page()
    visitor.watch_page(page)
    await page.goto(visitor.at(path))
    return page


async def test_eight_tabs_are_live_and_the_ninth_opens_at_once(visitor: Visitor) -> None:
    """A browser has six connections to a host over HTTP/1.1: a page that held one would block the seventh."""
    store = visitor.console.services.payments
    payment = (await accept_one(store, new())).payment
    await visitor.log_in()
    tabs = [await opened(visitor, f"/payments/{payment.id}") for _ in range(TABS)]
    claim = await claimed(store, payment.id)
    await asyncio.gather(*(tab.get_by_text("Held by").wait_for() for tab in tabs))
    began_s = time.monotonic()
    await opened(visitor, "/login")
    assert time.monotonic() - began_s < NEXT_TAB_S * 5  # other tests share the processor
    await store.settle(settlement(claim.payment))
    await asyncio.gather(*(tab.locator("h1 .status", has_text="success").wait_for() for tab in tabs))


async def test_a_revoked_key_ends_its_session_in_every_tab(visitor: Visitor) -> None:
    payment = (await accept_one(visitor.console.services.payments, new())).payment
    await visitor.log_in()
    paths = ("/", "/streams", "/workers", "/payments", f"/payments/{payment.id}")
    tabs = [await opened(visitor, path) for path in paths]
    still = await opened(visitor, "/keys")
    await visitor.console.services.keys.revoke(visitor.secret.rpartition("_")[0])
    began_s = time.monotonic()
    await asyncio.gather(*(tab.get_by_label("API key").wait_for() for tab in tabs))
    assert time.monotonic() - began_s < LOGGED_OUT_S * 3  # other tests share the processor
    back = [dict(parse_qsl(urlsplit(tab.url).query)).get("next") for tab in tabs]
    assert back == [None, *(f"/console{path}" for path in paths[1:])]
    await still.get_by_role("button", name="Show", exact=True).click()  # a page that never changes by itself
    await still.get_by_label("API key").wait_for()
