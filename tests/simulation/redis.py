"""A Redis server in memory, as far as `streams` uses one: streams with groups, sorted sets, and our Lua scripts, run by Lua.

Bytes in, bytes out; errors carry the real server's words. It knows no network: a command is executed at once, at the time
the given clock shows. What happens to entries is told to `watch`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from tests.simulation import lua
from tests.simulation.lua import ReplyError
from tests.simulation.redis_streams import Entries, Reply, StreamCommands, Watch

_OOM = "OOM command not allowed when used memory > 'maxmemory'."


class _Blocked:
    """The result of a blocking read without entries."""


BLOCKED: Final = _Blocked()


class _Command(NamedTuple):
    run: Callable[[Server, Sequence[bytes]], Reply]
    writes: bool
    grows: bool


class Refusal(NamedTuple):
    """An error reply to some commands, or to all."""

    error: str
    commands: frozenset[bytes] | None = None

    def check(self, name: bytes) -> None:
        """Raise ReplyError for a refused command."""
        if self.commands is None or name in self.commands:
            raise ReplyError(self.error)


class Server(StreamCommands):
    """The server. `full`: at maxmemory with noeviction. `refusal`: the commands that it refuses."""

    def __init__(self, now_s: Callable[[], float], watch: Watch | None = None) -> None:
        self._now_s = now_s
        self.watch = watch or Watch()
        self.keys: dict[bytes, Entries | dict[bytes, float]] = {}
        self.scripts: dict[str, lua.Function] = {}
        self.full = False
        self.refusal: Refusal | None = None
        self.signalled: dict[bytes, None] = {}  # keys with new entries since the last check
        self._script: _Running | None = None

    @property
    def now_ms(self) -> int:
        return int((self._script.time_s if self._script else self._now_s()) * 1000)

    def execute(self, arguments: Sequence[bytes], *, may_block: bool = False) -> Reply:
        """Return the reply to one command of a client. Raises ReplyError."""
        name = arguments[0].upper()
        if self.refusal is not None:
            self.refusal.check(name)
        if name == b"EVALSHA":
            return self._evaluate(arguments[1].decode(), arguments[2:])
        if name == b"EVAL":
            return self._evaluate(self._load(arguments[1]), arguments[2:])
        reply = self._dispatch(name, arguments)
        if may_block and reply is None:
            return BLOCKED
        return reply

    def flush(self) -> None:
        """Delete everything, scripts and groups included."""
        self.keys.clear()
        self.scripts.clear()

    def snapshot(self) -> Snapshot:
        """Return the state that a replica has now."""
        return Snapshot(copy.deepcopy(self.keys))

    def restore(self, snapshot: Snapshot) -> None:
        """Fail over to a replica: changes after its last update are lost."""
        self.keys = copy.deepcopy(snapshot.keys)
        self.scripts.clear()

    # Scripts

    def _load(self, text: bytes) -> str:
        digest = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        self.scripts[digest] = lua.compiled(text)
        return digest

    def _evaluate(self, digest: str, arguments: Sequence[bytes]) -> Reply:
        function = self.scripts.get(digest)
        if function is None:
            raise ReplyError("NOSCRIPT No matching script. Please use EVAL.")
        count = int(arguments[0])
        self._script = _Running(time_s=self._now_s(), full=self.full)
        try:
            return lua.run(function, arguments[1 : 1 + count], arguments[1 + count :], self._call)
        except ReplyError as error:
            raise ReplyError(f"{error} script: {digest}, on @user_script:1.") from None
        finally:
            self._script = None

    def _call(self, arguments: Sequence[bytes]) -> Reply:
        """Run a command of a script. On a full server it may add once the script has written."""
        return self._dispatch(arguments[0].upper(), arguments)

    def _dispatch(self, name: bytes, arguments: Sequence[bytes]) -> Reply:
        command = _COMMANDS.get(name)
        if command is None:
            raise ReplyError(f"ERR unknown command '{name.decode()}'")
        if self.refusal is not None:
            self.refusal.check(name)
        writes, grows = command.writes, command.grows
        if name == b"XGROUP":
            grows = arguments[1].upper() == b"CREATE"
        script = self._script
        if script is None:
            if grows and self.full:
                raise ReplyError(_OOM)
        else:
            if grows and script.full and not script.has_written:
                raise ReplyError(_OOM)
            script.has_written = script.has_written or writes
        return command.run(self, arguments)

    # Sorted sets

    def _scores(self, key: bytes) -> dict[bytes, float]:
        value = self.keys.get(key, {})
        if isinstance(value, Entries):
            raise ReplyError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def zadd(self, arguments: Sequence[bytes]) -> int:
        scores = self._scores(arguments[1])
        before = len(scores)
        for score, member in zip(arguments[2::2], arguments[3::2], strict=True):
            scores[member] = float(score)
        self.keys[arguments[1]] = scores
        return len(scores) - before

    def zrem(self, arguments: Sequence[bytes]) -> int:
        scores = self._scores(arguments[1])
        removed = sum(scores.pop(member, None) is not None for member in arguments[2:])
        if not scores:
            self.keys.pop(arguments[1], None)
        return removed

    def zcard(self, arguments: Sequence[bytes]) -> int:
        return len(self._scores(arguments[1]))

    def zrange(self, arguments: Sequence[bytes]) -> list[bytes]:
        last = int(arguments[3])
        ranked = _ranked(self._scores(arguments[1]))[int(arguments[2]) : last + 1 if last >= 0 else None]
        if len(arguments) < 5:
            return [member for _, member in ranked]
        return [part for score, member in ranked for part in (member, b"%.17g" % score)]

    def zrangebyscore(self, arguments: Sequence[bytes]) -> list[bytes]:
        lowest, highest = float(arguments[2]), float(arguments[3])
        found = [member for score, member in _ranked(self._scores(arguments[1])) if lowest <= score <= highest]
        if len(arguments) > 4:
            return found[int(arguments[5]) :][: int(arguments[6])]
        return found

    # The server itself

    def time(self, _arguments: Sequence[bytes]) -> list[bytes]:
        now_us = int((self._script.time_s if self._script else self._now_s()) * 1_000_000)
        return [b"%d" % (now_us // 1_000_000), b"%d" % (now_us % 1_000_000)]

    def info(self, _arguments: Sequence[bytes]) -> bytes:
        return (
            b"# Server\r\nredis_version:7.2.4\r\nrole:master\r\nmaxmemory:100000000\r\nused_memory:1000000\r\n"
            b"maxmemory_policy:noeviction\r\naof_enabled:1\r\n"
        )


@dataclass(slots=True)
class _Running:
    """The running script, with its fixed time."""

    time_s: float
    full: bool
    has_written: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A copy of all keys."""

    keys: dict[bytes, Entries | dict[bytes, float]]


