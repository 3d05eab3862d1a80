"""Payments of a served console, for tests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from okane.api_key import ACCOUNT
from okane.payment import Payment, Status
from tests.console.served_console import Browser, Console
from tests.okane.stored_payments import accept_one, claimed, new, settlement


async def accepted(console: Console, key: str = "key-1", *, account: str = ACCOUNT, **more: Any) -> Payment:
    return (await accept_one(console.services.payments, replace(new(key), account_id=account, **more))).payment


async def settled(console: Console, key: str, status: Status, **more: Any) -> Payment:
    payment = await accepted(console, key)
    claim = await claimed(console.services.payments, payment.id)
    await console.services.payments.settle(settlement(claim.payment, status, **more))
    return await now(console, payment)


async def now(console: Console, payment: Payment) -> Payment:
    return await console.services.payments.get(payment.id, account_id=payment.account_id)


def listed(page: str) -> list[str]:
    """Return the ids of the payments on a page, in order."""
    return re.findall(r'id="p-([0-9a-f-]{36})"', page)


async def act(browser: Browser, payment: Payment, action: str, fields: Mapping[str, str] | None = None) -> Any:
    """Send the form of an action that was shown with this version of the payment."""
    return await browser.submit(f"/payments/{payment.id}/{action}", {"version": str(payment.version), **(fields or {})})
