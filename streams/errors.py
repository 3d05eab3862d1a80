"""What the library raises. Redis's own exceptions never leave `streams`."""

from __future__ import annotations

from collections.abc import Sequence


class StreamError(Exception):
    """Base of all errors of this library."""


class StreamUnavailable(StreamError):
    """The server cannot be used now: away, loading, read-only or full, or it refuses (see the subclasses). The command may
    have been executed or not; later it may work."""


class StreamRefused(StreamUnavailable):
    """The server answers, with an error that time alone may not mend: a slot that another node owns, a key of the wrong
    type, a command that it does not have."""


class StreamForbidden(StreamRefused):
    """The server does not let this client in, or not do what it asks: wrong credentials, a missing right, a certificate that
    does not verify. The text is the server's, which names the user and the command, and never the password."""


class CommandRejected(StreamRefused):
    """The server finds fault with the command itself, or its answer cannot be read: most likely a bug here. Like every
    refusal it counts as an outage, but what only one command suffers from must not be tried for ever."""


class StreamFull(StreamError):
    """A lane is at the producer's `max_length`. `published` has an entry id, or None where refused, in order."""

    def __init__(self, message: str, *, published: Sequence[str | None] = (None,)) -> None:
        super().__init__(message)
        self.published = tuple(published)


class GroupLost(StreamError):
    """The consumer group or its stream vanished (flush, failover). The consumer creates it again by itself."""


class UnsafeServer(StreamError):
    """The server's configuration would lose messages; the text says which setting, and what it should be."""
