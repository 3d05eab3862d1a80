"""Answers about payments that were archived: 410 by the time in their ids, in the API, the client and the console."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from typer.testing import CliRunner

from okane.archive.archive import archive
from okane.cli import app
from okane.client import Archived, Client
from okane.payment_id import PaymentId
from okane.store.partition_bounds import DAY, lowest_id
from okane.store.partition_conversion import convert
from tests.okane.api_requests import get, post
from tests.okane.served_api import Api

NOW = datetime.now(UTC)


def id_of(at: datetime) -> UUID:
    return UUID(int=lowest_id(at).int | PaymentId().int & (1 << 80) - 1)


@pytest.fixture
def archived(database_url: str, tmp_path: Path) -> UUID:
    """A payment that was archived, and its database."""
    an_id = id_of(NOW - 100 * DAY)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO payments (id, account_id, idempotency_key, fingerprint, amount_minor, currency, lane, provider_key,"
            " status, created_at) VALUES (%s, 'default', 'k', 'f', 440, 'USD', 'low', 'k', 'success', %s)",
            (an_id, NOW - 100 * DAY),
        )
        convert(connection, every=50 * DAY, ahead=150 * DAY, now=NOW - 100 * DAY, pause_s=0.01)
        [one] = archive(connection, tmp_path, before=NOW - 40 * DAY).manifests
        assert one.tables["payments"].rows == 1
    return an_id


async def test_every_route_about_it_answers_410(archived: UUID, api: Api) -> None:
    path = f"/v1/payments/{archived}"
    key = {"Idempotency-Key": str(uuid4())}
    answers: list[tuple[Any, Any]] = [
        await get(api, path),
        await get(api, f"/payments/{archived}"),
        await get(api, f"{path}/events"),
        await get(api, f"{path}/attempts"),
        await get(api, f"{path}/operations"),
        await post(api, f"{path}/retry", ""),
        await post(api, f"{path}/cancel", ""),
        await post(api, f"{path}/capture", "{}", **key),
        await post(api, "/v1/refunds", f'{{"payment": "{archived}"}}', **key),
    ]
    assert [(response.status, body["code"]) for response, body in answers] == [(410, "archived")] * len(answers)
    assert str(archived) in answers[0][1]["detail"]


async def test_the_time_in_the_id_decides(archived: UUID, api: Api) -> None:
    response, body = await get(api, f"/v1/payments/{id_of(NOW - 200 * DAY)}")  # never made
    assert (response.status, body["code"]) == (410, "archived")
    response, body = await get(api, f"/v1/payments/{id_of(NOW)}")
    assert (response.status, body["code"]) == (404, "payment_not_found")


async def test_its_key_makes_a_new_payment(archived: UUID, api: Api) -> None:
    response, body = await post(api, "/v1/payments", '{"amount": 440, "idempotency_key": "k"}')
    assert (response.status, body["created"]) == (202, True)
    assert UUID(body["payment"]["id"]) != archived


async def test_the_client_raises_archived(archived: UUID, api: Api) -> None:
    async with Client(api.url) as client:
        with pytest.raises(Archived):
            await client.payment(archived)


async def test_a_look_up_for_a_review_says_so(
    archived: UUID, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    result = await asyncio.to_thread(CliRunner().invoke, app, ["review", "show", str(archived)])
    assert "were archived" in str(result.exception)