_COMMANDS: Final[dict[bytes, _Command]] = {
    b"XADD": _Command(Server.xadd, writes=True, grows=True),
    b"XLEN": _Command(Server.xlen, writes=False, grows=False),
    b"XRANGE": _Command(Server.xrange, writes=False, grows=False),
    b"XDEL": _Command(Server.xdel, writes=True, grows=False),
    b"XACK": _Command(Server.xack, writes=True, grows=False),
    b"XGROUP": _Command(Server.xgroup, writes=True, grows=False),
    b"XREADGROUP": _Command(Server.xreadgroup, writes=True, grows=False),
    b"XPENDING": _Command(Server.xpending, writes=False, grows=False),
    b"XCLAIM": _Command(Server.xclaim, writes=True, grows=False),
    b"XAUTOCLAIM": _Command(Server.xautoclaim, writes=True, grows=False),
    b"XINFO": _Command(Server.xinfo, writes=False, grows=False),
    b"ZADD": _Command(Server.zadd, writes=True, grows=True),
    b"ZREM": _Command(Server.zrem, writes=True, grows=False),
    b"ZCARD": _Command(Server.zcard, writes=False, grows=False),
    b"ZRANGE": _Command(Server.zrange, writes=False, grows=False),
    b"ZRANGEBYSCORE": _Command(Server.zrangebyscore, writes=False, grows=False),
    b"TIME": _Command(Server.time, writes=False, grows=False),
    b"INFO": _Command(Server.info, writes=False, grows=False),
}


def _ranked(scores: dict[bytes, float]) -> list[tuple[float, bytes]]:
    return sorted((score, member) for member, score in scores.items())
