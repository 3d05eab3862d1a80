"""Long polling: requests that wait for a payment to come to rest, or to need its customer or a capture (`Prefer: wait=N`, RFC
7240).

Guarantee: one query for all waiting requests runs a few times a second, on a connection of its own. A client that goes away
leaves the query.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol, cast
from uuid import UUID

import structlog
from aiohttp import web

from okane.errors import StoreUnavailable
from okane.payment import Status
from okane.store import PaymentWatch

log = structlog.get_logger("okane.api")

LONGEST_WAIT_S = 30
POLL_INTERVAL_S = 0.1
MAX_BUSY = 0.2  # the part of the time that polling may take
IDS_PER_QUERY = 1000
WAITED = web.RequestKey("waited_s", float)

_WAIT = re.compile(r'\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?:;.*)?', re.IGNORECASE)


def preferred_wait_s(headers: Mapping[str, str]) -> int | None:
    """Return how many whole seconds a request waits for its payment, or None. The first preference counts."""
    if "Prefer" not in headers:
        return None
    for preference in headers["Prefer"].split(","):
        if match := _WAIT.fullmatch(preference):
            return min(int(match[1]), LONGEST_WAIT_S)
    return None


class CancelsWhenLost(Protocol):
    """The part of a connection that a waiting request needs."""

    def cancelling_when_lost(self, future: asyncio.Future[None]) -> AbstractContextManager[None]:
        """Cancel `future` if the client goes away inside the block."""
        ...


async def poll_while(is_waited_for: Callable[[], bool], look: Callable[[], Awaitable[None]]) -> None:
    """Look again and again while requests wait; spend `MAX_BUSY` of the time on it at most."""
    took_s = 0.0
    while is_waited_for():
        await asyncio.sleep(max(POLL_INTERVAL_S, took_s / MAX_BUSY))
        started_s = time.perf_counter()
        try:
            await look()
        except StoreUnavailable as error:  # the session has logged it
            log.debug("waiting_interrupted", reason=str(error))
        except Exception:
            log.exception("waiting_failed")  # the requests wait to the end of their time, and read for themselves then
        took_s = time.perf_counter() - started_s


class LongPolling:
    """The requests of this process that wait."""

    def __init__(self, *, watch: PaymentWatch) -> None:
        self._watch = watch
        # The futures of each payment, each with the status that its client knows, which alone does not end the wait.
        self._waiters: dict[UUID, dict[asyncio.Future[None], Status]] = {}
        self._poller: asyncio.Task[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        return sum(len(waiters) for waiters in self._waiters.values())

    async def until_at_rest(self, request: web.Request, payment_id: UUID, *, wait_s: float, known: Status) -> None:
        """Return when the payment is at rest, after `wait_s` at the latest, and at once if the server stops.

        Return also when its customer has to act, or its money is held, unless that is the `known` status. Raises
        ConnectionError if the client goes away.
        """
        if self._closed:
            return
        connection = cast("CancelsWhenLost", request.protocol)
        started_s = time.perf_counter()
        with self._waiter(payment_id, known) as at_rest, connection.cancelling_when_lost(at_rest):
            await asyncio.wait([at_rest], timeout=wait_s)
            if at_rest.cancelled():
                raise ConnectionError("the client went away while it waited")
        request[WAITED] = time.perf_counter() - started_s

    async def aclose(self, _app: web.Application | None = None) -> None:
        """Release every waiting request; those that come later do not wait."""
        self._closed = True
        for waiters in self._waiters.values():
            _release(waiters)
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.wait([self._poller])

    @contextlib.contextmanager
    def _waiter(self, payment_id: UUID, known: Status) -> Iterator[asyncio.Future[None]]:
        at_rest: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(payment_id, {})[at_rest] = known
        if self._poller is None or self._poller.done():
            self._poller = asyncio.get_running_loop().create_task(
                poll_while(lambda: bool(self._waiters), self._poll_once)
            )
        try:
            yield at_rest
        finally:
            waiters = self._waiters[payment_id]
            del waiters[at_rest]
            if not waiters:
                del self._waiters[payment_id]

    async def _poll_once(self) -> None:
        ids = list(self._waiters)
        for start in range(0, len(ids), IDS_PER_QUERY):
            for payment_id, status in await self._watch.find_waited_for(ids[start : start + IDS_PER_QUERY]):
                _release(self._waiters.get(payment_id, {}), status)


def _release(waiters: Mapping[asyncio.Future[None], Status], status: Status | None = None) -> None:
    """End the wait of those that do not know this status yet; None: of all."""
    for waiter, known in waiters.items():
        if not waiter.done() and status is not known:
            waiter.set_result(None)
