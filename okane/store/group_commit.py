"""Methods whose concurrent calls share a round trip to Postgres (group commit), each on a connection of its own."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar

from okane.errors import StoreBusy, StoreUnavailable
from okane.store.session import Session
from streams import Coalescer
from streams.failpoints import failpoint

MAX_BATCH = 256

BETWEEN_SINGLES = failpoint("store.between_singles", "half of a batch is written, row by row", raises=StoreUnavailable)

T = TypeVar("T")
R = TypeVar("R")


def is_away(error: Exception) -> bool:
    """Return True if Postgres does not answer: what failed for all of a batch fails for each by itself, too."""
    return isinstance(error, StoreUnavailable) and not isinstance(error, StoreBusy)


class GroupCommit:
    """The connections of one store, and its batched methods. Each call returns its own result, after the commit."""

    def __init__(
        self,
        url: str,
        *,
        timeout: timedelta,
        on_batch: Callable[[str, int], None] | None,
        on_round_trip: Callable[[str, float], None] | None,
    ) -> None:
        self._url = url
        self._timeout = timeout
        self._on_batch = on_batch or (lambda _what, _size: None)
        self._on_round_trip = on_round_trip or (lambda _what, _seconds: None)
        self._sessions: list[Session] = []
        self._endings: list[Callable[[], Awaitable[None]]] = []

    async def aclose(self) -> None:
        """Close every connection. Statements in flight fail with StoreUnavailable."""
        for end in self._endings:
            await end()
        for session in self._sessions:
            await session.aclose()

    def session(self, name: str, *, index_only: bool = False) -> Session:
        """Return a new connection, which is closed with the others."""
        session = Session(self._url, name=name, timeout=self._timeout, index_only=index_only)
        self._sessions.append(session)
        return session

    def batched(
        self, what: str, run: Callable[[Session, Sequence[T]], Awaitable[Sequence[R | BaseException]]]
    ) -> Coalescer[T, R]:
        """Return a method whose concurrent calls run as one statement on a connection of its own."""
        session = self.session(what, index_only=True)

        async def flush(items: Sequence[T]) -> Sequence[R | BaseException]:
            started_s = time.perf_counter()
            try:
                answers = await run(session, items)
            except Exception as error:
                if is_away(error) or len(items) == 1:
                    raise
            else:
                self._on_round_trip(what, time.perf_counter() - started_s)
                return answers
            # One bad value or locked row fails its whole batch. One by one, only that item fails.
            return [await one(item) for item in items]

        async def one(item: T) -> R | BaseException:
            try:
                [answer] = await run(session, [item])
                if BETWEEN_SINGLES.armed:
                    await BETWEEN_SINGLES.hit()
            except Exception as error:
                return error
            return answer

        coalescer: Coalescer[T, R] = Coalescer(flush, max_batch=MAX_BATCH, on_batch=partial(self._on_batch, what))
        self._endings.append(coalescer.aclose)
        return coalescer
