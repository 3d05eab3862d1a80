"""A refund that fails after it succeeded, and a dispute: the notices of the mock provider tell of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from tests.flow.system import System

SECRET = "the-secret-of-the-mock-provider"


async def until(ask: Callable[[], Any], condition: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(30):
        while not condition(answer := await ask()):
            await asyncio.sleep(0.05)
        return answer


async def start(system: System, folder: Path, *options: str) -> None:
    """Start everything with a providers file, and the mock's notices sent to the API."""
    file = folder / "providers.toml"
    file.write_text(
        f'[providers.http]\nkind = "okane_http"\nbase_url = "{system.provider_url}"\nwebhook_secrets = ["{SECRET}"]\n'
        'timeout = "1s"\nconsistency_lag = "100ms"\n'
    )
    system.env |= {"OKANE_PROVIDERS_FILE": str(file)}
    url = f"{system.url}/v1/providers/http/webhook"
    always = ("--unavailable", "0", "--decline", "0")
    await system.start("w1", provider=(*always, "--notify-url", url, "--notify-secret", SECRET, *options))


async def test_a_refund_that_fails_after_it_succeeded_gives_back_what_it_had_reserved(
    system: System, tmp_path: Path
) -> None:
    await start(system, tmp_path, "--failing-refunds", "1", "--refund-delay-s", "1")
    [payment_id] = await system.pay(1)
    await system.settled([payment_id])
    refund_id = await system.refund(payment_id, 440, "r-1")

    async def refund() -> str:
        status, body = await system.ask("GET", f"/v1/refunds/{refund_id}")
        assert status == 200, body
        return str(body["refund"]["status"])

    await until(refund, lambda status: status == "failed_final")
    payment = await system.payment(payment_id)
    assert not payment.get("amount_refunded")
    await system.control_provider(failing_refunds=0)
    again = await system.refund(payment_id, 440, "r-2")  # the reserve is free
    await until(
        lambda: system.ask("GET", f"/v1/refunds/{again}"), lambda told: told[1]["refund"]["status"] == "success"
    )
    _, body = await system.ask("GET", f"/v1/payments/{payment_id}/events")
    names = [event["event"] for event in body["events"]]
    assert [name for name in names if name.startswith("refund")] == [
        "refund_requested",
        "refunded",
        "refund_failed",
        "refund_requested",
        "refunded",
    ]


async def test_a_dispute_of_the_mock_provider_is_listed_until_it_is_lost(system: System, tmp_path: Path) -> None:
    await start(system, tmp_path)
    [payment_id] = await system.pay(1)
    await system.settled([payment_id])
    [charge] = await system.journal()

    async def post(path: str, body: dict[str, str]) -> Any:
        async with aiohttp.ClientSession() as http, http.post(f"{system.provider_url}{path}", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def disputes() -> Any:
        status, body = await system.ask("GET", "/v1/disputes")
        assert status == 200, body
        return body["disputes"]

    opened = await post("/disputes", {"charge": charge["key"], "reason": "product_not_received"})
    [dispute] = await until(disputes, bool)
    assert (dispute["payment"], dispute["amount"], dispute["status"]) == (payment_id, 440, "needs_response")
    await post(f"/disputes/{opened['dispute']}", {"status": "lost"})
    await until(disputes, lambda listed: listed[0]["status"] == "lost")
