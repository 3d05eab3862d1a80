"""An HTTP server of ours: listens, lets so many clients in, and counts them and what was no request."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge

from okane import binding
from okane.api import request_ids
from okane.api.answer import NO_STORE
from okane.api.http import protocol_errors
from okane.api.http.connection import ServerConnection
from okane.api.http.fast_path import FastConnection, FastPath
from okane.api.http.listener import Listener, listen, take_over
from okane.api.problems import Problem, from_http
from okane.config import Settings

log = structlog.get_logger("okane.api")

FIRST_REQUEST_S = 1.0  # for the first request on a connection that was made right before its server stopped listening
_LOOK_S = 0.01
SPARE_FILES = 256  # for Postgres, Redis, logs, and a burst of connections that are turned away

AppHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def serving(
    app: web.Application,
    host: str,
    port: int,
    *,
    limits: ConnectionLimits,
    drain: timedelta,
    metrics: ConnectionMetrics | None = None,
    fast_path: FastPath | None = None,
    share_port: bool = False,
    leaving: asyncio.Event | None = None,
) -> AsyncIterator[str]:
    """Serve inside the block, on every address of `host` (see `binding`); yields the base URL of the first.

    Leaving it stops listening and lets requests in hand finish. Once `leaving` is set, every answer ends its connection
    (`Connection: close`), so that clients go elsewhere while new connections are still taken.
    """
    runner = GuardedRunner(
        app,
        limits=limits,
        metrics=metrics,
        fast_path=fast_path,
        leaving=leaving,
        shutdown_timeout=drain.total_seconds(),
    )
    await runner.setup()
    try:
        listeners = [await Listener.start(runner, one) for one in listen(host, port, share_port=share_port)]
        yield f"http://{binding.netloc(*runner.addresses[0][:2])}"
        if leaving is not None and leaving.is_set():
            await _stop_listening(runner, listeners)
    finally:
        await runner.cleanup()


async def _stop_listening(runner: GuardedRunner, listeners: Sequence[Listener]) -> None:
    """Take no new connections, and answer what has been sent on those that were made until now."""
    server = cast("GuardedServer", runner.server)
    for listener in listeners:
        await take_over(server, await listener.stop())
    for _ in range(round(FIRST_REQUEST_S / _LOOK_S)):
        if not any(cast("ServerConnection", one).is_new for one in server.connections):
            return
        await asyncio.sleep(_LOOK_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What the clients of one server are given."""

    connections: int
    head_timeout_s: float  # from the connection, or the first byte of a further request, to the end of its head
    keep_alive_timeout_s: float  # between two requests
    write_timeout_s: float  # for the answers that are waiting to be read

    @classmethod
    def of(cls, settings: Settings) -> ConnectionLimits:
        """As they are set, and as far as this process may open files."""
        return cls(
            connections=_room_for(settings.max_connections),
            head_timeout_s=settings.head_timeout.total_seconds(),
            keep_alive_timeout_s=settings.keep_alive_timeout.total_seconds(),
            write_timeout_s=settings.write_timeout.total_seconds(),
        )


class ConnectionMetrics:
    """What became of connections and of what was no request."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refused = Counter(
            "okane_http_requests_refused",
            "What came to the API and was no request, or not one in time, by reason (the code of the answer).",
            ["reason"],
            registry=registry,
        )
        for reason in protocol_errors.REASONS:  # a counter that begins at 1 has no rate
            self.refused.labels(reason)
        self.open = Gauge("okane_http_connections", "Connections of clients to the API.", registry=registry)


class GuardedRunner(web.AppRunner):
    """An `AppRunner` whose connections are `ServerConnection`s."""

    __slots__ = ("_fast_path", "_leaving", "_limits", "_metrics")

    def __init__(
        self,
        app: web.Application,
        *,
        limits: ConnectionLimits,
        metrics: ConnectionMetrics | None = None,
        fast_path: FastPath | None = None,
        leaving: asyncio.Event | None = None,
        shutdown_timeout: float = 60.0,
    ) -> None:
        super().__init__(app, handle_signals=False, access_log=None, shutdown_timeout=shutdown_timeout)
        self._limits = limits
        self._metrics = metrics
        self._fast_path = fast_path
        self._leaving = leaving

    async def _make_server(self) -> web.Server:
        plain = await super()._make_server()
        return GuardedServer(
            plain.request_handler,
            request_factory=plain.request_factory,
            limits=self._limits,
            metrics=self._metrics,
            fast_path=self._fast_path,
            leaving=self._leaving,
        )


class GuardedServer(web.Server):
    """Makes the connections, and counts them."""

    def __init__(
        self,
        answer: AppHandler,
        *,
        request_factory: Any,
        limits: ConnectionLimits,
        metrics: ConnectionMetrics | None,
        fast_path: FastPath | None,
        leaving: asyncio.Event | None = None,
    ) -> None:
        super().__init__(self._answer, request_factory=request_factory)
        self._app_answer = answer
        self._open = 0
        self._metrics = metrics
        self._fast_path = fast_path
        self._leaving = leaving
        self.limits = limits

    @property
    def leaving(self) -> bool:
        """Tell whether every answer is the last on its connection, since this server is about to end."""
        return self._leaving is not None and self._leaving.is_set()

    def __call__(self) -> web.RequestHandler:
        if self._fast_path is None:
            return ServerConnection(self, loop=self._loop)
        return FastConnection(self, self._fast_path, loop=self._loop)

    async def shutdown(self, timeout: float | None = None) -> None:
        """Let what is in hand finish, and close every connection."""
        if self._fast_path is not None:  # its requests are none of those that aiohttp waits for
            await self._fast_path.drain(timeout)
        await super().shutdown(timeout)

    def admit(self) -> bool:
        """A client has connected. False: there is no room for it."""
        if self._open >= self.limits.connections:
            return False
        self._open += 1
        self._show()
        return True

    def release(self) -> None:
        """An admitted client is gone."""
        self._open -= 1
        self._show()

    def refused(self, refusal: Problem) -> None:
        """Keep count of an answer that no route has given."""
        log.debug("request_refused", reason=refusal.code)
        if self._metrics is not None:
            self._metrics.refused.labels(refusal.code).inc()

    def _show(self) -> None:
        if self._metrics is not None:
            self._metrics.open.set(self._open)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast("ServerConnection", request.protocol)
        refusal = protocol_errors.unsupported(request)
        if refusal is not None:
            connection.refuse(refusal)
            raise ConnectionError("refused")
        try:
            response = await self._app_answer(request)
        except web.HTTPException as error:  # raised before any middleware: an Expect that nobody can meet
            return self._last_answer(from_http(error))
        if connection.ending:
            response.force_close()  # and say so: the client need not find out with its next request
        return response

    def _last_answer(self, refusal: Problem) -> web.Response:
        self.refused(refusal)
        request_id = request_ids.new_id()
        response = refusal.answer(instance=None, request_id=request_id).response()
        response.headers.update({"X-Request-Id": request_id, "Cache-Control": NO_STORE})
        response.force_close()
        return response


def _room_for(connections: int) -> int:
    """How many connections this process may hold of so many, after asking the system for the files they need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    granted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
    # Half of what is there if that is very little: a server with no connections serves nobody.
    return max(granted - SPARE_FILES, granted // 2)
