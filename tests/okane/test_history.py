"""The history of a payment in the API: its events and its attempts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from typer.testing import CliRunner

from okane.cli import app
from okane.payment import Status
from okane.store import Claim, actor_kind, is_reserved_name
from tests.okane.api_requests import get, post
from tests.okane.served_api import Api
from tests.okane.stored_payments import execute, settlement

SOON = timedelta(0)
UNKNOWN_ID = "01890000-0000-7000-8000-000000000000"


async def made(api: Api) -> str:
    _, body = await post(api, "/v1/payments", '{"amount": 440, "idempotency_key": "k"}')
    return str(body["payment"]["id"])


async def attempt(api: Api, payment_id: str, status: Status, **more: object) -> None:
    claim = await api.store.claim(UUID(payment_id))
    assert isinstance(claim, Claim)
    await api.store.settle(settlement(claim.payment, status, **more))


async def all_of(api: Api, path: str, name: str, *, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query = f"limit={limit}"
    while True:
        response, body = await get(api, f"{path}?{query}")
        assert response.status == 200
        assert len(body[name]) <= limit
        found += body[name]
        assert body["has_more"] == ("Link" in response.headers)
        if not body["has_more"]:
            return found
        query = f"limit={limit}&after={body['after']}"


async def tried(api: Api) -> str:
    """A payment that was refused, looked up and found, after a worker died."""
    payment_id = await made(api)
    await attempt(api, payment_id, Status.FAILED_RETRYABLE, event="unavailable", reason="HTTP 503", delay=SOON)
    await api.store.claim(UUID(payment_id))
    await execute(api.store._group._url, "UPDATE payments SET lease_until = now() WHERE id = %s", [payment_id])
    await attempt(api, payment_id, Status.SUCCESS, call="look_up")
    return payment_id


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_the_timeline_tells_all_in_order(api: Api, limit: int) -> None:
    payment_id = await tried(api)
    events = await all_of(api, f"/v1/payments/{payment_id}/events", "events", limit=limit)
    assert [(one["version"], one["event"], one["status"], one["attempt"]) for one in events] == [
        (0, "accepted", "pending", 0),
        (1, "claimed", "processing", 1),
        (2, "unavailable", "failed_retryable", 1),
        (3, "claimed", "processing", 2),
        (4, "claimed", "processing", 3),
        (5, "success", "success", 3),
    ]
    assert events[2] == {
        "version": 2,
        "at": events[2]["at"],
        "event": "unavailable",
        "status": "failed_retryable",
        "attempt": 1,
        "actor": "api",  # this test's own store
        "provider": "test",
        "call": "charge",
        "reason": "HTTP 503",
        "latency_ms": 5,
    }
    assert [one["at"] for one in events] == sorted(one["at"] for one in events)


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_every_attempt_is_told_with_its_outcome(api: Api, limit: int) -> None:
    payment_id = await tried(api)
    attempts = await all_of(api, f"/v1/payments/{payment_id}/attempts", "attempts", limit=limit)
    times = [(one.pop("began_at"), one.pop("ended_at", None)) for one in attempts]
    assert attempts == [
        {
            "attempt": 1,
            "outcome": "unavailable",
            "provider": "test",
            "call": "charge",
            "reason": "HTTP 503",
            "latency_ms": 5,
        },
        {"attempt": 2, "outcome": "lost"},
        {"attempt": 3, "outcome": "success", "provider": "test", "call": "look_up", "latency_ms": 5},
    ]
    assert [ended is not None for _, ended in times] == [True, False, True]


async def test_an_attempt_that_is_under_way_says_so(api: Api) -> None:
    payment_id = await made(api)
    assert await all_of(api, f"/v1/payments/{payment_id}/attempts", "attempts", limit=5) == []
    await api.store.claim(UUID(payment_id))
    [one] = await all_of(api, f"/v1/payments/{payment_id}/attempts", "attempts", limit=5)
    assert (one["attempt"], one["outcome"]) == (1, "under_way")


async def test_a_decline_and_a_late_result_bring_their_codes(api: Api) -> None:
    payment_id = await made(api)
    claim = await api.store.claim(UUID(payment_id))
    assert isinstance(claim, Claim)
    declined = settlement(claim.payment, Status.FAILED_FINAL, event="declined", decline_code="no_money", reason="no")
    await api.store.settle(declined)
    [one] = await all_of(api, f"/v1/payments/{payment_id}/attempts", "attempts", limit=5)
    assert (one["outcome"], one["decline_code"], one["reason"]) == ("declined", "no_money", "no")
    await api.store.record_late(declined)
    [one] = await all_of(api, f"/v1/payments/{payment_id}/attempts", "attempts", limit=5)
    assert (one["outcome"], one["decline_code"], one["call"]) == ("late_result", "no_money", "charge")


@pytest.mark.parametrize("part", ["events", "attempts"])
async def test_the_past_of_nobody_is_not_found_and_a_bad_query_is_refused(api: Api, part: str) -> None:
    for payment_id in (UNKNOWN_ID, "nonsense"):
        response, problem = await get(api, f"/v1/payments/{payment_id}/{part}")
        assert (response.status, problem["code"]) == (404, "payment_not_found")
    path = f"/v1/payments/{await made(api)}/{part}"
    for query in ("colour=red", "limit=0", "after=x", "after=gAAAAAAAAAAAAAAAAAAAAA", "after=AAAAAAAAAAAAAAAAgAAAAA"):
        response, problem = await get(api, f"{path}?{query}")
        assert (response.status, problem["code"]) == (400, "query_invalid"), query


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("api", "api"),
        ("api sk_live_0123456789ab", "api"),
        ("operator", "operator"),
        ("console sk_live_0123456789ab", "operator"),
        ("console", "operator"),
        ("worker-2", "worker"),
        ("api-7", "worker"),
        ("consoles", "worker"),
    ],
)
def test_an_actor_is_mapped_by_its_first_word(name: str, kind: str) -> None:
    assert actor_kind(name) == kind
    assert is_reserved_name(name) == (kind != "worker")


@pytest.mark.parametrize("name", ["api", "console 1", "operator x", "  api x"])
@pytest.mark.parametrize("command", ["worker", "dispatch"])
def test_no_process_may_have_the_name_of_another_actor(command: str, name: str) -> None:
    result = CliRunner().invoke(app, [command, "--name", name])
    assert result.exit_code == 2
    assert "must not begin with" in result.output
