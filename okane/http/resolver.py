"""Look-ups of names by `getaddrinfo`, which blocks: each in a thread of its own, so that no slow name delays another.

Guarantee: one look-up of a name runs at a time, however many callers wait for it, and at most `MAX_LOOK_UPS` in all.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

# A thread of each name that does not answer waits for tens of seconds. The event loop's own pools have a few threads: they
# would be taken by a few such names.
MAX_LOOK_UPS = 256

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]  # of `getaddrinfo`
GetAddressInfo = Callable[[str, int], Sequence[AddressInfo]]


def get_address_info(host: str, port: int) -> Sequence[AddressInfo]:
    """Return the TCP addresses of a host. Blocks. Raises OSError, and UnicodeError for an invalid name."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)  # type: ignore[return-value] # AF_INET and AF_INET6 only


class Resolver:
    """The look-ups that are running. Created on a running loop."""

    def __init__(self, get: GetAddressInfo = get_address_info) -> None:
        self._get = get
        self._loop = asyncio.get_running_loop()
        self._free = asyncio.Semaphore(MAX_LOOK_UPS)
        self._running: dict[tuple[str, int], asyncio.Future[Sequence[AddressInfo]]] = {}

    async def resolve(self, host: str, port: int) -> Sequence[AddressInfo]:
        """Return the addresses of a host. Raises as `getaddrinfo` does. A cancelled caller leaves the look-up running."""
        while (found := self._running.get((host, port))) is None:
            await self._free.acquire()
            if (host, port) in self._running:  # begun by another caller that waited
                self._free.release()
                continue
            self._start(host, port)
        return await asyncio.shield(found)

    def _start(self, host: str, port: int) -> None:
        found = self._running[host, port] = self._loop.create_future()
        found.add_done_callback(lambda done: done.cancelled() or done.exception())  # its callers may all be gone

        def end(addresses: Sequence[AddressInfo] | None, error: BaseException | None) -> None:
            del self._running[host, port]
            self._free.release()
            if found.done():
                return
            if error is not None:
                found.set_exception(error)
            else:
                found.set_result(addresses or ())

        def look_up() -> None:
            result: tuple[Any, BaseException | None]
            try:
                result = self._get(host, port), None
            except Exception as error:  # the caller's
                result = None, error
            with contextlib.suppress(RuntimeError):  # the loop is closed: no caller is left
                self._loop.call_soon_threadsafe(end, *result)

        # A daemon: a name that does not answer must not delay the end of the process.
        threading.Thread(target=look_up, name="resolver", daemon=True).start()
