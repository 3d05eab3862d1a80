"""The keys behind the sessions, by their names, as Postgres has them.

Guarantee: a key that was revoked, has expired or lost a scope is noticed within `CACHE_S`: by a page that asks every two
seconds within five. While Postgres is away nothing can tell: a key that was valid a short while before may still look at what
needs no Postgres, and change nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from okane.api_key import Mode, Scope
from okane.console.outages import Outage
from okane.errors import StoreBusy, StoreUnavailable
from okane.store import ApiKeyStore, StoredKey
from okane.store.key_check import KeyUse, pause_between_writes, reason_it_ended, reason_to_refuse

CACHE_S = 2.5  # half of what an API has: a page that is open learns of it by its next poll only
UNCHECKED_S = 900.0  # for so long after its last check a key may look at the console while Postgres is away
MAX_CACHED = 10_000


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """The account and the scopes of a valid key. `checked` is False while Postgres cannot confirm them."""

    key: str
    account_id: str
    scopes: frozenset[Scope]
    checked: bool = True


@dataclass(frozen=True, slots=True)
class _Answer:
    holder: KeyHolder | None
    at_s: float
    until_s: float


class SessionKeys:
    """The keys of the sessions of this process."""

    def __init__(
        self,
        store: ApiKeyStore,
        *,
        mode: Mode,
        cache_s: float = CACHE_S,
        now_s: Callable[[], float] = time.monotonic,
        outage: Outage | None = None,
    ) -> None:
        self._store = store
        self._mode = mode
        self._cache_s = cache_s
        self._now_s = now_s
        self._answers: dict[str, _Answer] = {}
        self._outage = outage or Outage(lambda: datetime.now(UTC), now_s)
        self._use = KeyUse(store)

    async def holder(self, prefix: str) -> KeyHolder | None:
        """Return the holder of the key with this name, or None if it is not valid. Raises StoreUnavailable."""
        now_s = self._now_s()  # before the query: a cached answer must not be older than it claims
        known = self._answers.get(prefix)
        if known is None or now_s >= known.until_s:
            may_look = known is not None and known.holder is not None and now_s < known.at_s + UNCHECKED_S
            if may_look and self._outage.is_silent():
                return _unchecked(known)
            try:
                found = await self._store.find(prefix)
            except StoreUnavailable as error:
                if not isinstance(error, StoreBusy):
                    self._outage.notice(self._now_s() - now_s)
                if not may_look:
                    raise
                return _unchecked(known)
            self._outage.end()
            known = self._remember(prefix, found, now_s)
        if known.holder is not None:
            self._use.add(prefix)
        return known.holder

    async def log_in(self, secret: str, prefix: str) -> KeyHolder | str:
        """Return the holder of a key, given its secret; the reason if it is refused. Raises StoreUnavailable."""
        now_s = self._now_s()
        found = await self._store.find(prefix)
        refused = reason_to_refuse(secret, found, self._mode)
        if refused is not None:
            return refused
        holder = self._remember(prefix, found, now_s).holder
        assert holder is not None
        self._use.add(prefix)
        return holder

    async def run(self, stop: asyncio.Event) -> None:
        """Write when keys were used, until `stop` is set, and once more after that."""
        while not stop.is_set():
            await pause_between_writes(stop)
            await self.run_once()
        await self.run_once()

    async def run_once(self) -> int:
        """Write `last_used_at` of the keys used since the last run; return how many rows changed."""
        return await self._use.write()

    def _remember(self, prefix: str, found: StoredKey | None, now_s: float) -> _Answer:
        holder = None
        left_s = self._cache_s
        if found is not None and reason_it_ended(found, self._mode) is None:
            holder = KeyHolder(prefix, found.account_id, found.scopes)
            left_s = self._cache_s if found.left_s is None else min(self._cache_s, found.left_s)
        self._answers.pop(prefix, None)
        if len(self._answers) >= MAX_CACHED:
            del self._answers[next(iter(self._answers))]
        answer = self._answers[prefix] = _Answer(holder, now_s, now_s + left_s)
        return answer


def _unchecked(known: _Answer | None) -> KeyHolder | None:
    return None if known is None or known.holder is None else replace(known.holder, checked=False)
