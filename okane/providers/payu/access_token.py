"""The access token of PayU's OAuth: fetched at the first call, then renewed in the background before it ends.

Guarantee: at most one fetch is under way, whatever the number of calls; calls wait only while there is no valid token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from okane import logs
from okane.providers.base import Unavailable
from okane.providers.payu.answers import AccessToken

# A token is renewed this long before its end, or at half of a shorter life.
RENEW_EARLY_S = 600.0
# PayU may answer with the same token again, and the little that is left of its life.
RENEW_LATE_S = 5.0
# The pauses between failed renewals, while the token is still valid; the last one repeats.
RENEWAL_PAUSES_S = (5.0, 15.0, 60.0)


def renewal_delay_s(lifetime_s: float) -> float:
    """Return how long after its fetch a token is renewed."""
    return max(lifetime_s - RENEW_EARLY_S, lifetime_s / 2, RENEW_LATE_S)


class AccessTokenSource:
    """Created on a running loop; closed by `aclose()`. `fetch` never raises, and takes a bounded time."""

    def __init__(self, fetch: Callable[[], Awaitable[AccessToken | Unavailable]]) -> None:
        self._fetch = fetch
        self._loop = asyncio.get_running_loop()
        self._token: str | None = None
        self._ends_s = 0.0
        self._fetching: asyncio.Task[str | Unavailable] | None = None
        self._renewal: asyncio.TimerHandle | None = None
        self._failed_renewals = 0
        self._closed = False

    async def get(self, *, due_s: float) -> str | Unavailable:
        """Return a valid token, fetching one if there is none, or the reason why there is none at `due_s`."""
        if self._token is not None and self._loop.time() < self._ends_s:
            return self._token
        return await self._fetched(due_s)

    async def replace(self, refused: str, *, due_s: float) -> str | Unavailable:
        """Return another token than `refused`, which PayU did not accept."""
        if self._token == refused:
            self._token = None
        return await self.get(due_s=due_s)

    async def aclose(self) -> None:
        """End a renewal. A call that waits for a token gets `Unavailable`."""
        self._closed = True
        self._cancel_renewal()
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    async def _fetched(self, due_s: float) -> str | Unavailable:
        if self._closed:
            return Unavailable("no access token: the client is closed")
        fetching = self._start_fetch()
        # A call that is cancelled must not end the fetch for the others.
        done, _ = await asyncio.wait([fetching], timeout=max(due_s - self._loop.time(), 0.0))
        if not done:
            return Unavailable("no access token in time")
        return Unavailable("no access token: the client is closed") if fetching.cancelled() else fetching.result()

    def _start_fetch(self) -> asyncio.Task[str | Unavailable]:
        if self._fetching is None:
            self._cancel_renewal()
            self._fetching = asyncio.create_task(self._run())
        return self._fetching

    async def _run(self) -> str | Unavailable:
        try:
            # PayU counts the lifetime from its answer, which comes later.
            asked_s = self._loop.time()
            outcome = await self._fetch()
            if isinstance(outcome, Unavailable):
                self._renew_after_failure()
                return outcome
            logs.register_secret(outcome.value)
            self._token = outcome.value
            self._ends_s = asked_s + outcome.lifetime_s
            self._failed_renewals = 0
            self._renew_in(renewal_delay_s(outcome.lifetime_s))
            return outcome.value
        finally:
            self._fetching = None

    def _renew_after_failure(self) -> None:
        """Try again while a token is valid. Without one, the next call does."""
        if self._token is not None and self._loop.time() < self._ends_s:
            self._renew_in(RENEWAL_PAUSES_S[min(self._failed_renewals, len(RENEWAL_PAUSES_S) - 1)])
            self._failed_renewals += 1

    def _renew_in(self, delay_s: float) -> None:
        if not self._closed:
            self._renewal = self._loop.call_later(delay_s, self._start_fetch)

    def _cancel_renewal(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
