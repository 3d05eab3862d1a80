"""What a generator of clients makes of the document works: its models are sent, and read."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from tests.contract.answers import the_document
from tests.okane.conftest import Api

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The module that datamodel-code-generator writes."""
    folder = tmp_path_factory.mktemp("generated")
    document, module = folder / "openapi.json", folder / "generated_models.py"
    document.write_text(json.dumps(the_document()))
    options = "--input-file-type openapi --output-model-type pydantic_v2.BaseModel --formatters builtin --use-annotated"
    command = [*options.split(), "--target-python-version", "3.11", "--input", str(document), "--output", str(module)]
    subprocess.run([sys.executable, "-m", "datamodel_code_generator", *command], check=True)
    spec = importlib.util.spec_from_file_location(module.stem, module)
    assert spec is not None
    assert spec.loader is not None
    generated = importlib.util.module_from_spec(spec)
    sys.modules[module.stem] = generated  # where pydantic looks for what the annotations name
    spec.loader.exec_module(generated)
    yield generated
    del sys.modules[module.stem]


async def test_generated_models_pay(models: Any, api: Api) -> None:
    new = models.CreatePayment(amount=440, currency="EUR", idempotency_key="k", metadata={"order": "4711"})
    async with api.client.post("/v1/payments", data=new.model_dump_json(exclude_none=True), headers=JSON) as response:
        receipt = models.Receipt.model_validate_json(await response.read())
        assert (response.status, receipt.created) == (202, True)
    async with api.client.get(f"/v1/payments/{receipt.payment.id}") as response:
        payment = models.PaymentAnswer.model_validate_json(await response.read()).payment
    assert (payment.amount, payment.currency, payment.metadata) == (440, "EUR", {"order": "4711"})
    assert payment.status is models.Status.pending
    async with api.client.get("/v1/payments", params={"limit": "1"}) as response:
        assert models.PaymentPage.model_validate_json(await response.read()).payments == [payment]
    async with api.client.post(f"/v1/payments/{payment.id}/retry") as response:
        problem = models.Problem.model_validate_json(await response.read())
    assert (problem.code, problem.payment_status) == ("status_conflict", models.Status.pending)


def test_generated_models_know_what_is_refused(models: Any) -> None:
    for wrong in ({"amount": 0}, {"amount": 1, "currency": "usd"}, {"amount": 1, "extra": 1}):
        with pytest.raises(ValidationError):
            models.CreatePayment.model_validate(wrong)
