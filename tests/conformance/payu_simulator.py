"""PayU's simulator, which others wrote, behind the rules that it lacks.

An `extOrderId` is taken once, for ever. Refunds are listed, and never exceed their order. Where automatic collection is off,
a paid order waits to be captured or canceled.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

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


def payu_simulator(*, port: int, log: Path) -> SimulatorServer:
    """Return the simulator: PayU's API at `http://127.0.0.1:PORT/payu`."""
    arguments = ["-m", "getpaid_simulator", "--host", "127.0.0.1", "--port", str(port), "--log-level", "WARNING"]
    arguments += ["--plugin-failure-mode", "strict"]
    return SimulatorServer(name="payu", packages=PACKAGES, arguments=arguments, port=port, log=log, health="/")


class UniqueOrders:
    """Apply the rules that the simulator lacks; hand everything else on to it."""

    def __init__(self, simulator_url: str, session: aiohttp.ClientSession) -> None:
        self._simulator_url = simulator_url
        self._session = session
        self.url = ""
        self.order_ids: dict[str, str | None] = {}  # by extOrderId; None while the order is made
        self.refunds: list[Any] = []  # every refund that the simulator has made: it lists none itself
        self.held: dict[str, str] = {}  # the pages of paid orders that wait to be captured, by their ids
        self._totals: dict[str, int] = {}
        self.names_existing = False  # the refusal names the order that exists

    async def forward(self, request: web.Request) -> web.Response:
        body = await request.read()
        *_, parent, last = request.path.split("/")
        if last == "refunds":
            return await self._refund(request, body, parent)
        if parent in self.held and last == "captures":
            return await self._capture(parent)
        if last in self.held:
            return await self._held_order(request, body, last)
        if request.method != "POST" or not request.path.endswith("/api/v2_1/orders"):
            return await self._hand_on(request, body)
        key = json.loads(body)["extOrderId"]
        if key in self.order_ids:
            existing = {"orderId": self.order_ids[key]} if self.names_existing else {}
            return web.json_response({"status": {"statusCode": "ERROR_ORDER_NOT_UNIQUE"}, **existing}, status=400)
        self.order_ids[key] = None
        answer = await self._hand_on(request, body)
        if answer.status == 302:
            assert isinstance(answer.body, bytes)
            order_id = json.loads(answer.body)["orderId"]
            self.order_ids[key] = order_id
            self._totals[order_id] = int(json.loads(body)["totalAmount"])
        else:
            del self.order_ids[key]
        return answer

    async def _refund(self, request: web.Request, body: bytes, order_id: str) -> web.Response:
        made = [one["refund"] for one in self.refunds if one["orderId"] == order_id]
        if request.method == "GET":
            return web.json_response({"refunds": made})
        refunded = sum(int(one["amount"]) for one in made) + int(json.loads(body)["refund"]["amount"])
        if refunded > self._totals[order_id]:
            return web.json_response({"status": {"statusCode": "ERROR_VALUE_INVALID"}}, status=400)
        answer = await self._hand_on(request, body)
        if answer.status == 200:
            assert isinstance(answer.body, bytes)
            self.refunds.append(json.loads(answer.body))
        return answer

    async def _capture(self, order_id: str) -> web.Response:
        async with self._session.post(
            self.held.pop(order_id), data={"action": "approve"}, allow_redirects=False
        ) as answer:
            assert 300 <= answer.status < 400
        return web.json_response({"status": {"statusCode": "SUCCESS"}, "orderId": order_id})

    async def _held_order(self, request: web.Request, body: bytes, order_id: str) -> web.Response:
        answer = await self._hand_on(request, body)
        if request.method == "DELETE":
            del self.held[order_id]
            return answer
        assert isinstance(answer.body, bytes)
        document = json.loads(answer.body)
        document["orders"][0]["status"] = "WAITING_FOR_CONFIRMATION"
        return web.json_response(document)

    async def _hand_on(self, request: web.Request, body: bytes) -> web.Response:
        headers = {
            name: text for name, text in request.headers.items() if name.lower() not in ("host", "content-length")
        }
        async with self._session.request(
            request.method, self._simulator_url + request.path_qs, data=body, headers=headers, allow_redirects=False
        ) as answer:
            location = {"Location": answer.headers["Location"]} if "Location" in answer.headers else {}
            return web.Response(
                status=answer.status, body=await answer.read(), content_type=answer.content_type, headers=location
            )


@contextlib.asynccontextmanager
async def unique_orders(simulator_url: str) -> AsyncIterator[UniqueOrders]:
    async with aiohttp.ClientSession() as session:
        unique = UniqueOrders(simulator_url, session)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", unique.forward)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        unique.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield unique
        finally:
            await runner.cleanup()
