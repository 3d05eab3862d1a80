"""A TCP proxy that breaks the way to one server on demand, live, in the ways that networks and servers do.

Promise: what is not struck by a fault passes in order and unchanged, half-closed streams and resets included, and costs
little: whole chunks go from socket to socket without a task or a queue in between.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from torture.network.link_faults import (
    Blackhole,
    Direction,
    Fault,
    Refuse,
    strikes,
)
from torture.network.pipe import ByteCount, End, Pipe, reset_on_close

Connect = Callable[[End], Awaitable[None]]

_BACKLOG = 1024
_PAUSE_S = 0.1  # without a free descriptor the listening socket stays readable: do not spin on it


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Counts of the traffic so far. Bytes are counted on arrival, those that were dropped included."""

    open_connections: int
    connections: int
    to_server_bytes: int
    to_client_bytes: int
    swallowed_bytes: int


class FaultProxy:
    """Forwards from a loopback port (0: a free one) to `target`. One fault at a time, none to begin with.

    Use it as a context manager, or `start` and `aclose` it. `target` is where new connections go, `fault` what is in
    force. Every connection takes two descriptors.
    """

    def __init__(
        self, target: tuple[str, int], *, host: str = "127.0.0.1", port: int = 0, dice: random.Random | None = None
    ) -> None:
        self.target = target
        self.host = host
        self.port = port
        self.fault: Fault | None = None
        self._dice = dice or random.Random()
        self._address_holder: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._connections: set[_Connection] = set()
        self._total = 0
        self._tallies = {Direction.TO_SERVER: ByteCount(), Direction.TO_CLIENT: ByteCount()}
        self._reachable = asyncio.Event()  # unset while not even a new connection gets to the server
        self._reachable.set()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def traffic(self) -> Traffic:
        to_server, to_client = self._tallies[Direction.TO_SERVER], self._tallies[Direction.TO_CLIENT]
        return Traffic(
            open_connections=len(self._connections),
            connections=self._total,
            to_server_bytes=to_server.received,
            to_client_bytes=to_client.received,
            swallowed_bytes=to_server.swallowed + to_client.swallowed,
        )

    async def start(self) -> None:
        """Listen; `port` says where. Raises OSError for a taken port."""
        # Never listens: it keeps the port ours while connections are refused.
        self._address_holder = _bound(self.host, self.port)
        self.port = self._address_holder.getsockname()[1]
        self._listen()

    async def aclose(self) -> None:
        """Stop listening and reset what is connected; returns when every socket is closed."""
        self._stop_listening()
        if self._address_holder is not None:
            self._address_holder.close()
            self._address_holder = None
        self.reset()
        await self._empty.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def strike(self, fault: Fault) -> None:
        """Put a fault in force, after healing the one that is."""
        self._change(fault)

    def heal(self) -> None:
        """Let everything through again: what was kept is delivered, connections that lost bytes are reset."""
        self._change(None)

    def reset(self) -> None:
        """Break all present connections with RST, on both sides. The fault in force stays."""
        for connection in list(self._connections):
            connection.reset()

    def point_at(self, target: tuple[str, int]) -> None:
        """Send new connections there. Present ones stay where they are, unless they are `reset`."""
        self.target = target

    def _change(self, fault: Fault | None) -> None:
        self.fault = fault
        for connection in list(self._connections):
            connection.change(fault)
        if isinstance(fault, Blackhole) and strikes(fault, Direction.TO_SERVER):
            self._reachable.clear()
        else:
            self._reachable.set()
        if isinstance(fault, Refuse):
            self._stop_listening()
        elif self._address_holder is not None:
            self._listen()

    def _listen(self) -> None:
        """Accepts by hand, because asyncio's servers cannot be stopped and started again without an await."""
        if self._listener is None:
            self._listener = _bound(self.host, self.port)
            self._listener.listen(_BACKLOG)
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # it has gone again
        except OSError:
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            loop.call_later(_PAUSE_S, self._accept_again, listener)
            return
        accepted.setblocking(False)
        self._total += 1
        self._empty.clear()
        self._connections.add(
            _Connection(
                accepted,
                connect=self._connect,
                fault=self.fault,
                tallies=self._tallies,
                dice=self._dice,
                on_gone=self._gone,
            )
        )

    def _accept_again(self, listener: socket.socket) -> None:
        if listener is self._listener:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    async def _connect(self, end: End) -> None:
        """Connect `end` to the server, as soon as there is a way."""
        await self._reachable.wait()
        await asyncio.get_running_loop().create_connection(lambda: end, *self.target)

    def _gone(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()


class _Connection:
    """One client's connection and its counterpart to the server, joined by two pipes."""

    def __init__(
        self,
        accepted: socket.socket,
        *,
        connect: Connect,
        fault: Fault | None,
        tallies: dict[Direction, ByteCount],
        dice: random.Random,
        on_gone: Callable[[_Connection], None],
    ) -> None:
        self._accepted = accepted
        self._on_gone = on_gone
        self._client, self._server = End(self._lost), End(self._lost)
        ends = {
            Direction.TO_SERVER: (self._client, self._server),
            Direction.TO_CLIENT: (self._server, self._client),
        }
        self._pipes = [
            Pipe(
                direction,
                source=source,
                sink=sink,
                fault=fault,
                tally=tallies[direction],
                dice=dice,
                on_broken=self.reset,
                on_ended=self._ended,
            )
            for direction, (source, sink) in ends.items()
        ]
        self._being_made = [self._client, self._server]
        self._opening = asyncio.create_task(self._open(connect))
        self._opening.add_done_callback(self._opened)

    def change(self, fault: Fault | None) -> None:
        for pipe in self._pipes:
            pipe.change(fault)

    def reset(self) -> None:
        self._opening.cancel()
        self._client.reset()
        self._server.reset()

    async def _open(self, connect: Connect) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self._client, self._accepted)
        self._being_made.remove(self._client)
        await connect(self._server)
        self._being_made.remove(self._server)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        """Whatever kept us from the server, the client only sees a connection that breaks."""
        if opening.cancelled() or opening.exception() is not None:
            if self._client.transport is None:
                reset_on_close(self._accepted)
                self._accepted.close()
            self.reset()
            for end in self._being_made:
                end.gone = True  # uvloop does not report a connection that was lost while it was being made
        self._lost()

    def _ended(self) -> None:
        """Both streams have come to their end: so has the connection."""
        if all(pipe.delivered_all for pipe in self._pipes):
            for end in (self._client, self._server):
                if end.transport is not None:
                    end.transport.close()

    def _lost(self) -> None:
        ends = (self._client, self._server)
        if self._opening.done() and all(end.gone or end.transport is None for end in ends):
            for pipe in self._pipes:
                pipe.close()
            self._on_gone(self)


def _bound(host: str, port: int) -> socket.socket:
    """A socket of this address, with others of ours beside it. Only one that listens takes connections."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of former lives must not count
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
