"""A few connections for the reads of all accounts, shared fairly between the accounts.

Guarantee: an account waits for its own reads only. It uses all connections but one at a time, so that another account's read
finds one free or gets the next. Up to `max_waiting` of its reads wait; any further read is refused at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from typing import Generic, Protocol, TypeVar

from okane.errors import AccountBusy

MAX_WAITING = 64  # reads of one account in one process, beside those that run


class Closeable(Protocol):
    """A connection, or a store with one."""

    async def aclose(self) -> None:
        """Close it. What is in flight fails with StoreUnavailable."""
        ...


S = TypeVar("S", bound=Closeable)


class FairSessions(Generic[S]):
    """Sessions that accounts borrow in turn."""

    def __init__(self, sessions: Sequence[S], *, max_waiting: int = MAX_WAITING) -> None:
        self._sessions = sessions
        self._free = [*sessions]
        self._share = max(1, len(sessions) - 1)
        self._max_waiting = max_waiting
        self._running: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[S]]] = {}  # by account, in the order of their turns

    async def aclose(self) -> None:
        """Close every connection. What is in flight fails with StoreUnavailable."""
        for session in self._sessions:
            await session.aclose()

    @contextlib.asynccontextmanager
    async def lend(self, account_id: str) -> AsyncIterator[S]:
        """Lend a session for one read of an account, inside the block. Waits for its turn; raises AccountBusy."""
        session = await self._take(account_id)
        try:
            yield session
        finally:
            self._give_back(account_id, session)

    async def _take(self, account_id: str) -> S:
        queue = self._waiting.setdefault(account_id, deque())
        if len(queue) >= self._max_waiting:
            raise AccountBusy(f"{self._max_waiting} reads of this account wait already")
        turn: asyncio.Future[S] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        self._grant()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._withdraw(account_id, turn)
            else:  # it was granted in the same moment
                self._give_back(account_id, turn.result())
            raise

    def _withdraw(self, account_id: str, turn: asyncio.Future[S]) -> None:
        queue = self._waiting.get(account_id)
        if queue is None or turn not in queue:
            return  # a connection became free before this task ran again: `_grant` has skipped the turn
        queue.remove(turn)
        if not queue:
            del self._waiting[account_id]

    def _give_back(self, account_id: str, session: S) -> None:
        self._running[account_id] -= 1
        if not self._running[account_id]:
            del self._running[account_id]
        self._free.append(session)
        self._grant()

    def _grant(self) -> None:
        """Lend the free sessions to the accounts whose turn it is."""
        while self._free:
            account_id = next((one for one in self._waiting if self._running[one] < self._share), None)
            if account_id is None:
                return
            queue = self._waiting.pop(account_id)
            turn = queue.popleft()
            if queue:
                self._waiting[account_id] = queue  # its next turn comes after those of all other accounts
            if not turn.cancelled():
                self._running[account_id] += 1
                turn.set_result(self._free.pop())
