"""PayU's simulator, which others wrote, and a way to it on which calls go wrong as the simulator itself never does.

The simulator lacks one rule of PayU: it takes an `extOrderId` twice. The way refuses the repeat as PayU does.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

import aiohttp
from aiohttp import web

from okane.local.simulator_environment import SimulatorPackages
from okane.local.simulator_server import SimulatorServer

PACKAGES = SimulatorPackages(
    name="payu-simulator",
    versions=("3.13", "3.12", "3.14"),
    requirements=Path(__file__).with_name("payu-requirements.txt"),
)
# The key with which the simulator signs its notices unless it is told another: that of PayU's public test shop.
SECOND_KEY = "b6ca15b0d1020e8094d9b5f8d163db54"
MAX_CALLS = 300


class Fault(Enum):
    """A fault of one call."""

    LOST_REQUEST = auto()
    LOST_ANSWER = auto()
    ERROR_500 = auto()
    ERROR_500_AFTERWARDS = auto()
    UNAUTHORIZED = auto()
    RATE_LIMIT = auto()


def payu_simulator(*, port: int, log: Path) -> SimulatorServer:
    """Return the simulator: PayU's API at `http://127.0.0.1:PORT/payu`."""
    arguments = ["-m", "getpaid_simulator", "--host", "127.0.0.1", "--port", str(port), "--log-level", "WARNING"]
    arguments += ["--plugin-failure-mode", "strict"]
    return SimulatorServer(name="payu", packages=PACKAGES, arguments=arguments, port=port, log=log, health="/")


@dataclass(slots=True)
class Simulator:
    """The running simulator, and how many calls of the adapter it has taken."""

    url: str
    calls: int = 0


@dataclass(slots=True)
class Way:
    """The way to the simulator. `faults` happen to the next calls about orders, in turn; then all goes well."""

    simulator: Simulator
    session: aiohttp.ClientSession
    base_url: str = ""
    names_existing: bool = False  # whether the refusal of a repeat names the order that exists
    faults: list[Fault] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    orders: dict[str, str] = field(default_factory=dict)  # by extOrderId

    async def forward(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.calls.append(f"{request.method} {request.path}")
        fault = self.faults.pop(0) if self.faults and "/orders" in request.path else None
        match fault:
            case Fault.LOST_REQUEST:
                return _hang_up(request)
            case Fault.ERROR_500:
                return _failure(500, "ERROR_INTERNAL")
            case Fault.UNAUTHORIZED:
                return _failure(401, "UNAUTHORIZED")
            case Fault.RATE_LIMIT:
                return _failure(429, "TOO_MANY_REQUESTS")
        answer = self._refusal(request, body) or await self._pass_on(request, body)
        match fault:
            case Fault.LOST_ANSWER:
                return _hang_up(request)
            case Fault.ERROR_500_AFTERWARDS:
                return _failure(500, "ERROR_INTERNAL")
        return answer

    def _refusal(self, request: web.Request, body: bytes) -> web.Response | None:
        existing = self.orders.get(json.loads(body)["extOrderId"]) if _makes_order(request) else None
        if existing is None:
            return None
        return _failure(400, "ERROR_ORDER_NOT_UNIQUE", {"orderId": existing} if self.names_existing else {})

    async def _pass_on(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: text for name, text in request.headers.items() if name.lower() != "host"}
        self.simulator.calls += 1
        async with self.session.request(
            request.method, self.simulator.url + request.path_qs, data=body, headers=headers, allow_redirects=False
        ) as answer:
            content = await answer.read()
            if _makes_order(request) and answer.status == 302:
                self.orders[json.loads(body)["extOrderId"]] = json.loads(content)["orderId"]
            location = {"Location": answer.headers["Location"]} if "Location" in answer.headers else {}
            return web.Response(status=answer.status, body=content, content_type=answer.content_type, headers=location)


@contextlib.asynccontextmanager
async def way_to(simulator: Simulator) -> AsyncIterator[Way]:
    async with aiohttp.ClientSession() as session:
        way = Way(simulator, session)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", way.forward)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        way.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/payu"
        try:
            yield way
        finally:
            await runner.cleanup()


def _makes_order(request: web.Request) -> bool:
    return request.method == "POST" and request.path.endswith("/api/v2_1/orders")


def _failure(status: int, code: str, more: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"status": {"statusCode": code}, **(more or {})}, status=status)


def _hang_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
