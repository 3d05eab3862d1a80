"""A client of the simulated Redis, with the command methods and reply parsing of redis-py."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, cast

from redis._parsers.base import BaseParser
from redis.asyncio import Redis
from redis.commands import AsyncCoreCommands
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streams import connect, scripts
from tests.simulation.loop import Process
from tests.simulation.lua import ReplyError
from tests.simulation.network import PENDING, Exchange, Link, Network, NoAnswer, NotSent
from tests.simulation.redis import BLOCKED, Server

_callbacks: Final[Mapping[Any, Any]] = connect("redis://simulated").response_callbacks
Arguments = Sequence[bytes]


class Listener:
    """A hook for every executed request."""

    def replied(self, exchange: Exchange, what: str, arguments: Arguments, reply: object, server: Server) -> None: ...

    def repeated(self, what: str) -> None: ...


class Broker:
    """The server on the network. It keeps the clients in a blocking read, and wakes them."""

    def __init__(self, server: Server, network: Network, link: Link, listener: Listener | None = None) -> None:
        self.server = server
        self.network = network
        self.link = link
        self.listener = listener or Listener()
        self.names = _script_names()
        self._blocked: list[tuple[Exchange, Arguments]] = []

    def execute(self, exchange: Exchange, what: str, commands: Sequence[Arguments], block_s: float) -> Any:
        """Return the replies to one request; errors of single commands are replies."""
        replies = [self._reply(arguments, may_block=block_s > 0) for arguments in commands]
        if replies == [BLOCKED]:
            self._blocked.append((exchange, commands[0]))
            self.network.later(block_s, self._unblock, exchange)
            return PENDING
        self.listener.replied(exchange, what, commands[0], replies[0], self.server)
        self.serve()
        return replies

    def serve(self) -> None:
        """Send new entries to the clients that wait for them."""
        while self.server.signalled:
            self.server.signalled.clear()
            waiting, self._blocked = self._blocked, []
            for exchange, arguments in waiting:
                if not exchange.waiting and self.network.dice.random() < 0.9:
                    continue  # its connection is closed, and the server may not have noticed yet
                reply = self._reply(arguments, may_block=True)
                if reply is BLOCKED:
                    self._blocked.append((exchange, arguments))
                else:
                    exchange.answer([reply])

    def wake_all(self) -> None:
        """Answer waiting clients whose keys were replaced."""
        self.server.signalled[b""] = None
        self.serve()

    def hang_up(self) -> None:
        """End all connections with the server."""
        waiting, self._blocked = self._blocked, []
        for exchange, _ in waiting:
            exchange.answer(NoAnswer(silent=False), failed=True)

    def _reply(self, arguments: Arguments, *, may_block: bool) -> Any:
        try:
            return self.server.execute(arguments, may_block=may_block)
        except ReplyError as error:
            return BaseParser.parse_error(str(error))  # type: ignore[no-untyped-call] # no types

    def _unblock(self, exchange: Exchange) -> None:
        for at, (waiting, _) in enumerate(self._blocked):
            if waiting is exchange:
                del self._blocked[at]
                exchange.answer([None])
                return


class MemoryRedis(AsyncCoreCommands):
    """The client of one process. It repeats no command; with `resends` it has redis-py's default retries."""

    resends = False
    _event_dispatcher: Any = None

    def __init__(self, broker: Broker, *, timeout: timedelta) -> None:
        self._broker = broker
        self._timeout_s = timeout.total_seconds()
        self.connection_pool = _Pool({"socket_timeout": self._timeout_s})

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> MemoryPipeline:
        assert not transaction, "nothing here needs MULTI"
        return MemoryPipeline(self)

    async def aclose(self) -> None:
        """Do nothing."""

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        reply = (await self.send([arguments]))[0]
        if isinstance(reply, RedisError):
            raise reply
        return parsed(str(arguments[0]), reply, options)

    async def send(self, commands: Sequence[Sequence[Any]]) -> Sequence[Any]:
        """Send commands in one request; return a reply or an error for each. Raises redis-py's errors."""
        encoded = [_packed(arguments) for arguments in commands]
        what = _name(encoded, self._broker.names)
        block_s = _block_s(encoded[0])
        executions = 0

        def effect(exchange: Exchange) -> Any:
            nonlocal executions
            executions += 1
            if executions > 1:
                self._broker.listener.repeated(what)
            return self._broker.execute(exchange, what, encoded, block_s)

        try:
            return await self._attempt(what, effect, block_s)
        except RedisConnectionError:
            if not self.resends:
                raise
            return await self._attempt(what, effect, block_s)

    async def _attempt(self, what: str, effect: Callable[[Exchange], Any], block_s: float) -> Sequence[Any]:
        broker = self._broker
        try:
            replies = await broker.network.call(broker.link, what, effect, timeout_s=self._timeout_s, block_s=block_s)
        except NotSent as error:
            raise RedisConnectionError(str(error)) from None
        except NoAnswer as error:
            raise (RedisTimeoutError if error.silent else RedisConnectionError)(str(error)) from None
        return cast(Sequence[Any], replies)


