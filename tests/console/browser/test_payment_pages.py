"""The list of payments and the page of one, in the browser."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from okane.api_key import ACCOUNT, Scope
from okane.payment import Payment, Status
from okane.store.operations import OperationStore
from tests.console.browser.conftest import NewVisitor
from tests.console.browser.visitor import Visitor
from tests.console.served_console import Console
from tests.okane.stored_operations import charged, claim_of, outcome
from tests.okane.stored_payments import GRACE, LEASE, accept_one, claimed, new, settlement

LONG = "a-key-of-many-letters-" * 11
MARKUP = "<img src=x onerror=alert(1)>"


async def accepted(console: Console, key: str = "key-1", **more: object) -> Payment:
    return (await accept_one(console.services.payments, replace(new(key), **more))).payment  # type: ignore[arg-type]  # any field


async def failed(console: Console, key: str, status: Status = Status.FAILED_RETRYABLE) -> Payment:
    store = console.services.payments
    payment = await accepted(console, key, metadata={"order": "A-1001", "note": MARKUP, "long": "x" * 400})
    claim = await claimed(store, payment.id)
    await store.settle(settlement(claim.payment, status, event="unavailable", delay=LEASE, reason="HTTP 503 " * 20))
    return await store.get(payment.id, account_id=ACCOUNT)


async def test_the_list_looks_right_full_and_empty_and_with_a_mistake(visitor: Visitor, console: Console) -> None:
    await visitor.log_in(Scope.READ, Scope.SYSTEM)
    await visitor.open("/payments")
    assert await visitor.flaws() == []
    await accepted(console, LONG)
    for status in (Status.FAILED_RETRYABLE, Status.FAILED_FINAL, Status.NEEDS_REVIEW):
        await failed(console, status.value, status)
    for path in ("/payments", "/payments?q=key-1&status=success", "/payments?currency=usd&from=yesterday"):
        await visitor.open(path)
        assert await visitor.flaws() == []


@pytest.mark.parametrize(
    ("status", "button"),
    [
        (Status.FAILED_RETRYABLE, "Cancel this payment"),
        (Status.FAILED_FINAL, "Retry this payment"),
        (Status.NEEDS_REVIEW, "Decide this payment"),
    ],
)
async def test_a_payment_looks_right_with_its_dialog_open(
    visitor: Visitor, console: Console, status: Status, button: str
) -> None:
    payment = await failed(console, LONG, status)
    await visitor.log_in()
    await visitor.open(f"/payments/{payment.id}")
    await visitor.page.get_by_text("Raw JSON").click()
    assert await visitor.flaws() == []
    await visitor.page.get_by_role("button", name=button).click()
    await visitor.page.locator("dialog[open]").wait_for()
    assert await visitor.flaws() == []
    assert await visitor.page.locator("img[src=x]").count() == 0


async def test_a_payment_is_found_and_canceled_without_a_mouse(visitor: Visitor, console: Console) -> None:
    payment = await accepted(console)
    await visitor.log_in()
    page = visitor.page
    await visitor.tab_to("Find a payment")
    await page.keyboard.type(str(payment.id))
    await page.keyboard.press("Enter")
    await page.wait_for_url(visitor.at(f"/payments/{payment.id}"))
    await opened_and_closed_without_a_mouse(visitor, "Cancel this payment")
    await page.keyboard.press("Enter")
    await visitor.tab_to("Cancel the payment")
    await page.keyboard.press("Enter")
    await page.get_by_text("The payment is canceled. It will not be charged.").wait_for()
    assert (await console.services.payments.get(payment.id, account_id=ACCOUNT)).status is Status.CANCELED


async def test_a_payment_is_retried_without_a_mouse(visitor: Visitor, console: Console) -> None:
    payment = await failed(console, "key-1", Status.FAILED_FINAL)
    await visitor.log_in()
    await visitor.open(f"/payments/{payment.id}")
    await opened_and_closed_without_a_mouse(visitor, "Retry this payment")
    await visitor.page.keyboard.press("Enter")
    await visitor.tab_to("Retry the payment")
    await visitor.page.keyboard.press("Enter")
    await visitor.page.get_by_text("The payment is pending again, and its wake-up is sent.").wait_for()
    assert (await console.services.payments.get(payment.id, account_id=ACCOUNT)).status is Status.PENDING


async def test_a_refund_is_requested_without_a_mouse_and_followed_on_screen(
    visitor: Visitor, console: Console, database_url: str
) -> None:
    payment = await charged(console.services.payments)
    await visitor.log_in()
    await visitor.open(f"/payments/{payment.id}")
    await opened_and_closed_without_a_mouse(visitor, "Refund…")
    page = visitor.page
    await page.keyboard.press("Enter")
    await visitor.tab_to("Amount in USD, 4.40 USD at most")
    await page.keyboard.type("1.50")
    await visitor.tab_to("Refund")
    await page.keyboard.press("Enter")
    await page.get_by_text("The refund of 1.50 USD is requested, and its wake-up is sent.").wait_for()
    details = await console.services.details.read(payment.id, account_id=ACCOUNT)
    assert details is not None
    [refund] = details.operations
    store = OperationStore(database_url, actor="worker-1", lease=LEASE, grace=GRACE)
    claim = await claim_of(store, refund.id)
    await page.get_by_text("refund claimed").wait_for()
    await store.settle(outcome(claim.operation))
    await store.aclose()
    await page.locator(f"#op-{refund.id} .status", has_text="success").wait_for()
    assert "4.40 USD" in await page.locator("h1").inner_text()


async def opened_and_closed_without_a_mouse(visitor: Visitor, button: str) -> None:
    """Open the dialog of a button; close it, by Escape and by its own button: each time the focus must come back."""
    dialog = visitor.page.locator("dialog")
    await visitor.tab_to(button)
    for close in (None, "Keep it as it is"):
        await visitor.page.keyboard.press("Enter")
        await visitor.page.locator("dialog[open]").wait_for()
        assert await dialog.evaluate("(dialog) => dialog.contains(document.activeElement)")
        if close is not None and await visitor.focused() != close:
            await visitor.tab_to(close)
        await visitor.page.keyboard.press("Escape" if close is None else "Enter")
        await dialog.wait_for(state="hidden")
        assert await visitor.focused() == button


async def test_the_list_is_filtered_and_paged_without_a_mouse(visitor: Visitor, console: Console) -> None:
    for number in range(51):
        await accepted(console, f"k{number}")
    last = await failed(console, "failed")
    await visitor.log_in()
    await visitor.open("/payments")
    page = visitor.page
    await visitor.tab_to("failed_retryable")
    await page.keyboard.press("Space")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/payments?*status=failed_retryable*")
    assert await page.locator("tbody tr").count() == 1
    await visitor.tab_to(str(last.id))
    await page.keyboard.press("Enter")
    await page.wait_for_url(visitor.at(f"/payments/{last.id}"))
    await visitor.open("/payments")
    await visitor.tab_to("Older")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/payments?after=*")
    assert await page.locator("tbody tr").count() == 2


async def test_without_javascript_payments_are_listed_found_and_shown(
    new_visitor: NewVisitor, console: Console
) -> None:
    visitor = await new_visitor(java_script_enabled=False)
    payment = await accepted(console, "order-1")
    for number in range(50):
        await accepted(console, f"k{number}")
    await visitor.log_in(Scope.READ)
    await visitor.open("/payments")
    page = visitor.page
    await page.get_by_role("link", name="Older").click()
    await page.get_by_role("link", name=str(payment.id)).click()
    assert "4.40 USD" in await page.locator("h1").inner_text()
    await page.get_by_role("searchbox", name="Find a payment").fill("order-1")
    await page.get_by_role("searchbox", name="Find a payment").press("Enter")
    assert urlsplit(page.url).query == "q=order-1"
    assert await page.locator("tbody tr").count() == 1


async def test_a_waiting_payment_changes_on_screen_until_it_is_settled(visitor: Visitor, console: Console) -> None:
    payment = await accepted(console)
    await visitor.log_in()
    await visitor.open(f"/payments/{payment.id}")
    page = visitor.page
    await page.get_by_text("Raw JSON").click()
    await page.get_by_role("button", name="Cancel this payment").wait_for()
    claim = await claimed(console.services.payments, payment.id)
    await page.get_by_text("Held by").wait_for()
    await page.get_by_role("button", name="Cancel this payment").wait_for(state="detached")
    await console.services.payments.settle(settlement(claim.payment))
    await page.locator("h1 .status", has_text="success").wait_for()
    assert await page.locator("#place").count() == 0
    assert await page.locator("#raw").get_attribute("open") is not None
    assert await page.locator("#raw pre").is_visible()


async def test_an_open_dialog_stays_open_and_says_that_it_came_too_late(visitor: Visitor, console: Console) -> None:
    payment = await accepted(console)
    await visitor.log_in()
    await visitor.open(f"/payments/{payment.id}")
    page = visitor.page
    await page.get_by_role("button", name="Cancel this payment").click()
    claim = await claimed(console.services.payments, payment.id)
    await page.get_by_text("Held by").wait_for()
    assert await page.locator("dialog[open]").is_visible()
    await console.services.payments.settle(settlement(claim.payment))
    await page.get_by_role("button", name="Cancel the payment").click()
    await page.get_by_role("alert").wait_for()
    assert "Nothing was done: a payment that is" in await page.get_by_role("alert").inner_text()
    assert "success" in await page.locator("h1").inner_text()
    assert await visitor.flaws() == []


async def test_the_times_of_a_payment_are_in_the_zone_of_the_browser(new_visitor: NewVisitor, console: Console) -> None:
    visitor = await new_visitor(timezone_id="Asia/Kathmandu")
    payment = await accepted(console)
    await visitor.log_in()
    await visitor.open(f"/payments/{payment.id}")
    await visitor.page.get_by_role("button", name="show local").click()
    at = payment.created_at + timedelta(hours=5, minutes=45)
    first = await visitor.page.locator(".timeline time").first.inner_text()
    assert first == f"{at.isoformat(sep=' ', timespec='milliseconds')[:23]} GMT+05:45"
