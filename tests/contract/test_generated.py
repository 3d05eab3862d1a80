"""A client that is generated from the document works: it pays, reads the payment, and gets problems."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from okane.api.access import KeyAccess
from okane.api_key import Mode
from tests.contract.answers import the_document
from tests.okane.api_keys import make, store
from tests.okane.served_api import Api, serve_api

__all__ = ["store"]

PACKAGE = "generated_client"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModuleType]:
    """Imports a module of the package that openapi-python-client writes."""
    folder = tmp_path_factory.mktemp("generated")
    document, config = folder / "openapi.json", folder / "config.json"
    document.write_text(json.dumps(the_document()))
    config.write_text(json.dumps({"post_hooks": []}))
    command = [str(Path(sys.executable).parent / "openapi-python-client"), "generate", "--meta", "none"]
    subprocess.run([*command, "--path", document, "--config", config, "--output-path", folder / PACKAGE], check=True)
    sys.path.insert(0, str(folder))
    try:
        importlib.import_module(PACKAGE)
    finally:
        sys.path.remove(str(folder))
    return lambda name: importlib.import_module(f"{PACKAGE}.{name}")


@pytest.fixture
async def api(database_url: str, redis_url: str, store: Any) -> AsyncIterator[Api]:
    async for one in serve_api(database_url, redis_url, KeyAccess(store, mode=Mode.TEST, cache_s=0.0)):
        yield one


async def test_a_generated_client_pays(generated: Callable[[str], Any], api: Api, store: Any) -> None:
    models, payments = generated("models"), generated("api.payments")
    for name in ("create_payment", "get_payment", "list_payments", "list_events", "retry_payment"):
        generated(f"api.payments.{name}")
    key = await make(store, "shop")
    client = generated("client").AuthenticatedClient(api.url, token=key, raise_on_unexpected_status=True)
    async with client:
        new = models.CreatePayment(amount=440, currency=models.Currency.EUR, idempotency_key="k")
        new.metadata = models.CreatePaymentMetadata.from_dict({"order": "4711"})
        receipt = await payments.create_payment.asyncio(client=client, body=new)
        assert (type(receipt), receipt.created) == (models.Receipt, True)
        again = await payments.create_payment.asyncio(client=client, body=new)
        assert (again.created, again.payment.id) == (False, receipt.payment.id)

        answer = await payments.get_payment.asyncio(receipt.payment.id, client=client)
        payment = answer.payment
        assert (payment.amount, payment.currency, payment.status) == (440, models.Currency.EUR, models.Status.PENDING)
        assert payment.metadata.to_dict() == {"order": "4711"}
        page = await payments.list_payments.asyncio(client=client, currency=models.Currency.EUR, limit=1)
        assert (page.payments, page.has_more) == ([payment], False)
        events = await payments.list_events.asyncio(receipt.payment.id, client=client)
        assert [event.event for event in events.events] == ["accepted"]

        problem = await payments.retry_payment.asyncio(receipt.payment.id, client=client)
        assert (type(problem), problem.code, problem.payment_status) == (
            models.Problem,
            "status_conflict",
            models.Status.PENDING,
        )
        refused = await payments.create_payment.asyncio(
            client=client, body=models.CreatePayment(amount=0, idempotency_key="z")
        )
        assert [(wrong.pointer, wrong.code) for wrong in refused.errors] == [("/amount", "greater_than")]
