"""The local Stripe: what Stripe World answers, and the three things that okane's script adds to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
import stripe
from aiohttp import web

from okane.local.ports import free_port
from okane.local.stripe_simulator.server import stripe_simulator
from tests.conformance.simulators import running

KEY = {"Authorization": "Bearer sk_test_conformance"}
SECRET = "whsec_conformance"


async def post(url: str, form: Mapping[str, str], key: str | None = None) -> tuple[int, dict[str, Any]]:
    headers = KEY if key is None else {**KEY, "Idempotency-Key": key}
    async with aiohttp.ClientSession() as session, session.post(url, data=form, headers=headers) as answer:
        return answer.status, await answer.json()


async def get(url: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(url, headers=KEY) as answer:
        return await answer.json()


def charge(payment_id: str, method: str = "pm_card_visa", **more: str) -> dict[str, str]:
    fields = {"amount": "1000", "currency": "pln", "confirm": "true", "metadata[payment_id]": payment_id}
    return {**fields, "payment_method": method, **more}


async def journal(url: str) -> dict[str, list[int]]:
    """The amounts that were captured, by payment."""
    found: dict[str, list[int]] = {}
    async with aiohttp.ClientSession() as session, session.get(f"{url}/journal") as answer:
        for line in (await answer.text()).splitlines():
            entry = json.loads(line)
            found.setdefault(entry["payment_id"], []).append(entry["amount"])
    return found


async def test_a_charge_under_one_key_is_one_payment_intent_in_the_list_and_in_the_journal(stripe_url: str) -> None:
    payment, intents = str(uuid4()), f"{stripe_url}/v1/payment_intents"
    first = await post(intents, charge(payment), key=payment)
    again = await post(intents, charge(payment), key=payment)
    assert first == again
    assert first[1]["status"] == "succeeded"
    listed = (await get(f"{intents}?limit=100"))["data"]
    assert [one["id"] for one in listed if one["metadata"].get("payment_id") == payment] == [first[1]["id"]]
    assert (await journal(stripe_url))[payment] == [1000]


async def test_an_unknown_test_payment_method_is_refused_as_stripe_does(stripe_url: str) -> None:
    status, answer = await post(f"{stripe_url}/v1/payment_intents", charge(str(uuid4()), "pm_card_nonesuch"))
    assert (status, answer["error"]["code"]) == (400, "resource_missing")


@pytest.mark.parametrize(
    ("outcome", "status", "captured"), [("succeeded", "succeeded", [1000]), ("failed", "requires_payment_method", [])]
)
async def test_a_customer_completes_or_fails_3_d_secure_on_a_page(
    stripe_url: str, outcome: str, status: str, captured: list[int]
) -> None:
    payment, intents = str(uuid4()), f"{stripe_url}/v1/payment_intents"
    form = charge(payment, "pm_card_threeDSecure2Required", return_url="http://127.0.0.1/back")
    _, intent = await post(intents, form)
    assert intent["status"] == "requires_action"
    page = intent["next_action"]["redirect_to_url"]["url"]
    assert (await get(f"{intents}/{intent['id']}"))["next_action"] == intent["next_action"]
    async with aiohttp.ClientSession() as session:
        async with session.get(page) as shown:
            assert "Authenticate pi_" in await shown.text()
        async with session.post(page, data={"outcome": outcome}, allow_redirects=False) as done:
            assert (done.status, done.headers["Location"]) == (303, "http://127.0.0.1/back")
    assert (await get(f"{intents}/{intent['id']}"))["status"] == status
    assert (await journal(stripe_url)).get(payment, []) == captured


async def test_the_account_is_there_again_after_a_restart(tmp_path: Path) -> None:
    paid, waiting = str(uuid4()), str(uuid4())
    form = charge(waiting, "pm_card_threeDSecure2Required", return_url="http://127.0.0.1/back")
    port = free_port()
    simulator = stripe_simulator(port=port, log=tmp_path / "stripe.log", data=tmp_path / "account")
    intents = f"http://127.0.0.1:{port}/v1/payment_intents"
    with running(simulator):
        before = await post(intents, charge(paid), key=paid)
        _, pending = await post(intents, form, key=waiting)
    with running(simulator):
        assert await post(intents, charge(paid), key=paid) == before
        assert (await get(f"{intents}/{pending['id']}"))["next_action"] == pending["next_action"]
        assert (await journal(f"http://127.0.0.1:{port}")) == {paid: [1000]}
    with running(simulator):
        assert len((await get(f"{intents}?limit=10"))["data"]) == 2
    assert len(list((tmp_path / "account").glob("account-*"))) == 1


async def test_an_account_that_cannot_be_read_gives_way_to_an_empty_one(tmp_path: Path) -> None:
    port = free_port()
    simulator = stripe_simulator(port=port, log=tmp_path / "stripe.log", data=tmp_path / "account")
    (tmp_path / "account" / "account-7").mkdir(parents=True)
    (tmp_path / "account" / "account-7" / "state.sqlite").write_bytes(b"rubbish")
    with running(simulator):
        assert (await get(f"http://127.0.0.1:{port}/v1/payment_intents"))["data"] == []
    assert "beginning with an empty one" in (tmp_path / "stripe.log").read_text()
    with running(simulator):
        assert (await get(f"http://127.0.0.1:{port}/v1/payment_intents"))["data"] == []


async def test_a_webhook_is_signed_and_sent_again_until_it_is_taken(tmp_path: Path) -> None:
    arrived: list[tuple[str, bytes]] = []
    both = asyncio.Event()

    async def take(request: web.Request) -> web.Response:
        arrived.append((request.headers["Stripe-Signature"], await request.read()))
        if len(arrived) == 1:
            return web.Response(status=503)
        both.set()
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    port = free_port()
    simulator = stripe_simulator(
        port=port,
        log=tmp_path / "stripe.log",
        webhook_url=f"http://127.0.0.1:{runner.addresses[0][1]}/hook",
        webhook_secret=secret,
    )
    try:
        with running(simulator):
            payment = str(uuid4())
            await post(f"http://127.0.0.1:{port}/v1/payment_intents", charge(payment))
            await asyncio.wait_for(both.wait(), 30)
    finally:
        await runner.cleanup()
    (header, body), (_, again) = arrived
    assert body == again
    event = json.loads(body)
    assert event["type"] == "payment_intent.succeeded"
    assert event["data"]["object"]["metadata"] == {"payment_id": payment}
    # Stripe's own package takes it for a webhook of Stripe's.
    assert stripe.WebhookSignature.verify_header(body.decode(), header, SECRET, 300)
