"""The fixtures of the library's tests, for what okane keeps in the same Redis."""

from tests.streams.conftest import client, connected, own_server, stream

__all__ = ["client", "connected", "own_server", "stream"]
