"""What the library raises. Redis's own exceptions never leave `streams`."""

from __future__ import annotations

from collections.abc import Sequence


class StreamError(Exception):
    """The server refused what we asked (rights, wrong type, bad configuration): asking again will not help."""


class StreamUnavailable(StreamError):
    """The server is away, loading, read-only or full. What was asked may have been done or not; later it may work."""


class StreamFull(StreamError):
    """A lane is at the producer's `max_length`. `published` has an entry id, or None where refused, in order."""

    def __init__(self, message: str, *, published: Sequence[str | None] = (None,)) -> None:
        super().__init__(message)
        self.published = tuple(published)


class GroupLost(StreamError):
    """The consumer group or its stream vanished (flush, failover). The consumer creates it again by itself."""


class UnsafeServer(StreamError):
    """The server's configuration would lose messages; the text says which setting, and what it should be."""
