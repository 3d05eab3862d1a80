"""An HTTP server: listens, limits and counts its connections, and answers bytes that are not a request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, cast

import aiohttp
import structlog
from aiohttp import web

from okane import binding
from okane.api import request_ids
from okane.api.answer import NO_STORE
from okane.api.http import aiohttp_internals, protocol_errors
from okane.api.http.aiohttp_internals import AiohttpRunner
from okane.api.http.connection import ServerConnection
from okane.api.http.connection_limits import ConnectionGate, ConnectionLimits, ConnectionMetrics, RefusalText
from okane.api.http.fast_connection import FastConnection
from okane.api.http.fast_path import FastPath
from okane.api.http.listener import Listener, listen, take_over
from okane.api.problems import Problem, from_http
from okane.errors import SetupError

log = structlog.get_logger("okane.api")

FIRST_REQUEST_S = 1.0  # for the first request on a connection that was made right before its server stopped listening
_CHECK_S = 0.01

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
    refusal_text: RefusalText | None = None,
) -> AsyncIterator[str]:
    """Serve inside the block, on every address of `host` (see `binding`); yields the base URL of the first.

    At its end the server stops listening and lets requests in hand finish. Once `leaving` is set, every answer ends its
    connection (`Connection: close`), so that clients go elsewhere while new connections are still accepted. `refusal_text`
    answers what is not a request, instead of problem+json.
    """
    runner = GuardedRunner(
        app,
        limits=limits,
        metrics=metrics,
        fast_path=fast_path,
        leaving=leaving,
        refusal_text=refusal_text,
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
    """Accept no new connections, and answer the requests on those that were made until now."""
    server = cast("GuardedServer", runner.server)
    for listener in listeners:
        await take_over(server, await listener.stop())
    for _ in range(round(FIRST_REQUEST_S / _CHECK_S)):
        if not any(cast("ServerConnection", one).is_new for one in server.connections):
            return
        await asyncio.sleep(_CHECK_S)


class GuardedRunner(AiohttpRunner):
    """An `AppRunner` whose server is a `GuardedServer`."""

    __slots__ = ("_fast_path", "_gate")

    def __init__(
        self,
        app: web.Application,
        *,
        limits: ConnectionLimits,
        metrics: ConnectionMetrics | None = None,
        fast_path: FastPath | None = None,
        leaving: asyncio.Event | None = None,
        refusal_text: RefusalText | None = None,
        shutdown_timeout: float = 60.0,
    ) -> None:
        super().__init__(app, handle_signals=False, access_log=None, shutdown_timeout=shutdown_timeout)
        self._gate = ConnectionGate(limits, metrics, leaving, refusal_text)
        self._fast_path = fast_path

    def build_server(self, server: web.Server) -> web.Server:
        """Return a server with the application of aiohttp's."""
        return GuardedServer(
            server.request_handler, request_factory=server.request_factory, gate=self._gate, fast_path=self._fast_path
        )


class GuardedServer(web.Server):
    """Makes the connections, and drains them at the end. Raises SetupError if aiohttp lacks what they need."""

    def __init__(
        self, app_handler: AppHandler, *, request_factory: Any, gate: ConnectionGate, fast_path: FastPath | None
    ) -> None:
        super().__init__(self._answer, request_factory=request_factory)
        self._app_handler = app_handler
        self._gate = gate
        self._fast_path = _if_possible(fast_path)

    def __call__(self) -> web.RequestHandler:
        loop = asyncio.get_running_loop()
        if self._fast_path is None:
            return ServerConnection(self, self._gate, loop=loop)
        return FastConnection(self, self._gate, self._fast_path, loop=loop)

    async def shutdown(self, timeout: float | None = None) -> None:
        """Let the requests in hand finish, and close every connection."""
        if self._fast_path is not None:  # aiohttp does not know of its requests
            await self._fast_path.drain(timeout)
        await super().shutdown(timeout)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast("ServerConnection", request.protocol)
        refusal = protocol_errors.unsupported(request)
        if refusal is not None:
            connection.refuse(refusal)
            raise ConnectionError("refused")
        try:
            response = await self._app_handler(request)
        except web.HTTPException as error:  # raised before any middleware: an Expect that cannot be met
            return self._last_answer(from_http(error))
        if connection.is_ending:
            response.force_close()  # with `Connection: close`, so that the client need not find out by its next request
        return response

    def _last_answer(self, refusal: Problem) -> web.Response:
        self._gate.count_refusal(refusal)
        if self._gate.refusal_text is not None:
            headers, body = self._gate.refusal_text(refusal)
            own = web.Response(status=refusal.status, headers=headers, body=body)
            own.force_close()
            return own
        request_id = request_ids.new_id()
        response = refusal.answer(instance=None, request_id=request_id).response()
        response.headers.update({"X-Request-Id": request_id, "Cache-Control": NO_STORE})
        response.force_close()
        return response


def _if_possible(fast_path: FastPath | None) -> FastPath | None:
    """Return the fast path, or None with a warning if this release of aiohttp lacks an attribute that it needs.

    Raises SetupError if it lacks one that every connection needs.
    """
    missing = aiohttp_internals.missing(aiohttp_internals.CONNECTION)
    if missing:
        raise SetupError(
            f"aiohttp {aiohttp.__version__} has no {', '.join(missing)}: install a version that okane supports"
        )
    missing = aiohttp_internals.missing(aiohttp_internals.FAST_PATH)
    if fast_path is None or not missing:
        return fast_path
    log.warning("fast_path_off", aiohttp=aiohttp.__version__, missing=missing)
    return None
