"""A bounded pool of kept-alive connections to one server, each lent for one exchange at a time.

Guarantee: callers are served in the order of their calls. A caller that gets no connection has sent nothing.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from okane.http.connection import BrokenExchange, HttpConnection

# The shortest keep-alive of common servers is 5 s (Node, Apache, uvicorn). A request on a connection that the server is
# about to close has an unknown outcome; a handshake every few seconds in a quiet hour costs nothing.
# A pool for a server that is known to keep connections for longer has a longer limit.
IDLE_LIMIT_S = 4.0
Connector = Callable[[Callable[[], HttpConnection]], Awaitable[HttpConnection]]  # raises OSError
_CLOSED = BrokenExchange("the client was closed")
_DISCARDED = BrokenExchange("the connection was discarded")


class AddressRefused(OSError):
    """An address that a connector does not connect to. The message names no address: it may go to a client."""


@dataclass(frozen=True, slots=True)
class NoConnection:
    """The reason why there is no connection: nothing was sent. `part` is what failed."""

    reason: str
    part: Literal["timeout", "dns", "guard", "tls", "connect"] = field(default="connect", compare=False)


class ConnectionPool:
    """Created on a running loop. Every connection from `take` must return through `give_back`, in any state.

    A connection that has been idle for `idle_limit_s` is not used again. `headers` names the response headers that answers
    carry besides Retry-After and Date; all others are dropped unread. `connector` replaces the connect to `host` and `port`.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        connections: int,
        idle_limit_s: float = IDLE_LIMIT_S,
        headers: Iterable[str] = (),
        connector: Connector | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._host = host
        self._port = port
        self._tls = tls
        self._idle_limit_s = idle_limit_s
        self._headers = frozenset(name.lower().encode("ascii") for name in headers)
        self._connector = connector
        self._free = connections  # how many more callers may take a connection, the idle ones included
        self._waiting: deque[asyncio.Future[None]] = deque()  # empty while anything is free
        self._idle: deque[HttpConnection] = deque()  # the last used at the end: a few stay warm and the others age
        self._connections: set[HttpConnection] = set()
        self._connect_timeouts: set[asyncio.Timeout] = set()
        self._closed = False

    async def take(self, *, due_s: float, fresh: bool = False) -> HttpConnection | NoConnection:
        """Return a connection, waiting until `due_s` of the loop's clock; with `fresh` one that has carried no request."""
        if self._closed:
            return NoConnection("the client is closed")
        if self._free and not fresh and (connection := self._kept()) is not None:
            self._free -= 1
            return connection
        return await self._wait_and_connect(due_s, fresh=fresh)

    def give_back(self, connection: HttpConnection) -> None:
        """Return a connection after its exchange."""
        if connection.is_open and not self._closed:
            now_s = connection.idle_since_s = self._loop.time()
            self._drop_idle(until_s=now_s - self._idle_limit_s)
            self._idle.append(connection)
        else:
            connection.end(_DISCARDED)
        self._release()

    def drop_idle(self, *, all_of_them: bool = False) -> int:
        """Close the connections that have been idle for too long, or all idle ones; return how many are idle still."""
        self._drop_idle(until_s=self._loop.time() - (0.0 if all_of_them else self._idle_limit_s))
        return len(self._idle)

    async def aclose(self) -> None:
        """Close every connection and wait for that. Exchanges in flight end as BrokenExchange."""
        self._closed = True
        for timeout in self._connect_timeouts:
            if not timeout.expired():
                timeout.reschedule(self._loop.time())
        lost = [connection.lost for connection in self._connections]
        for connection in list(self._connections):
            connection.end(_CLOSED)
        if lost:
            await asyncio.wait(lost)

    async def _wait_and_connect(self, due_s: float, *, fresh: bool) -> HttpConnection | NoConnection:
        try:
            async with asyncio.timeout_at(due_s) as timeout:
                self._connect_timeouts.add(timeout)
                try:
                    await self._acquire()
                    return await self._kept_or_new(fresh=fresh)
                finally:
                    self._connect_timeouts.discard(timeout)
        except TimeoutError:
            return NoConnection("the client is closed" if self._closed else "no connection in time", "timeout")
        except (OSError, UnicodeError) as error:  # UnicodeError: an invalid host name
            return NoConnection(f"no connection: {error}"[:255], _failed_part(error))

    async def _acquire(self) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # granted in the same moment
                self._release()
            elif turn in self._waiting:  # else `_release` has skipped it already
                self._waiting.remove(turn)
            raise

    def _release(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    async def _kept_or_new(self, *, fresh: bool) -> HttpConnection:
        if fresh:  # a server that closed one kept connection has closed the others too
            self._drop_idle(until_s=self._loop.time())
        try:
            return self._kept() or await self._connect()
        except BaseException:
            self._release()
            raise

    def _kept(self) -> HttpConnection | None:
        freshest_s = self._loop.time() - self._idle_limit_s
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since_s > freshest_s and connection.is_quiet():
                return connection
            connection.end(_DISCARDED)
        return None

    def _drop_idle(self, *, until_s: float) -> None:
        while self._idle and self._idle[0].idle_since_s <= until_s:
            self._idle.popleft().end(_DISCARDED)

    async def _connect(self) -> HttpConnection:
        connection = await self._new_connection()
        if not connection.is_open:
            raise ConnectionResetError("the server hung up before the request")
        self._connections.add(connection)
        return connection

    async def _new_connection(self) -> HttpConnection:
        if self._connector is not None:
            return await self._connector(self._protocol)
        _, connection = await self._loop.create_connection(
            self._protocol,
            self._host,
            self._port,
            ssl=self._tls,
            server_hostname=None if self._tls is None else self._host.rstrip("."),
        )
        return connection

    def _protocol(self) -> HttpConnection:
        return HttpConnection(on_lost=self._connections.discard, headers=self._headers)


def _failed_part(error: Exception) -> Literal["dns", "guard", "tls", "connect"]:
    match error:
        case AddressRefused():
            return "guard"
        case ssl.SSLError():
            return "tls"
        case socket.gaierror() | UnicodeError():
            return "dns"
        case _:
            return "connect"
