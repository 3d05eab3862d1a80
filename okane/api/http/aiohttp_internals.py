"""The private attributes of aiohttp's server that okane uses, under names of okane's own.

aiohttp has no public interface for two things: to see and to answer requests before its own machinery does, and to watch the
head of a request arrive. A release that moves one of these attributes is found at start (`missing`), not by a request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from aiohttp import web

T = TypeVar("T")

# Without these a connection cannot enforce its limits.
CONNECTION = (
    "_buffer_paused",
    "_close",
    "_current_request",
    "_force_close",
    "_lingering_time",
    "_loop",
    "_messages",
    "_pause_transport_reading",
    "_reading_paused",
    "_request_count",
    "_resume_transport_reading",
    "_waiter",
)
# Without these there is no fast path, and aiohttp answers every request.
FAST_PATH = (
    "_keepalive_handle",
    "_keepalive_timeout",
    "_next_keepalive_close_time",
    "_paused",
    "_process_keepalive",
    "_upgraded",
)


def missing(names: Sequence[str], handler: type = web.RequestHandler) -> Sequence[str]:
    """Return those of `names` that aiohttp's connections do not have."""
    return [name for name in names if not hasattr(handler, name)]


class _Slot(Protocol[T]):
    """A slot of aiohttp's, for the type checker."""

    def __get__(self, instance: object, owner: type | None = None) -> T: ...

    def __set__(self, instance: object, value: T) -> None: ...


def _slot(name: str) -> Any:
    """Return the descriptor of a slot of aiohttp's: an access costs no more than under its own name."""
    return getattr(web.RequestHandler, name, None)


class AiohttpConnection(web.RequestHandler):
    """aiohttp's connection. Its task waits for a request on a future, `waiter`, and takes parsed ones from `messages`."""

    __slots__ = ()

    loop: _Slot[asyncio.AbstractEventLoop] = _slot("_loop")
    waiter: _Slot[asyncio.Future[None] | None] = _slot("_waiter")
    messages: _Slot[deque[tuple[Any, Any]]] = _slot("_messages")  # heads with their bodies
    current_request: _Slot[web.BaseRequest | None] = _slot("_current_request")
    request_count: _Slot[int] = _slot("_request_count")
    closes_after_answer: _Slot[bool] = _slot("_close")
    closes_at_once: _Slot[bool] = _slot("_force_close")
    lingering_time_s: _Slot[float] = _slot("_lingering_time")
    is_upgraded: _Slot[bool] = _slot("_upgraded")
    is_writing_paused: _Slot[bool] = _slot("_paused")
    is_reading_paused: _Slot[bool] = _slot("_reading_paused")
    is_buffer_paused: _Slot[bool] = _slot("_buffer_paused")
    keepalive_timeout_s: _Slot[float] = _slot("_keepalive_timeout")
    keepalive_until_s: _Slot[float] = _slot("_next_keepalive_close_time")
    keepalive_timer: _Slot[asyncio.Handle | None] = _slot("_keepalive_handle")
    check_keepalive: Callable[[], None] = _slot("_process_keepalive")
    pause_reading_now: Callable[[], None] = _slot("_pause_transport_reading")
    resume_reading_now: Callable[[], None] = _slot("_resume_transport_reading")

    def resume_when_parsed(self) -> None:
        """Have aiohttp's parser read on. aiohttp calls this when it has room; `resume_reading_now` does it."""
        raise NotImplementedError

    def _resume_transport_reading(self) -> None:
        self.resume_when_parsed()


class AiohttpRunner(web.AppRunner):
    """aiohttp's runner, with its server made by `build_server`."""

    __slots__ = ()

    def build_server(self, server: web.Server) -> web.Server:
        """Return the server to run in the place of aiohttp's."""
        raise NotImplementedError

    async def _make_server(self) -> web.Server:
        return self.build_server(await super()._make_server())
