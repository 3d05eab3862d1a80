"""A set of records in eight bytes each: a million of them are 8 MB, where a set of Python's has over 100."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from uuid import UUID

_CHUNK = 65_536


class SeenRecords:
    """Pairs of our id and the provider's name. Two pairs count as one by a chance in 10^12, at ten million of them."""

    def __init__(self) -> None:
        self._sorted: list[array[int]] = []
        self._fresh: set[int] = set()

    def add(self, id_: UUID, ref: str) -> None:
        """Add a pair."""
        self._fresh.add(_number(id_, ref))
        if len(self._fresh) >= _CHUNK:
            self._sorted.append(array("Q", sorted(self._fresh)))
            self._fresh = set()

    def has(self, id_: UUID, ref: str | None) -> bool:
        """Return whether the pair was added."""
        if ref is None:
            return False
        wanted = _number(id_, ref)
        if wanted in self._fresh:
            return True
        return any(
            (place := bisect_left(chunk, wanted)) < len(chunk) and chunk[place] == wanted for chunk in self._sorted
        )


def _number(id_: UUID, ref: str) -> int:
    return int.from_bytes(hashlib.blake2b(id_.bytes + ref.encode(), digest_size=8).digest())