class MemoryPipeline(AsyncCoreCommands):
    """Commands that share a request."""

    _event_dispatcher: Any = None

    def __init__(self, client: MemoryRedis) -> None:
        self._client = client
        self._commands: list[tuple[Sequence[Any], Mapping[str, Any]]] = []

    async def __aenter__(self) -> MemoryPipeline:
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._commands.clear()

    def execute_command(self, *arguments: Any, **options: Any) -> MemoryPipeline:
        self._commands.append((arguments, options))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        replies = await self._client.send([arguments for arguments, _ in self._commands])
        answer = []
        for (arguments, options), reply in zip(self._commands, replies, strict=True):
            if isinstance(reply, ResponseError):
                if raise_on_error:
                    raise reply
                answer.append(reply)
            else:
                answer.append(parsed(str(arguments[0]), reply, options))
        return answer


class _Pool:
    """The part of a connection pool that the library uses."""

    def __init__(self, connection_kwargs: Mapping[str, Any]) -> None:
        self.connection_kwargs = connection_kwargs

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Do nothing."""


def as_redis(client: MemoryRedis) -> Redis:
    """Return the client under redis-py's type."""
    return cast(Redis, client)


def parsed(command: str, reply: Any, options: Mapping[str, Any]) -> Any:
    """Return the reply as redis-py parses it."""
    callback = _callbacks.get(command)
    return reply if callback is None else callback(reply, **{k: v for k, v in options.items() if k != "keys"})


def _packed(arguments: Sequence[Any]) -> list[bytes]:
    """Return the command's arguments; redis-py joins a subcommand with its command."""
    words: list[Any] = arguments[0].split()
    return [each if isinstance(each, bytes) else str(each).encode() for each in (*words, *arguments[1:])]


def _script_names() -> dict[bytes, str]:
    found = {}
    names = (
        "create_group read ack promote reclaim renew release publish check replay remove_idle_consumers release_lost"
    )
    for name in names.split():
        script = getattr(scripts, f"_{name}")
        found[script._digest.encode()] = name
    return found


_NOT_WORD = re.compile(r"\W+")


def _name(commands: Sequence[Arguments], names: Mapping[bytes, str]) -> str:
    """Return the purpose of a request, in one word."""
    first = commands[0]
    if len(commands) > 1:
        return "inspect"
    if first[0] == b"EVALSHA":
        return names.get(first[1], "script")
    if first[0] == b"EVAL":
        return "load"
    return "wait" if first[0] == b"XREADGROUP" else _NOT_WORD.sub("_", first[0].decode().lower())


def _block_s(arguments: Arguments) -> float:
    if arguments[0] != b"XREADGROUP" or b"BLOCK" not in arguments:
        return 0.0
    return int(arguments[arguments.index(b"BLOCK") + 1]) / 1000


def forget(broker: Broker, process: Process) -> None:
    """Remove the waiting reads of a process that ended."""
    broker._blocked = [
        (exchange, arguments) for exchange, arguments in broker._blocked if exchange.sender is not process
    ]
