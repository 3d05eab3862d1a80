"""PayU as a gateway under test: `PayuProvider`, getpaid-simulator, and a customer at its pages."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import aiohttp

from okane.local.ports import free_port
from okane.payment import Payment
from okane.providers.base import Pending
from okane.providers.payu.provider import PayuProvider
from okane.providers.payu.webhook import notice_parser
from tests.conformance.fault_proxy import Recorded
from tests.conformance.gateway import Booked, Money, SignedNotice, Wish
from tests.conformance.payu_simulator import SECOND_KEY, UniqueOrders, payu_simulator, unique_orders
from tests.conformance.simulators import running
from tests.payments import PAYMENT

RETURN_URL = "http://127.0.0.1/back"
_SECRET = "2ee86a66e5d97e3fadc400c9f19b065d"
# PayU's description of OrderCreateRequest: what an order must have, and what this adapter may send besides.
_REQUIRED = {"customerIp", "merchantPosId", "description", "currencyCode", "totalAmount", "products"}
_OPTIONAL = {"continueUrl", "notifyUrl", "extOrderId", "validityTime", "payMethods", "cardOnFile"}
_TEXTS = (_REQUIRED | _OPTIONAL) - {"products", "payMethods"}


class PayuGateway:
    """The driver of the simulator at `simulator_url`. Every order waits for its customer."""

    name = "payu"
    secrets: Sequence[str] = (_SECRET,)
    finds_lost_charges = False  # without the order's id, which comes with the notice
    limits_before_charging = True
    takes_operation_keys = False
    notify_url: str | None = None
    automatic_collection = True

    def __init__(self, simulator_url: str, unique: UniqueOrders, session: aiohttp.ClientSession) -> None:
        self.url = unique.url
        self.unique = unique
        self._simulator_url = simulator_url
        self._session = session

    def provider(self, base_url: str, *, timeout: timedelta) -> PayuProvider:
        return PayuProvider(
            base_url=f"{base_url}/payu",
            pos_id="300746",
            client_id="300746",
            client_secret=lambda: _SECRET,
            notify_url=self.notify_url,
            automatic_collection=self.automatic_collection,
            timeout=timeout,
        )

    async def payment(self, wish: Wish) -> Payment | None:
        if wish not in (Wish.APPROVED, Wish.WAITS):
            return None
        id_, now = uuid4(), datetime.now(UTC)
        return replace(
            PAYMENT,
            id=id_,
            provider_key=str(id_),
            currency="PLN",
            return_url=RETURN_URL,
            created_at=now,
            updated_at=now,
        )

    def is_charge(self, request: Recorded) -> bool:
        return request.method == "POST" and request.target.endswith("/orders")

    def is_operation(self, request: Recorded) -> bool:
        return request.method == "DELETE" or (
            request.method == "POST" and request.target.endswith(("/refunds", "/captures"))
        )

    async def money(self, payment: Payment) -> Money:
        held = captured = refunded = 0
        for order in await self.orders():
            if order["extOrderId"] == payment.provider_key:
                captured += int(order["totalAmount"]) if order["status"] == "COMPLETED" else 0
                held += int(order["totalAmount"]) if order["status"] == "WAITING_FOR_CONFIRMATION" else 0
                refunds = [one["refund"] for one in self.unique.refunds if one["orderId"] == order["orderId"]]
                refunded += sum(int(one["amount"]) for one in refunds)
        return Money(held=held, captured=captured, refunded=refunded)

    async def finish(self, pending: Pending, *, succeeded: bool) -> None:
        """Pay or reject the order on its page."""
        assert pending.next_action is None or pending.next_action.url == self._page(pending.provider_ref)
        await self.finish_order(pending.provider_ref, succeeded=succeeded)

    async def finish_order(self, order_id: str, *, succeeded: bool) -> None:
        """Pay or reject an order on its page. The simulator answers once it has sent the notice."""
        if succeeded and not self.automatic_collection:
            self.unique.held[order_id] = self._page(order_id)
            return
        form = {"action": "approve" if succeeded else "reject"}
        async with self._session.post(self._page(order_id), data=form, allow_redirects=False) as answer:
            assert 300 <= answer.status < 400
            assert answer.headers["Location"] == RETURN_URL

    def _page(self, order_id: str) -> str:
        return f"{self._simulator_url}/sim/payu/authorize/{order_id}"

    async def books(self, payment: Payment) -> Sequence[Booked]:
        """Return the payment's orders among all that the simulator has."""
        return [
            Booked(
                order["orderId"], int(order["totalAmount"]), order["currencyCode"], moved=order["status"] == "COMPLETED"
            )
            for order in await self.orders()
            if order["extOrderId"] == payment.provider_key and order["status"] != "CANCELED"
        ]

    async def orders(self) -> Sequence[Mapping[str, str]]:
        """Return all orders that are on the simulator's dashboard."""
        async with self._session.get(f"{self._simulator_url}/sim/") as answer:
            ids = re.findall(r"/sim/payu/authorize/(\w+)", await answer.text())
        headers = {"Authorization": f"Bearer {await self._token()}"}
        orders = []
        for order_id in ids:
            url = f"{self.url}/payu/api/v2_1/orders/{order_id}"
            async with self._session.get(url, headers=headers) as answer:
                orders += (await answer.json())["orders"]
        return orders

    async def notice(self, payment: Payment) -> SignedNotice:
        """Return the notice of the payment's order, signed as PayU's description says."""
        [entry] = await self.books(payment)
        order = {"orderId": entry.ref, "extOrderId": payment.provider_key, "status": "COMPLETED"}
        body = json.dumps({"order": order}).encode()
        digest = hashlib.sha256(body + SECOND_KEY.encode()).hexdigest()
        return SignedNotice(
            headers={"openpayu-signature": f"sender=checkout;signature={digest};algorithm=SHA-256;content=DOCUMENT"},
            body=body,
            secret=SECOND_KEY,
            parser=lambda keys: notice_parser(lambda: keys),
        )

    def check_request(self, request: Recorded) -> None:
        if request.target.endswith("/refunds") and request.method == "POST":
            [(name, refund)] = json.loads(request.body).items()
            assert name == "refund"
            assert refund.keys() == {"description", "amount", "currencyCode", "extRefundId"}
            assert all(isinstance(value, str) for value in refund.values())
        if not self.is_charge(request):
            return
        order = json.loads(request.body)
        assert order.keys() >= _REQUIRED
        assert order.keys() <= _REQUIRED | _OPTIONAL
        assert all(isinstance(order[name], str) for name in order.keys() & _TEXTS)
        assert [product.keys() for product in order["products"]] == [{"name", "unitPrice", "quantity"}]

    async def _token(self) -> str:
        url = f"{self._simulator_url}/payu/pl/standard/user/oauth/authorize"
        async with self._session.post(url, data={"grant_type": "client_credentials"}) as answer:
            token: str = (await answer.json())["access_token"]
        return token


@contextlib.asynccontextmanager
async def driver(simulator_url: str) -> AsyncIterator[PayuGateway]:
    """Yield the driver of a simulator that runs."""
    async with unique_orders(simulator_url) as unique, aiohttp.ClientSession() as session:
        yield PayuGateway(simulator_url, unique, session)


@contextlib.asynccontextmanager
async def gateway() -> AsyncIterator[PayuGateway]:
    """Yield the driver of a simulator that runs inside the block."""
    port = free_port()
    with TemporaryDirectory() as folder, running(payu_simulator(port=port, log=Path(folder) / "payu.log")):
        async with driver(f"http://127.0.0.1:{port}") as one:
            yield one
