"""The tests of endpoints that run in this process: each sends one event now, and waits for a server of a client.

Guarantee: an account has a few at a time, whatever the others do. The test of an endpoint that is disabled or deleted ends,
at once in this process and soon in others, and its connection with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from okane.errors import AccountBusy, StoreUnavailable, TooManyTests
from okane.http.guard import Guard
from okane.store.webhook_endpoints import Endpoint, WebhookEndpointStore
from okane.store.webhook_events import EventRow, LoggedEvent
from okane.webhooks import payload
from okane.webhooks.keys import Masters
from okane.webhooks.sender import Answer, Sender
from okane.webhooks.types import EventType

MAX_TESTS = 256  # in this process at a time: each may take a connection and a look-up
MAX_OF_ACCOUNT = 4
LOOK_EVERY_S = 0.5  # at an endpoint that another process may have disabled or deleted

_ENDED = "the endpoint was disabled or deleted meanwhile"


@dataclass(slots=True, eq=False)
class _Test:
    """A test that runs. `is_ended`: nothing begins any more."""

    account_id: str
    sender: Sender
    is_ended: bool = False

    async def end(self) -> None:
        self.is_ended = True
        await self.sender.aclose()


class EndpointTests:
    """The tests that run. One endpoint has one at a time."""

    def __init__(self, endpoints: WebhookEndpointStore, guard: Guard) -> None:
        self._endpoints = endpoints
        self._guard = guard
        self._running: dict[UUID, _Test] = {}
        self._of_account: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def slot(self, account_id: str, endpoint_id: UUID, masters: Masters) -> AsyncIterator[_Test]:
        """Take a slot, before the endpoint is read: it may be disabled or deleted from then on. Raises TooManyTests."""
        if (
            endpoint_id in self._running
            or len(self._running) >= MAX_TESTS
            or self._of_account[account_id] >= MAX_OF_ACCOUNT
        ):
            raise TooManyTests(
                f"a test of this endpoint, {MAX_OF_ACCOUNT} of the account's, or many others, are not answered yet"
            )
        test = self._running[endpoint_id] = _Test(account_id, Sender(self._guard, masters))
        self._of_account[account_id] += 1
        try:
            yield test
        finally:
            del self._running[endpoint_id]
            self._of_account[account_id] -= 1
            if not self._of_account[account_id]:
                del self._of_account[account_id]
            await test.sender.aclose()

    async def send(self, test: _Test, endpoint: Endpoint) -> Answer:
        """Send an event that is in no log. Its version is the time: each test is another event."""
        now = datetime.now(UTC)
        event = LoggedEvent(0, endpoint.account_id, endpoint.id, int(now.timestamp()), EventType.ENDPOINT_TEST, now)
        body = payload.body(EventRow(event, "", 0, None, None, 0, "", "", now, {}), endpoint)
        watching = asyncio.create_task(self._watch(test, endpoint))
        try:
            answer = await test.sender.send(
                endpoint,
                payload.event_id(event.payment_id, event.version),
                body,
                now=now,
                may_begin=lambda: not test.is_ended,
            )
        finally:
            watching.cancel()
        return replace(answer, outcome="connect", status=None, reason=_ENDED, text="") if test.is_ended else answer

    async def end(self, endpoint_id: UUID) -> None:
        """End the test of an endpoint that was disabled or deleted, if there is one."""
        test = self._running.get(endpoint_id)
        if test is not None:
            await test.end()

    async def _watch(self, test: _Test, began: Endpoint) -> None:
        """End the test when another process has disabled or deleted its endpoint."""
        while not test.is_ended:
            await asyncio.sleep(LOOK_EVERY_S)
            with contextlib.suppress(StoreUnavailable, AccountBusy):
                state = await self._endpoints.get(began.account_id, began.id)
                if state is None or (state.endpoint.status != began.status and state.endpoint.status == "disabled"):
                    await test.end()
