"""The errors of the library. redis-py's exceptions never leave `streams`."""

from __future__ import annotations

from collections.abc import Sequence


class StreamError(Exception):
    """Base of all errors of this library."""


class StreamUnavailable(StreamError):
    """The server cannot be used now: it is away, loading, read-only or full, or it refuses (see the subclasses). The
    command may have been executed. It may work later."""


class StreamRefused(StreamUnavailable):
    """The server answers with an error that may not end by itself: a slot of another node, a key of the wrong type, a command
    that it does not have."""


class StreamForbidden(StreamRefused):
    """The server refuses the login or the command: wrong credentials, a missing right, a certificate that does not
    verify. The text is the server's. It names the user and the command, and never the password."""


class CommandRejected(StreamRefused):
    """The server rejects the command itself, or its reply cannot be read: most likely a bug here. It counts as an outage like
    every refusal, but is not retried for ever, since it may concern one command alone."""


class StreamFull(StreamError):
    """A lane is at the producer's `max_length`. `published` has, in order, an entry id for each message or None if
    refused."""

    def __init__(self, message: str, *, published: Sequence[str | None] = (None,)) -> None:
        super().__init__(message)
        self.published = tuple(published)


class GroupLost(StreamError):
    """The consumer group or its stream vanished (flush, failover). The consumer creates it again."""


class UnsafeServer(StreamError):
    """The server's configuration would lose messages. The text names the setting and its right value."""
