"""The sockets on which a server listens, and how they are closed without losing connections that were made already."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from okane import binding
from okane.errors import SetupError

_BACKLOG = 1024


def listen(host: str, port: int, *, share_port: bool) -> Sequence[socket.socket]:
    """Bind `port` of every address that `host` names. Raises SetupError if one of them is taken, or not this machine's."""
    try:
        return binding.bind(host, port, share_port=share_port)
    except OSError as error:
        raise SetupError(f"cannot listen on {error.filename}: {error.strerror}") from error


@dataclass(slots=True)
class Listener:
    """A listening socket, and the site of aiohttp's that takes connections from it."""

    listening: socket.socket
    site: web.SockSite

    @classmethod
    async def start(cls, runner: web.AppRunner, listening: socket.socket) -> Listener:
        """Accept connections for `runner`."""
        site = web.SockSite(runner, listening, backlog=_BACKLOG)
        await site.start()
        return cls(listening, site)

    async def stop(self) -> Sequence[socket.socket]:
        """Stop listening; return the connections that the kernel has made and the loop has not accepted yet.

        Closing a listening socket resets those, together with the requests that clients may have sent on them. Nothing is
        awaited between the last accept and the end, so that next to none can come in between.
        """
        pending = []
        while (connection := self._accept()) is not None:
            pending.append(connection)
        await self.site.stop()  # it closes before it awaits anything
        return pending

    def _accept(self) -> socket.socket | None:
        try:
            return self.listening.accept()[0]
        except OSError:  # BlockingIOError: no connection is pending; any other: none can be accepted
            return None


async def take_over(server: web.Server, connections: Sequence[socket.socket]) -> None:
    """Serve connections that `Listener.stop` has returned."""
    loop = asyncio.get_running_loop()
    for connection in connections:
        await loop.connect_accepted_socket(server, connection)
