"""A proxy between an adapter and its gateway: what simulators lack (5xx, 429, lost, slow and cut answers) happens here.

It writes down every request, so that a test can tell which ones were sent, and check their bodies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

_OWN_HEADERS = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request as the adapter sent it. Header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong with one request.

    With `reaches` the gateway executes the request all the same. `status` is that of the answer that comes in place of the
    gateway's, with `body` and `headers`; without one the connection breaks, after `cut_after` bytes of the gateway's body if
    that is given. `delay_s` holds the answer back.
    """

    reaches: bool = False
    status: int | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    delay_s: float = 0.0


LOST_REQUEST = Fault()
LOST_ANSWER = Fault(reaches=True)
CUT_ANSWER = Fault(reaches=True, cut_after=20)


class FaultProxy:
    """Forwards to the gateway at `target`; a fault of `strike` befalls the next request that it is for."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._faults: list[tuple[Fault, Callable[[Recorded], bool]]] = []
        self._closing = asyncio.Event()
        self.requests: list[Recorded] = []
        self.url = ""

    def strike(self, fault: Fault, when: Callable[[Recorded], bool]) -> None:
        self._faults.append((fault, when))

    @property
    def is_healed(self) -> bool:
        """True if every fault has befallen a request."""
        return not self._faults

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        await self._runner.cleanup()
        await self._session.close()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        recorded = Recorded(request.method, request.path_qs, headers, await request.read())
        self.requests.append(recorded)
        fault = self._next_fault(recorded)
        if fault is None:
            return await self._answer(recorded)
        answer = await self._answer(recorded) if fault.reaches else None
        if fault.delay_s:
            waiting = asyncio.create_task(self._closing.wait())
            await asyncio.wait([waiting], timeout=fault.delay_s)
            waiting.cancel()
        if fault.status is not None:
            return web.Response(status=fault.status, body=fault.body, headers=fault.headers)
        if answer is not None and (fault.cut_after is not None or fault.delay_s):
            return await self._cut(request, answer, fault)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    def _next_fault(self, request: Recorded) -> Fault | None:
        for number, (fault, when) in enumerate(self._faults):
            if when(request):
                del self._faults[number]
                return fault
        return None

    async def _answer(self, request: Recorded) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name not in (*_OWN_HEADERS, "host")}
        async with self._session.request(
            request.method, self._target + request.target, headers=headers, data=request.body, allow_redirects=False
        ) as answer:
            body = await answer.read()
            kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _OWN_HEADERS]
        response = web.Response(status=answer.status, body=body)
        response.headers.clear()
        response.headers.extend(kept)
        return response

    async def _cut(self, request: web.Request, answer: web.Response, fault: Fault) -> web.StreamResponse:
        """Send the whole answer, or with `cut_after` only the beginning of it."""
        if fault.cut_after is None:
            return answer
        assert isinstance(answer.body, bytes)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.content_length = len(answer.body)
        await response.prepare(request)
        await response.write(answer.body[: fault.cut_after])
        assert request.transport is not None
        request.transport.abort()
        return response
