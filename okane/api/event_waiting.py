"""Requests that wait for the next event of their account (`GET /v1/events` with `Prefer: wait=N`).

Guarantee: one look at the end of the log for all of them, a few times a second, on a connection of its own; only if it has
moved are the accounts looked up. A request that waits sees every event that is sequenced after it began to wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import cast

from aiohttp import web

from okane.api.long_polling import WAITED, CancelsWhenLost, poll_while
from okane.errors import AccountBusy
from okane.store.account_events import EventWatch

MAX_WAITING = 256  # requests of one account in this process: each wakes up, and reads, with every event
Told = asyncio.Event  # set when an account may have new events


class EventWaiting:
    """The requests of this process that wait for events."""

    def __init__(self, *, watch: EventWatch) -> None:
        self._watch = watch
        self._waiting: dict[str, set[Told]] = {}
        self._poller: asyncio.Task[None] | None = None
        self._seen: int | None = None  # the end of the log up to which the requests were told; None: they were not yet
        self.is_closed = False

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @contextlib.contextmanager
    def waiter(self, account_id: str) -> Iterator[Told]:
        """Yield what is set when the account may have new events, from now on. Clear it before reading them.

        Raises AccountBusy.
        """
        if len(self._waiting.get(account_id, ())) >= MAX_WAITING:
            raise AccountBusy(f"{MAX_WAITING} requests of this account wait for events already")
        told = Told()
        self._waiting.setdefault(account_id, set()).add(told)
        if self._poller is None or self._poller.done():
            self._seen = None
            self._poller = asyncio.get_running_loop().create_task(
                poll_while(lambda: bool(self._waiting), self.run_once)
            )
        try:
            yield told
        finally:
            waiting = self._waiting[account_id]
            waiting.discard(told)
            if not waiting:
                del self._waiting[account_id]

    async def until_told(self, request: web.Request, told: Told, *, wait_s: float) -> bool:
        """Return True when there may be new events, False after `wait_s`, and at once if the server stops.

        Raises ConnectionError if the client goes away.
        """
        if self.is_closed:
            return False
        started_s = time.perf_counter()
        is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(told.wait())
        waiting.add_done_callback(lambda _task: None if is_over.done() else is_over.set_result(None))
        try:
            with cast("CancelsWhenLost", request.protocol).cancelling_when_lost(is_over):
                await asyncio.wait([is_over], timeout=wait_s)
            if is_over.cancelled():
                raise ConnectionError("the client went away while it waited")
        finally:
            waiting.cancel()
            request[WAITED] = request.get(WAITED, 0.0) + time.perf_counter() - started_s
        return told.is_set() and not self.is_closed

    async def aclose(self, _app: web.Application | None = None) -> None:
        """Release every waiting request; those that come later do not wait."""
        self.is_closed = True
        self._tell(list(self._waiting))
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.wait([self._poller])

    async def run_once(self) -> None:
        """Tell the requests of accounts with new events. At first all: they may have read the log before this did."""
        last = await self._watch.last_position()
        if self._seen is None:
            self._tell(list(self._waiting))
        elif last > self._seen:
            self._tell(await self._watch.with_events(list(self._waiting), after=self._seen))
        self._seen = last

    def _tell(self, account_ids: Sequence[str]) -> None:
        for account_id in account_ids:
            for told in self._waiting.get(account_id, ()):
                told.set()
