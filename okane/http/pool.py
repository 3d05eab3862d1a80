"""The connections to one server: a bounded number, kept alive, lent for one exchange at a time.

Promise: callers are served in the order of coming, and nothing is written before a caller has its connection: whoever
gets none has sent nothing.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass

from okane.http.connection import BrokenExchange, HttpConnection

# The shortest keep-alive of common servers is 5 s (Node, Apache, uvicorn). A request on a connection that the server is
# about to close is an open outcome; a handshake every few seconds in a quiet hour costs nothing.
IDLE_LIMIT_S = 4.0
_CLOSED = BrokenExchange("the client was closed")
_USELESS = BrokenExchange("of no more use")


@dataclass(frozen=True, slots=True)
class NoConnection:
    """There was none to have: nothing was sent."""

    reason: str


class ConnectionPool:
    """Create it on a running loop. What `take` gives has to come back by `give_back`, in whatever state."""

    def __init__(self, *, host: str, port: int, tls: ssl.SSLContext | None, connections: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._host = host
        self._port = port
        self._tls = tls
        self._free = connections  # how many more callers may have a connection; those in `_idle` are among them
        self._waiting: deque[asyncio.Future[None]] = deque()  # only while nothing is free
        self._idle: deque[HttpConnection] = (
            deque()
        )  # the last one used at the end, so that a few stay warm and others age
        self._connections: set[HttpConnection] = set()
        self._patience: set[asyncio.Timeout] = set()
        self._closed = False

    async def take(self, *, due_s: float, fresh: bool = False) -> HttpConnection | NoConnection:
        """A connection, at `due_s` by the loop's clock at the latest; `fresh`: one that carried no request yet."""
        if self._closed:
            return NoConnection("the client is closed")
        if self._free and not fresh and (connection := self._kept()) is not None:
            self._free -= 1
            return connection
        return await self._wait_and_connect(due_s, fresh=fresh)

    def give_back(self, connection: HttpConnection) -> None:
        """The exchange is over, one way or another."""
        if connection.is_open and not self._closed:
            now_s = connection.idle_since_s = self._loop.time()
            self._drop_idle(until_s=now_s - IDLE_LIMIT_S)
            self._idle.append(connection)
        else:
            connection.end(_USELESS)
        self._release()

    async def aclose(self) -> None:
        """Close every connection, and wait until they are closed. Exchanges in flight end as broken."""
        self._closed = True
        for patience in self._patience:
            if not patience.expired():
                patience.reschedule(self._loop.time())
        lost = [connection.lost for connection in self._connections]
        for connection in list(self._connections):
            connection.end(_CLOSED)
        if lost:
            await asyncio.wait(lost)

    async def _wait_and_connect(self, due_s: float, *, fresh: bool) -> HttpConnection | NoConnection:
        try:
            async with asyncio.timeout_at(due_s) as patience:
                self._patience.add(patience)
                try:
                    await self._acquire()
                    return await self._kept_or_new(fresh=fresh)
                finally:
                    self._patience.discard(patience)
        except TimeoutError:
            return NoConnection("the client is closed" if self._closed else "no connection in time")
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that can be none
            return NoConnection(f"no connection: {error}"[:255])

    async def _acquire(self) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # its turn came in the moment of giving up
                self._release()
            elif turn in self._waiting:  # else `_release` has passed it over already
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
        if fresh:  # who hung up on one has hung up on them all, or soon will
            self._drop_idle(until_s=self._loop.time())
        try:
            return self._kept() or await self._connect()
        except BaseException:
            self._release()
            raise

    def _kept(self) -> HttpConnection | None:
        freshest_s = self._loop.time() - IDLE_LIMIT_S
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since_s > freshest_s and connection.is_quiet():
                return connection
            connection.end(_USELESS)
        return None

    def _drop_idle(self, *, until_s: float) -> None:
        while self._idle and self._idle[0].idle_since_s <= until_s:
            self._idle.popleft().end(_USELESS)

    async def _connect(self) -> HttpConnection:
        _, connection = await self._loop.create_connection(
            lambda: HttpConnection(on_lost=self._connections.discard),
            self._host,
            self._port,
            ssl=self._tls,
            server_hostname=None if self._tls is None else self._host.rstrip("."),
        )
        if not connection.is_open:
            raise ConnectionResetError("the server hung up before the request")
        self._connections.add(connection)
        return connection
