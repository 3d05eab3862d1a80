"""The rights of a user: the commands and keys that a process needs, and those that its user lacks.

Guarantee: the check changes nothing. The server checks the user's rights first, and then refuses each command or finds
nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from streams.connection import replies, translated, translating
from streams.errors import StreamForbidden
from streams.keys import Stream
from streams.pool import Command

_NEVER_MS: Final = 1 << 60  # no entry is idle for that long
_END: Final = "18446744073709551614-0"  # behind the last of our own pending entries
_NONE: Final = "rights:none"  # a consumer and a member that do not exist


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingRights:
    """The missing commands, the keys out of reach, and the server's words. `grant` is the ACL rule that corrects it."""

    user: str
    commands: Sequence[str]
    keys: str | None
    error: str

    @property
    def grant(self) -> str:
        keys = [f"~{self.keys}"] if self.keys else []
        return " ".join([f"ACL SETUSER {self.user}", *keys, *(f"+{command}" for command in self.commands)])

    @property
    def lacks(self) -> str:
        keys = [f"the keys {self.keys}"] if self.keys else []
        return ", ".join([*(command.upper() for command in self.commands), *keys])

    def __str__(self) -> str:
        return f"the Redis user {self.user!r} has no right to {self.lacks} ({self.error}). Grant it: {self.grant}"


def user_of(client: Redis) -> str:
    """Return the name under which the client logs in."""
    return str(client.connection_pool.connection_kwargs.get("username") or "default")


@translating
async def missing_rights(
    client: Redis, stream: Stream, *, group: str, consumes: bool = True, also: Sequence[Command] = ()
) -> MissingRights | None:
    """Return the rights that the client's user lacks, None if it has them all: for a producer and its dead letters, with
    `consumes` for a consumer and its helpers, and for the commands in `also`, which must be harmless. A command that the
    server does not have counts as missing. Raises `StreamUnavailable` if there is no answer."""
    probes = [*_producer_probes(stream, group)]
    if consumes:
        probes += _consumer_probes(stream, group)
    probes += also
    refused: dict[str, None] = {}
    keys, error = False, ""
    for probe, reply in zip(probes, await replies(client, probes), strict=True):
        if not isinstance(reply, ResponseError):
            continue
        text = str(reply)
        if isinstance(translated(reply), StreamForbidden):
            keys |= " key" in text
            if " key" not in text:
                refused.setdefault(_name(probe))
            error = error or text
        elif "unknown command" in text.lower():
            refused.setdefault(_name(probe))
            error = error or text.partition(",")[0]
    if not refused and not keys:
        return None
    return MissingRights(
        user=user_of(client), commands=tuple(refused), keys=stream.key("*") if keys else None, error=error
    )


def _producer_probes(stream: Stream, group: str) -> Iterator[Command]:
    yield ("TIME",)
    yield ("EVAL", "return 0", 0)
    yield ("EVALSHA", "0" * 40, 0)
    for key in (*stream.lane_keys, stream.dead_key):
        yield ("XADD", key, "0-0", "b", "")  # an id that no entry may have
        yield ("XLEN", key)
    for key in stream.lane_keys:
        yield ("XINFO", "STREAM", key)
        yield ("XINFO", "GROUPS", key)
        yield ("XINFO", "CONSUMERS", key, group)
    yield ("XDEL", stream.dead_key, "0-1")
    yield ("XREVRANGE", stream.dead_key, "+", "-", "COUNT", 1)
    yield ("ZCARD", stream.delayed_key)
    yield ("ZRANGE", stream.delayed_key, 0, 0)


def _consumer_probes(stream: Stream, group: str) -> Iterator[Command]:
    for key in stream.lane_keys:
        yield ("XGROUP", "CREATE", key, group, "0")  # as at its start; without the stream it does nothing
        yield ("XREADGROUP", "GROUP", group, _NONE, "STREAMS", key, _END)
        yield ("XACK", key, group, "0-1")
        yield ("XDEL", key, "0-1")
        yield ("XAUTOCLAIM", key, group, _NONE, _NEVER_MS, "0-0", "COUNT", 1, "JUSTID")
        yield ("XCLAIM", key, group, _NONE, _NEVER_MS, "0-1", "JUSTID")
        yield ("XPENDING", key, group)
        yield ("XGROUP", "SETID", key, _NONE, "0")  # no group has this name
        yield ("XGROUP", "DELCONSUMER", key, group, _NONE)  # the consumer that the probe XREADGROUP has created
    yield ("ZADD", stream.delayed_key, "XX", 0, _NONE)
    yield ("ZREM", stream.delayed_key, _NONE)
    yield ("ZRANGEBYSCORE", stream.delayed_key, "-inf", "(0", "LIMIT", 0, 1)


def _name(command: Command) -> str:
    """Return the command's name in an ACL rule."""
    first, second = str(command[0]).lower(), str(command[1]).lower() if len(command) > 1 else ""
    return f"{first}|{second}" if first in ("xinfo", "xgroup") else first
