"""The customers of `okane load`: they authenticate payments (3-D Secure) on the page of a simulator."""

from __future__ import annotations

import random

from okane.load.client import HttpClient
from okane.load.report import Tally, Tracked

_FAILED_SHARE = 0.1


class Customers:
    """Opens the page of every payment that waits for its customer, once, and completes nine of ten.

    Only pages of the provider that `okane load` was given: a real gateway's page wants a human.
    """

    def __init__(self, *, provider_url: str, http: HttpClient, tally: Tally, seed: int) -> None:
        self._pages = f"{provider_url}/"
        self._http = http
        self._tally = tally
        self._dice = random.Random(seed)
        self._authenticated: set[int] = set()

    async def authenticate(self, payment: Tracked) -> None:
        page = payment.action_url
        if page is None or not page.startswith(self._pages) or payment.number in self._authenticated:
            return
        self._authenticated.add(payment.number)
        outcome = "failed" if self._dice.random() < _FAILED_SHARE else "succeeded"
        reply = await self._http.post_form(page, {"outcome": outcome})
        if reply.status != 303:
            self._authenticated.discard(payment.number)  # the next poll tries again
            self._tally.errors[f"page {reply.error_kind}"] += 1
