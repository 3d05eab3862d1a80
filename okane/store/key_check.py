"""The check of an API key against its row, and the times of its last use. For every server that takes keys."""

from __future__ import annotations

import asyncio

from okane import api_key
from okane.api_key import Mode
from okane.errors import StoreUnavailable
from okane.pausing import pause
from okane.store.api_keys import ApiKeyStore, StoredKey

CACHE_S = 5.0  # how long the answer about a key is used before Postgres is read again
TOUCH_INTERVAL_S = 10.0  # between two writes of `last_used_at`; the store writes a key once a minute at most
UNKNOWN = "there is no such API key"


def reason_to_refuse(secret: str, key: StoredKey | None, mode: Mode) -> str | None:
    """Return the reason to refuse this secret, or None."""
    # One answer for an unknown name and for a wrong secret, so that it does not tell which names exist.
    if key is None or not api_key.matches(secret, key.secret_hash):
        return UNKNOWN
    return reason_it_ended(key, mode)


def reason_it_ended(key: StoredKey, mode: Mode) -> str | None:
    """Return the reason why a key is not valid in a system of this mode, or None."""
    if key.revoked:
        return "this API key was revoked"
    if key.left_s is not None and key.left_s <= 0:
        return "this API key has expired"
    return None if key.mode is mode else f"this is a {key.mode} key, and a {mode} system"


class KeyUse:
    """The keys that were used, until the times of their last use are written."""

    def __init__(self, store: ApiKeyStore) -> None:
        self._store = store
        self._used: set[str] = set()
        self.add = self._used.add  # of a prefix; for every request, hence not one call more than it takes

    async def write(self) -> int:
        """Write `last_used_at` of the keys used since the last time; return how many rows changed.

        While Postgres is away the keys stay queued.
        """
        used = frozenset(self._used)
        self._used.clear()
        try:
            return await self._store.touch(used) if used else 0
        except StoreUnavailable:
            self._used.update(used)
            return 0


async def pause_between_writes(stop: asyncio.Event) -> None:
    """Return after the interval of the writes, or once `stop` is set."""
    await pause(TOUCH_INTERVAL_S, stop)
