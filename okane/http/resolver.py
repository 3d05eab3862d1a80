"""Look-ups of names by `getaddrinfo`, which blocks: each in a thread of its own, so that no slow name delays another.

Guarantee: one look-up of a name runs at a time, however many callers wait for it, and at most `MAX_LOOK_UPS` in all. Those of
one owner take `MAX_OF_OWNER` of them: names that do not answer delay the others of their owner alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

# A thread of each name that does not answer waits for tens of seconds. The event loop's own pools have a few threads: they
# would be taken by a few such names.
MAX_LOOK_UPS = 256
MAX_OF_OWNER = 16

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]  # of `getaddrinfo`
GetAddressInfo = Callable[[str, int], Sequence[AddressInfo]]


def get_address_info(host: str, port: int) -> Sequence[AddressInfo]:
    """Return the TCP addresses of a host. Blocks. Raises OSError, and UnicodeError for an invalid name."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)  # type: ignore[return-value] # AF_INET and AF_INET6 only


@dataclass(slots=True)
class _Owner:
    """The look-ups of one owner. `count`: those that run or wait."""

    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_OF_OWNER))
    count: int = 0


class Resolver:
    """The look-ups that are running. Created on a running loop."""

    def __init__(self, get: GetAddressInfo = get_address_info) -> None:
        self._get = get
        self._loop = asyncio.get_running_loop()
        self._free = asyncio.Semaphore(MAX_LOOK_UPS)
        self._owners: dict[str, _Owner] = {}
        self._running: dict[tuple[str, int], asyncio.Future[Sequence[AddressInfo]]] = {}

    async def resolve(self, host: str, port: int, *, owner: str) -> Sequence[AddressInfo]:
        """Return the addresses of a host, for the account that asks. Raises as `getaddrinfo` does.

        A cancelled caller leaves the look-up running.
        """
        while (found := self._running.get((host, port))) is None:
            release = await self._acquire(owner)
            if (host, port) in self._running:  # begun by another caller that waited
                release()
                continue
            self._start(host, port, release)
        return await asyncio.shield(found)

    async def _acquire(self, owner: str) -> Callable[[], None]:
        """Take a place of the owner's, then one of all; return the release of both."""
        line = self._owners.setdefault(owner, _Owner())
        line.count += 1

        def leave() -> None:
            line.count -= 1
            if not line.count:
                del self._owners[owner]

        def release() -> None:
            self._free.release()
            line.free.release()
            leave()

        try:
            await line.free.acquire()
        except BaseException:
            leave()
            raise
        try:
            await self._free.acquire()
        except BaseException:
            line.free.release()
            leave()
            raise
        return release

    def _start(self, host: str, port: int, release: Callable[[], None]) -> None:
        found = self._running[host, port] = self._loop.create_future()
        found.add_done_callback(lambda done: done.cancelled() or done.exception())  # its callers may all be gone

        def end(addresses: Sequence[AddressInfo] | None, error: BaseException | None) -> None:
            del self._running[host, port]
            release()
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
