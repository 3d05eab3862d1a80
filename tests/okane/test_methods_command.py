"""`okane methods` and the client's payment methods, against a served API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from okane.cli import app
from okane.client import Client, Invalid, KeyReused, NewPayment, NewPaymentMethod, NotFound
from tests.okane.served_api import Api, serve_api

CARD = NewPaymentMethod(
    tokens={"stripe": "pm_secret"},
    kind="card",
    idempotency_key="m-1",
    brand="visa",
    last4="4242",
    expires="2028-04",
    customer="c-17",
)


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Api]:
    async for one in serve_api(database_url, redis_url, providers=("stripe",)):
        yield one


@pytest.fixture
async def client(api: Api) -> AsyncIterator[Client]:
    async with Client(api.url, patience_s=2.0) as one:
        yield one


async def test_the_client_saves_lists_charges_and_deletes_a_method(client: Client) -> None:
    methods = client.payment_methods
    saved = await methods.save(CARD)
    assert saved == await methods.save(CARD) == await methods.get(str(saved.id))
    assert (saved.kind, saved.brand, saved.last4, saved.expires) == ("card", "visa", "4242", "2028-04")
    assert (saved.customer, saved.providers, saved.deleted_at) == ("c-17", ["stripe"], None)
    assert "secret" not in f"{CARD}{saved}"
    assert [one async for one in methods.list(customer="c-17")] == [saved]
    assert [one async for one in methods.list(customer="c-18")] == []
    with pytest.raises(KeyReused) as reused:
        await methods.save(NewPaymentMethod(tokens={"stripe": "pm_2"}, kind="card", idempotency_key="m-1"))
    assert (reused.value.payment_method_id, reused.value.payment_id) == (saved.id, None)
    new = NewPayment(amount=1, idempotency_key="p", payment_method=str(saved.id), customer_present=False)
    assert (await client.pay(new)).payment.payment_method == str(saved.id)
    await methods.delete(saved.id)
    assert (await methods.get(saved.id)).deleted_at is not None
    assert [one async for one in methods.list()] == []
    with pytest.raises(Invalid, match="payment_method_unknown"):
        await client.pay(NewPayment(amount=1, idempotency_key="p-2", payment_method=str(saved.id)))
    with pytest.raises(NotFound):
        await methods.delete(uuid4())


async def test_the_commands_list_show_and_delete_methods(
    api: Api, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    async def run(*words: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, app, ["methods", *words, "--url", api.url])
        return result.output if result.exit_code == 0 else f"{result.exception} {result.stderr}"

    assert await run("ls") == "no payment methods\n"
    saved = await client.payment_methods.save(CARD)
    for words in (("ls",), ("ls", "--customer", "c-17"), ("show", str(saved.id))):
        assert await run(*words) == f"{saved.id}  card  visa  …4242  until 2028-04  stripe  customer c-17\n"
    [listed] = json.loads(await run("ls", "--json"))["payment_methods"]
    assert listed == json.loads(await run("show", str(saved.id), "--json"))
    assert listed["last4"] == "4242"
    assert str(saved.id) in await run("rm", str(saved.id))  # asks, and has nothing to read the answer from
    assert (await client.payment_methods.get(saved.id)).deleted_at is None
    assert f"deleted {saved.id}" in await run("rm", str(saved.id), "--yes")
    assert "deleted 20" in await run("show", str(saved.id))
    assert "payment_method_not_found" in await run("show", str(uuid4()))
    assert "is not a payment method's id" in await run("show", "pm_1")
