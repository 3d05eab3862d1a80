"""Connections to one server, and commands on them: one round trip for many, packed by hiredis, none of them repeated."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from redis.asyncio import ConnectionPool
from redis.connection import HiredisRespSerializer
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.utils import HIREDIS_AVAILABLE

if HIREDIS_AVAILABLE:
    import hiredis

Command = Sequence[str | bytes | int]

# Another node or another login would execute it: the next try needs a new connection.
_ELSEWHERE = re.compile(r"READONLY|MOVED|ASK|REDIRECT|MASTERDOWN|CLUSTERDOWN|NOAUTH")
_CODE = re.compile(r"-?([A-Z][A-Z0-9_]{2,})(?= |$)")
_HOST_AND_PORT = re.compile(r"connecting to [^/\s]+:\d+")
# In a script an error has its code in front, or in Redis 6.2 in the middle of the text; redis-py quotes those of a pipeline.
_CODE_INSIDE = re.compile(
    r"(?:@user_script:.*? -|^Command # .* of pipeline caused error: \(?['\"]?)([A-Z][A-Z0-9_]{2,})(?= |$)"
)


class Pool(ConnectionPool):
    """redis-py's connections without their expensive parts. Its asyncio connections pack commands in Python, ten times as
    slow as hiredis, and commands here have hundreds of arguments; around every command its client takes locks, starts a task
    and timers, and records metrics."""

    def make_connection(self) -> Any:
        connection: Any = super().make_connection()  # type: ignore[no-untyped-call] # redis-py has no types there
        if HIREDIS_AVAILABLE:
            connection.pack_command = HiredisRespSerializer().pack
        return connection

    async def replies(self, commands: Sequence[Command]) -> list[Any]:
        """Send the commands in one round trip; return the reply to each, which may be an error."""
        connection: Any = self.get_available_connection()  # type: ignore[no-untyped-call] # as above
        timeout_s, connection.socket_timeout = connection.socket_timeout, None  # one time-out for the whole trip
        try:
            async with asyncio.timeout(timeout_s):
                await self.ensure_connection(connection)
                parts = [part for command in commands for part in packed(connection, command)]
                await connection.send_packed_command(parts, check_health=False)
                found = [await _reply(connection) for _ in commands]
        except TimeoutError:
            await connection.disconnect(nowait=True)
            raise RedisTimeoutError(f"no answer in {timeout_s:g} s") from None
        except BaseException:  # replies may still be on their way
            await connection.disconnect(nowait=True)
            raise
        else:
            if any(isinstance(each, ResponseError) and self.leads_elsewhere(each) for each in found):
                await connection.disconnect(nowait=True)
            return found
        finally:
            connection.socket_timeout = timeout_s
            self._in_use_connections.remove(connection)
            self._available_connections.append(connection)

    def leads_elsewhere(self, error: ResponseError) -> bool:
        """Return True if the next command needs a new connection."""
        return is_elsewhere(error)


def packed(connection: Any, command: Command) -> Iterable[bytes]:
    """Pack a command, by hiredis if it is installed. redis-py would first check each argument, which doubles the time."""
    if HIREDIS_AVAILABLE:
        with suppress(TypeError):  # redis-py converts such arguments, or raises its own error
            return (hiredis.pack_command(tuple(command)),)  # type: ignore[arg-type] # its stub declares a single argument
    parts: list[bytes] = connection.pack_command(*command)
    return parts


async def _reply(connection: Any) -> Any:
    try:
        return await connection.read_response()  # with a time-out of its own it would return None for an ETIMEDOUT
    except ResponseError as error:
        return error


def code_of(text: str) -> str:
    """Return the code of an error reply, by its position: names of users, keys and hosts may look like a code."""
    found = _CODE_INSIDE.search(text) or _CODE.match(text)
    return found[1] if found else ""


def is_elsewhere(error: Exception) -> bool:
    """Return True if the error comes from a server or a login that cannot execute the command, and another one can."""
    return _ELSEWHERE.fullmatch(code_of(f"{getattr(error, 'status_code', None) or ''} {error}".strip())) is not None


def is_bad_certificate(error: BaseException) -> bool:
    """Return True if TLS is misconfigured on either side. A connection closed amid the handshake may be a restart."""
    while (cause := error.__cause__ or error.__context__) is not None:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return True
        if isinstance(cause, FileNotFoundError) and _HOST_AND_PORT.search(str(error)):
            return True  # the file of certificates is missing, not a Unix socket, which the server creates
        error = cause
    return False
