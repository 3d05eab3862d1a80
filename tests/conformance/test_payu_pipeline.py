"""Payments through real processes and PayU's simulator: pages, notices, lost calls and a worker that is killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from okane.client import NewPayment
from tests.conformance import payu
from tests.conformance.fault_proxy import LOST_ANSWER, LOST_REQUEST, FaultProxy
from tests.conformance.payu_simulator import SECOND_KEY
from tests.flow.system import System, running

PAYMENTS = 30
MAX_CALLS = 300
# The answer of an order that was made is lost, or the order itself.
FAULTS = (LOST_ANSWER, LOST_REQUEST) * 4
FILE = """
[providers.payu]
kind = "payu"
base_url = "{base_url}/payu"
pos_id = "300746"
client_id = "300746"
client_secret = "conformance-client-secret"
second_keys = ["{second_key}"]
notify_url = "{api_url}/v1/providers/payu/webhook"
timeout = "1s"
consistency_lag = "1s"
"""


async def test_lost_calls_and_a_killed_worker_make_no_second_order_and_lose_none(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    async with (
        payu.gateway() as gateway,
        FaultProxy(gateway.url) as proxy,
        running(tmp_path / "system", database_url, redis_url) as system,
    ):
        for fault in FAULTS:
            proxy.strike(fault, gateway.is_charge)
        file = tmp_path / "providers.toml"
        file.write_text(FILE.format(base_url=proxy.url, second_key=SECOND_KEY, api_url=system.url))
        system.env["OKANE_PROVIDERS_FILE"] = str(file)
        await asyncio.gather(system.start_api(), *(system.start_worker(name) for name in ("w1", "w2")))
        customers = asyncio.create_task(_pay_all_pages(gateway))
        try:
            ids = [await _accepted(system, number) for number in range(PAYMENTS // 2)]
            await system.kill("w1")
            ids += [await _accepted(system, number) for number in range(PAYMENTS // 2, PAYMENTS)]
            counts = await system.settled(ids, within_s=60)
            assert not customers.done(), customers  # it has failed
        finally:
            customers.cancel()
        assert proxy.is_healed
        assert len(proxy.requests) <= MAX_CALLS
        assert counts.keys() == {"success", "failed_final"}
        listed = await gateway.orders()
        assert Counter(order["extOrderId"] for order in listed) == Counter(ids)
        orders = {order["extOrderId"]: order for order in listed}
        for id_ in ids:
            payment = await system.payment(id_)
            expected = {"success": "COMPLETED", "failed_final": "CANCELED"}[payment["status"]]
            assert (orders[id_]["status"], orders[id_]["orderId"]) == (expected, payment["provider_ref"])


async def _accepted(system: System, number: int) -> str:
    new = NewPayment(amount=440 + number, currency="PLN", idempotency_key=f"payu-{number}", return_url=payu.RETURN_URL)
    return str((await system.client.pay(new)).payment.id)


async def _pay_all_pages(gateway: payu.PayuGateway) -> None:
    """Pay the orders as they come; reject one of five. A customer acts only after a moment."""
    seen = 0
    while True:
        for order in await gateway.orders():
            if order["status"] == "PENDING":
                seen += 1
                await gateway.finish_order(order["orderId"], succeeded=seen % 5 != 0)
        await asyncio.sleep(0.2)
