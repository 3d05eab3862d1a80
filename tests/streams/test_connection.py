from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Connection
from redis.connection import HiredisRespSerializer

from streams import connect

URLS = ("redis://127.0.0.1", "rediss://127.0.0.1", "unix:///tmp/redis.sock")


@pytest.mark.parametrize("url", URLS)
def test_commands_are_packed_by_hiredis_to_the_same_bytes(url: str) -> None:
    pool: Any = connect(url).connection_pool
    ours = pool.make_connection()
    theirs = Connection()
    assert isinstance(ours.pack_command.__self__, HiredisRespSerializer)
    for command in (
        ("EVALSHA", "0" * 40, 1, "{s}:lane", b"\x00\xff", -1, "Grüße", ""),
        ("XGROUP CREATE", "key", "group", "0", "MKSTREAM"),
        ("XADD", "key", "*", "b", b"x" * 100_000),
    ):
        assert b"".join(ours.pack_command(*command)) == b"".join(theirs.pack_command(*command))
