"""Card numbers in requests: refused in every member, never repeated, and no payment is made."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from okane.api.card_guard import check_resolution, may_be_refused, payment_refusal
from okane.api.problems import Problem
from okane.cli import app
from okane.time_slice import TimeSlice
from tests.okane.api_requests import JSON, rows
from tests.okane.served_api import Api
from tests.okane.stored_payments import new

CARD = "4242424242424242"
SPACED = "4242 4242 4242 4242"


async def sent(api: Api, path: str, body: str, **headers: str) -> tuple[int, str]:
    async with api.client.post(path, data=body.encode(), headers=JSON | headers) as response:
        return response.status, await response.text()


@pytest.mark.parametrize("path", ["/v1/payments", "/payments", "/pay"])
@pytest.mark.parametrize(
    ("members", "pointer"),
    [
        ({"idempotency_key": CARD}, "/idempotency_key"),
        ({"idempotency_key": "4242-4242-4242-4242"}, "/idempotency_key"),
        ({"metadata": {"card": CARD}}, "/metadata/card"),
        ({"metadata": {"a/b": f"paid with {SPACED} 12/27"}}, "/metadata/a~1b"),
        ({"metadata": {CARD: "x"}}, "/metadata"),
        ({"metadata": {CARD: CARD}}, "/metadata"),
    ],
)
async def test_a_card_number_in_a_member_is_refused(api: Api, path: str, members: dict[str, Any], pointer: str) -> None:
    body = {"amount": 440, "idempotency_key": "k", **members}
    plain = json.dumps(body)
    escaped = re.sub('"[^"]*"', lambda text: text[0].replace("4", "\\u0034"), plain)
    for text in (plain, escaped):
        status, answer = await sent(api, path, text)
        problem = json.loads(answer)
        assert (status, problem["code"], problem["errors"][0]["pointer"]) == (422, "card_number", pointer)
        assert "4242" not in answer
    assert await rows(api) == 0


async def test_a_card_number_in_the_header_is_refused(api: Api) -> None:
    status, answer = await sent(api, "/v1/payments", '{"amount": 440}', **{"Idempotency-Key": f'"{CARD}"'})
    assert (status, json.loads(answer)["code"], CARD in answer) == (422, "card_number", False)


@pytest.mark.parametrize("lines", [False, True])
async def test_one_item_of_a_batch_is_refused(api: Api, lines: bool) -> None:
    items = [{"amount": 440, "idempotency_key": key} for key in ("a", CARD, "b")]
    body = "\n".join(map(json.dumps, items)) if lines else json.dumps(items)
    headers = {"Content-Type": "application/x-ndjson"} if lines else {}
    status, answer = await sent(api, "/v1/payments/batch", body, **headers)
    results = json.loads(answer)["results"]
    assert (status, [one["status"] for one in results]) == (207, [202, 422, 202])
    assert results[1]["problem"]["code"] == "card_number"
    assert CARD not in answer


async def test_a_request_id_that_is_a_card_number_is_replaced(api: Api) -> None:
    for path, method in (("/v1/payments", "POST"), ("/v1/health", "GET")):
        async with api.client.request(
            method, path, data=b'{"amount": 1, "idempotency_key": "k"}', headers=JSON | {"X-Request-Id": CARD}
        ) as response:
            assert response.status in (200, 202)
            assert response.headers["X-Request-Id"] != CARD


async def test_a_payment_without_one_is_taken() -> None:
    assert await payment_refusal(new("550e8400-e29b-41d4-a716-446655440000"), TimeSlice()) is None
    assert not may_be_refused(new("order-1"))


@pytest.mark.parametrize(
    ("member", "text", "pointer"),
    [
        ("payment_method", CARD, "/payment_method"),
        ("return_url", f"https://shop.example/{CARD}", "/return_url"),
        ("requested_provider", f"p-{CARD}", "/provider"),
    ],
)
async def test_a_card_number_in_a_text_for_the_gateway_is_refused(member: str, text: str, pointer: str) -> None:
    payment = replace(new("k"), **{member: text})  # type: ignore[arg-type]  # each is a text
    assert may_be_refused(payment)
    problem = await payment_refusal(payment, TimeSlice())
    assert problem is not None
    assert [error.document()["pointer"] for error in problem.errors] == [pointer]


@pytest.mark.parametrize(
    ("reason", "ref", "pointers"),
    [
        (f"card {SPACED}", None, ["/reason"]),
        ("found", CARD, ["/provider_ref"]),
        (CARD, CARD, ["/reason", "/provider_ref"]),
    ],
)
def test_a_card_number_in_a_decision_is_refused(reason: str, ref: str | None, pointers: list[str]) -> None:
    with pytest.raises(Problem) as refused:
        check_resolution(reason, ref)
    assert [error.document()["pointer"] for error in refused.value.errors] == pointers


def test_a_reference_of_digits_that_no_issuer_has_is_taken() -> None:
    check_resolution("found", "8835511210681326")  # passes the check


@pytest.mark.parametrize(
    "arguments",
    [
        ("review", "resolve", "x", "--as", "success", "--reason", SPACED, "--yes"),
        ("review", "resolve", "x", "--as", "success", "--reason", "found", "--provider-ref", CARD, "--yes"),
        ("keys", "create", "--name", CARD),
        ("providers", "drain", "stripe", "--reason", SPACED),
    ],
)
def test_commands_refuse_a_card_number(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code != 0
    assert "looks like the number of a card" in done.output + str(done.exception)
