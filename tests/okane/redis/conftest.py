"""The fixtures of the tests of `streams`, for okane's data in the same Redis."""

from tests.streams.conftest import client, connected, own_server, stream

__all__ = ["client", "connected", "own_server", "stream"]
