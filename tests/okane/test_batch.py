"""Batches of payments: each item has its own result, and no item affects another."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence
from typing import Any

import aiohttp
import pytest

from okane.api import batch
from okane.errors import StoreUnavailable
from okane.intake.accept import PaymentIntake, WrittenRows
from okane.store import NewPayment
from tests.okane.api_requests import BAD, JSON, post, rows
from tests.okane.served_api import Api

PATH = "/v1/payments/batch"
LINES = {"Content-Type": "application/x-ndjson"}


def item(key: str, **members: object) -> dict[str, object]:
    return {"amount": 440, "idempotency_key": key} | members


async def sent(api: Api, body: str | bytes, **headers: str) -> tuple[aiohttp.ClientResponse, Any]:
    data = io.BytesIO(body.encode() if isinstance(body, str) else body)
    async with api.client.post(PATH, data=data, headers=JSON | headers) as response:
        return response, await response.json(content_type=None)


def written(items: Sequence[object], *, lines: bool) -> tuple[str, dict[str, str]]:
    texts = [json.dumps(one) for one in items]
    return ("\n".join(texts) + "\n\n", LINES) if lines else (f"[{','.join(texts)}]", {})


@pytest.mark.parametrize("lines", [False, True])
async def test_each_item_is_accepted_repeated_or_refused_for_itself(api: Api, lines: bool) -> None:
    await post(api, "/v1/payments", json.dumps(item("known")))
    await post(api, "/v1/payments", json.dumps(item("taken", amount=1)))
    items = [
        item("a"),
        item("known"),
        item("bad", amount=0),
        item("taken"),
        {"amount": 5},
        7,
        item("b", currency="EUR"),
    ]
    body, headers = written(items, lines=lines)
    response, answer = await sent(api, body, **headers)
    assert (response.status, answer["accepted"], answer["refused"]) == (207, 3, 4)
    results = answer["results"]
    assert [one["status"] for one in results] == [202, 200, 422, 422, 400, 400, 202]
    assert [one["problem"]["code"] for one in results if "problem" in one] == [
        "validation_failed",
        "idempotency_key_reused",
        "idempotency_key_missing",
        "body_not_an_object",
    ]
    assert results[0] == {"status": 202, "payment": results[0]["payment"], "created": True, "enqueued": True}
    assert results[0]["payment"]["idempotency_key"] == "a"
    assert (results[1]["created"], results[1]["payment"]["idempotency_key"]) == (False, "known")
    assert results[2]["problem"]["errors"][0]["pointer"] == "/amount"
    assert results[6]["payment"]["currency"] == "EUR"
    assert await rows(api) == 4
    assert response.headers["X-Request-Id"]


async def test_a_thousand_are_accepted_at_once_and_again(api: Api) -> None:
    body, _ = written([item(f"k{number}", metadata={"n": str(number)}) for number in range(1_000)], lines=False)
    _, first = await sent(api, body)
    assert [one["status"] for one in first["results"]] == [202] * 1_000
    _, second = await sent(api, body)
    assert [one["status"] for one in second["results"]] == [200] * 1_000
    assert [one["payment"]["id"] for one in first["results"]] == [one["payment"]["id"] for one in second["results"]]
    assert await rows(api) == 1_000


async def test_equal_batches_at_the_same_time_make_each_payment_once(api: Api) -> None:
    body, _ = written([item(f"k{number}") for number in range(300)], lines=False)
    answers = await asyncio.gather(*(sent(api, body) for _ in range(4)))
    for at in range(300):
        results = [answer["results"][at] for _, answer in answers]
        assert sorted(one["status"] for one in results) == [200, 200, 200, 202]
        assert len({one["payment"]["id"] for one in results}) == 1
    assert await rows(api) == 300


async def test_one_key_twice_in_a_batch_is_one_payment_or_a_conflict(api: Api) -> None:
    body, _ = written([item("k"), item("k"), item("k", amount=5)], lines=False)
    _, answer = await sent(api, body)
    assert [one["status"] for one in answer["results"]] == [202, 200, 422]
    assert answer["results"][2]["problem"]["payment_id"] == answer["results"][0]["payment"]["id"]
    assert await rows(api) == 1


SINGLE = [(body, status, code) for body, status, code in BAD if code != "body_not_an_object" and body]


@pytest.mark.parametrize(("body", "status", "code"), SINGLE, ids=[str(body)[:40] for body, _, _ in SINGLE])
async def test_a_bad_line_is_refused_as_it_would_be_alone_and_harms_no_other(
    api: Api, body: str | bytes, status: int, code: str
) -> None:
    raw = body if isinstance(body, bytes) else body.encode()
    good = json.dumps(item("good")).encode()
    response, answer = await sent(api, good + b"\n" + raw + b"\r\n" + good, **LINES)
    assert response.status == 207
    assert [one["status"] for one in answer["results"]] == [202, status, 200]
    assert answer["results"][1]["problem"]["code"] == code
    assert await rows(api) == 1


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        ("", {}, 400, "json_invalid"),
        ("{", {}, 400, "json_invalid"),
        ('{"amount": 1}', {}, 400, "body_not_an_array"),
        ('[{"amount": 1, "amount": 2}]', {}, 400, "json_duplicate_name"),
        ("[" * 9 + "]" * 9, {}, 400, "json_too_deep"),
        ("[]", {}, 422, "batch_size"),
        ("", LINES, 422, "batch_size"),
        ("\n\n", LINES, 422, "batch_size"),
        (f"[{','.join('1' * 1_001)}]", {}, 422, "batch_size"),
        ("1\n" * 1_001, LINES, 422, "batch_size"),
        ("[]", {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        ("[]", {"Content-Type": "application/x-ndjson; charset=utf-16"}, 415, "unsupported_media_type"),
        ("[]", {"Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
        ("[]", {"Idempotency-Key": "k"}, 400, "idempotency_key_misplaced"),
        (" " * (batch.MAX_BYTES + 1), {}, 413, "body_too_large"),
    ],
)
async def test_a_body_that_is_not_a_batch_is_one_problem(
    api: Api, body: str, headers: dict[str, str], status: int, code: str
) -> None:
    response, problem = await sent(api, body, **headers)
    assert (response.status, problem["code"]) == (status, code)
    assert response.content_type == "application/problem+json"
    assert await rows(api) == 0


async def test_a_body_that_grows_too_large_without_saying_so_is_refused(api: Api) -> None:
    async def pieces() -> Any:
        for _ in range(20):
            yield b" " * (batch.MAX_BYTES // 10)

    async with api.client.post(PATH, data=pieces(), headers=JSON) as response:
        assert response.status == 413


async def test_items_may_be_as_large_as_alone_and_no_larger_batch_is_needed(api: Api) -> None:
    body, _ = written([item(f"k{n}", metadata={f"m{m}": "v" * 500 for m in range(50)}) for n in range(30)], lines=False)
    assert 64 * 1024 < len(body) < batch.MAX_BYTES
    _, answer = await sent(api, body)
    assert answer["accepted"] == 30


@pytest.mark.parametrize(("failing", "status"), [(("a", "b"), 503), (("b",), 207)])
async def test_a_batch_without_a_database_is_refused_as_a_whole(
    api: Api, monkeypatch: pytest.MonkeyPatch, failing: Sequence[str], status: int
) -> None:
    write = PaymentIntake.write

    async def half(self: PaymentIntake, news: Sequence[NewPayment]) -> WrittenRows:
        written = await write(self, news)
        rows = [
            StoreUnavailable("away") if new.idempotency_key in failing else row
            for new, row in zip(news, written.rows, strict=True)
        ]
        return WrittenRows(rows, written.wakes)

    monkeypatch.setattr(PaymentIntake, "write", half)
    body, _ = written([item("a"), item("b")], lines=False)
    response, answer = await sent(api, body)
    assert response.status == status
    problem = answer if status == 503 else answer["results"][1]["problem"]
    assert (problem["code"], problem["retryable"]) == ("store_unavailable", True)
