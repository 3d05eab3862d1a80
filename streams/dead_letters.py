"""Dead letters: list, replay and purge the messages that were given up. Nothing else reads or trims them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from redis.asyncio import Redis

from streams import scripts
from streams.clock import milliseconds
from streams.connection import checked_client, redis_errors
from streams.entry import DeadLetter, checked_id, is_outermost, to_dead_letter
from streams.keys import Stream

_CHUNK = 100  # letters per script call or XDEL


@dataclass(frozen=True, slots=True)
class DeadLetterPage:
    """Some dead letters, newest first. `older` and `newer` are cursors for `list`, None at the ends."""

    letters: tuple[DeadLetter, ...]
    older: str | None
    newer: str | None


class DeadLetters:
    """The dead letters of one stream. Every method raises `StreamError` when the server cannot be used, and TypeError or
    ValueError for a wrong id, before it changes anything."""

    def __init__(self, client: Redis, stream: Stream) -> None:
        self._client = checked_client(client)
        self._stream = stream
        self._key = stream.dead_key

    async def count(self) -> int:
        """Return how many dead letters there are."""
        with redis_errors():
            return int(await self._client.xlen(self._key))

    async def list(self, count: int = 50, *, before: str | None = None, after: str | None = None) -> DeadLetterPage:
        """Return a page, newest first: the newest of all, those older than `before`, or those just newer than `after`."""
        if before is not None and after is not None:
            raise ValueError("a page is before a letter or after one, not both")
        if count < 1:
            raise ValueError(f"a page has at least one letter: {count}")
        for cursor in (before, after):
            if cursor is not None:
                checked_id(cursor)
        if (before and is_outermost(before, "first")) or (after and is_outermost(after, "last")):
            return DeadLetterPage((), older=None, newer=None)
        if after is None:
            top = "+" if before is None else f"({before}"
            found = await self._range(top, "-", count + 1, newest_first=True)
            letters, more_older, more_newer = found[:count], len(found) > count, before is not None
        else:
            found = await self._range(f"({after}", "+", count + 1, newest_first=False)
            letters, more_older, more_newer = found[:count][::-1], True, len(found) > count
        return DeadLetterPage(
            tuple(letters),
            older=letters[-1].id if letters and more_older else None,
            newer=letters[0].id if letters and more_newer else None,
        )

    async def get(self, letter_id: str) -> DeadLetter | None:
        """Return one letter, or None when it is gone."""
        checked_id(letter_id)
        found = await self._range(letter_id, letter_id, 1, newest_first=False)
        return found[0] if found else None

    async def replay(self, *, ids: Sequence[str] | None = None, limit: int = 1_000) -> int:
        """Put the letters `ids`, or the oldest `limit`, back into their lanes as new messages, attempts starting again;
        return how many. Each moves in one step: it is never in both places or in none.
        """
        wanted = _checked(ids) if ids is not None else await self._oldest(limit)
        replayed = 0
        for start in range(0, min(len(wanted), limit), _CHUNK):
            part = wanted[start : min(start + _CHUNK, limit)]
            replayed += await scripts.replay(self._client, self._stream, ids=part)
        return replayed

    async def purge(
        self, *, ids: Sequence[str] | None = None, older_than: timedelta | None = None, everything: bool = False
    ) -> int:
        """Delete letters: `ids`, those `older_than` (by the server's clock) or `everything`. Return how many."""
        if sum((ids is not None, older_than is not None, everything)) != 1:
            raise ValueError("purge takes exactly one of ids, older_than, everything=True")
        wanted = _checked(ids or ())  # outside `redis_errors`: a wrong id is the caller's error
        with redis_errors():
            if everything:
                return int(await self._client.xtrim(self._key, maxlen=0, approximate=False))
            if older_than is not None:
                horizon_ms = await scripts.server_time_ms(self._client, self._key) - milliseconds(older_than)
                return int(await self._client.xtrim(self._key, minid=f"{max(horizon_ms, 0)}-0", approximate=False))
            purged = 0
            for start in range(0, len(wanted), _CHUNK):
                purged += int(await self._client.xdel(self._key, *wanted[start : start + _CHUNK]))
            return purged

    async def _oldest(self, limit: int) -> list_of[str]:
        return [letter.id for letter in await self._range("-", "+", limit, newest_first=False)]

    async def _range(self, first: str, last: str, count: int, *, newest_first: bool) -> list_of[DeadLetter]:
        with redis_errors():
            found: Any  # redis-py's types allow for every protocol and decoding at once
            if newest_first:
                found = await self._client.xrevrange(self._key, max=first, min=last, count=count)
            else:
                found = await self._client.xrange(self._key, min=first, max=last, count=count)
        return [to_dead_letter(entry_id, fields) for entry_id, fields in found or ()]


list_of = list  # the method `list` hides the builtin in the body of the class


def _checked(ids: Sequence[str]) -> list_of[str]:
    return [checked_id(each) for each in ids]
