"""The sockets on which a server listens, and how they are closed without losing connections that were made already."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from okane import binding
from okane.errors import SetupError

_SO_ATTACH_FILTER = 26  # of Linux; Python does not name it
# Classic BPF over a TCP segment: code, jumps if true and if false, operand. linux/bpf_common.h; socket(7), SO_ATTACH_FILTER.
_NO_SYN = (
    (0x30, 0, 0, 13),  # load the byte of the flags
    (0x45, 0, 1, 0x02),  # SYN?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # keep all of any other
)
_HANDSHAKE_S = 0.02  # until the client's part of a handshake that has begun is here


def listen(host: str, port: int, *, share_port: bool) -> Sequence[socket.socket]:
    """Listen at `port` of every address that `host` names. Raises SetupError if one is taken, or not this machine's."""
    try:
        return binding.listen(host, port, share_port=share_port)
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
        site = web.SockSite(runner, listening, backlog=binding.BACKLOG)
        await site.start()
        return cls(listening, site)

    async def stop(self) -> Sequence[socket.socket]:
        """Stop listening; return the connections that the kernel has made and the loop has not accepted yet.

        Closing a listening socket resets those, together with the requests that clients may have sent on them. So none is
        begun any more, those that are being made get the time for it, and only then it is closed. A client whose first
        segment was dropped repeats it after a second (RFC 6298), and is refused then, or served by who shares the port.
        """
        pending = []
        if _begin_no_more(self.listening):
            await asyncio.sleep(_HANDSHAKE_S)
        while (connection := self._accept()) is not None:
            pending.append(connection)
        await self.site.stop()  # it closes before it awaits anything
        return pending

    def _accept(self) -> socket.socket | None:
        try:
            return self.listening.accept()[0]
        except OSError:  # BlockingIOError: no connection is pending; any other: none can be accepted
            return None


def _begin_no_more(listening: socket.socket) -> bool:
    """Have the kernel drop segments that begin a connection. Return False where it cannot."""
    if sys.platform != "linux":
        return False
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in _NO_SYN))
    try:
        program = struct.pack("@HP", len(_NO_SYN), ctypes.addressof(code))
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError:
        return False
    return True


async def take_over(server: web.Server, connections: Sequence[socket.socket]) -> None:
    """Serve connections that `Listener.stop` has returned."""
    loop = asyncio.get_running_loop()
    for connection in connections:
        await loop.connect_accepted_socket(server, connection)
