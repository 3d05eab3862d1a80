"""One Lua script and its calls.

Promise: the server has the script when it runs (a restart forgets scripts), and redis-py's errors stay inside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from streams.connection import redis_errors, replies, translated
from streams.errors import StreamError

Argument = str | bytes | int


class Script:
    """A script that is sent by its digest, and by its text when the server does not have it."""

    def __init__(self, package: str, *path: str) -> None:
        self._text = files(package).joinpath(*path).read_text(encoding="utf-8")
        self._digest = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, client: Redis, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run the script; return its reply. Raises `StreamError`."""
        with redis_errors():
            [reply] = await replies(client, [("EVALSHA", self._digest, len(keys), *keys, *arguments)])
            if isinstance(reply, NoScriptError):  # EVAL leaves the script behind, so this happens once per restart
                [reply] = await replies(client, [("EVAL", self._text, len(keys), *keys, *arguments)])
            if isinstance(reply, RedisError):
                raise reply
            return reply

    async def call_many(self, client: Redis, keys: Sequence[str], calls: Sequence[Sequence[Argument]]) -> list[Any]:
        """Run several calls in one round trip, each a command of its own to the server; return a reply or a `StreamError`
        for each."""
        with redis_errors():
            found = await replies(client, [("EVALSHA", self._digest, len(keys), *keys, *call) for call in calls])
        for at, reply in enumerate(found):
            if isinstance(reply, RedisError):
                found[at] = await self._after_error(client, keys, calls[at], reply)
        return found

    async def _after_error(
        self, client: Redis, keys: Sequence[str], arguments: Sequence[Argument], error: RedisError
    ) -> Any:
        """Return the error, or the reply of a second call if the server had forgotten the script."""
        if not isinstance(error, NoScriptError):
            return translated(error)
        try:
            return await self(client, keys, arguments)
        except StreamError as failure:
            return failure
