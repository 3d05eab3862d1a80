"""Every screen, with payments on it: at every width, light and dark, accessible, and with markup of others as text."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from uuid import UUID

import pytest

from okane.payment import Status
from okane.store.webhook_endpoints import WebhookEndpointStore
from tests.console.browser.visitor import Visitor
from tests.console.served_console import Console
from tests.okane.stored_payments import accept_one, claimed, new, settlement
from tests.okane.webhook_rows import created

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
NOT_FOUND = ("/no-such-page", "/payments/0198c0de-0000-7000-8000-000000000001")
SCREENS = {
    "money": ["/", "/payments", "/payments?q=none&status=pending", "/streams", "/streams/critical/pending"],
    "payments": [
        f"/payments/{{{status}}}" for status in ("pending", "needs_review", "failed_final", "failed_retryable")
    ],
    "repairs": ["/streams/delayed", "/dead", "/dead/replay", "/dead/purge", "/reviews"],
    "system": ["/providers", "/webhooks", "/webhooks/{endpoint}", "/workers", "/keys"],
    "checks": ["/doctor", "/audit", *NOT_FOUND],
}


async def payments_in_every_place(console: Console, database_url: str) -> dict[str, UUID]:
    """Write a payment for each status that a page shows differently, with markup in all that comes from outside."""
    store, found = console.services.payments, {}
    for status in (Status.PENDING, Status.SUCCESS, Status.FAILED_FINAL, Status.NEEDS_REVIEW, Status.FAILED_RETRYABLE):
        fresh = replace(new(f"{status} {MARKUP}"), metadata={"order": MARKUP, MARKUP[:40]: "<b>bold</b>"})
        payment = (await accept_one(store, fresh)).payment
        found[str(status)] = payment.id
        await console.services.producer.publish(payment.id.bytes, lane="low")
        if status is not Status.PENDING:
            claim = await claimed(store, payment.id)
            event = "spent" if status is Status.FAILED_FINAL else status.value  # spent: a dead letter
            settled = settlement(claim.payment, status, event=event, reason=MARKUP, decline_code=MARKUP[:30])
            await store.settle(settled)
    endpoints = WebhookEndpointStore(database_url)
    found["endpoint"] = (await created(endpoints, url="https://hooks.example/<b>")).id
    await endpoints.aclose()
    return found


@pytest.mark.parametrize("group", SCREENS)
async def test_a_screen_fits_every_window_and_violates_no_rule(visitor: Visitor, database_url: str, group: str) -> None:
    ids = await payments_in_every_place(visitor.console, database_url)
    await visitor.log_in()
    flaws = []
    for path in SCREENS[group]:
        answer = await visitor.open(path.format(**ids))
        assert answer.status == (HTTPStatus.NOT_FOUND if path in NOT_FOUND else HTTPStatus.OK), path
        flaws += await visitor.flaws()
    assert flaws == []
