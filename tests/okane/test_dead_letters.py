"""The dead letters over HTTP: the list, and another try."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest

from okane.api.dead_letters import MAX_REPLAY
from okane.payment import Status
from okane.store import DeadLetterFilter, DeadLetterStore
from okane.store import dead_letters as dead_module
from tests.okane.api_requests import get, post
from tests.okane.served_api import Api
from tests.okane.stored_payments import accept_one, claimed, new, settlement

PATH = "/v1/dead-letters"


async def buried(api: Api, count: int, **members: object) -> list[str]:
    """Payments that have spent their retries, oldest first."""
    ids = []
    for number in range(count):
        body = json.dumps({"amount": 440, "idempotency_key": f"k{number}-{len(members)}"} | members)
        _, answer = await post(api, "/v1/payments", body)
        claim = await claimed(api.store, UUID(answer["payment"]["id"]))
        await api.store.settle(settlement(claim.payment, Status.FAILED_FINAL, event="spent", reason="HTTP 503"))
        ids.append(str(claim.payment.id))
    return ids


async def reviewed(api: Api) -> str:
    """A payment about which a human decides."""
    payment_id = (await accept_one(api.store, new("poison"))).payment.id
    assert await api.store.bury(payment_id, reason="poison")
    return str(payment_id)


async def listed(api: Api, query: str) -> list[str]:
    ids: list[str] = []
    after = ""
    while True:
        response, body = await get(api, f"{PATH}?{query}{after}")
        assert response.status == 200, body
        ids += [letter["payment"]["id"] for letter in body["dead_letters"]]
        if not body["has_more"]:
            return ids
        after = f"&after={body['after']}"


async def replayed(api: Api, **asked: object) -> Any:
    response, body = await post(api, f"{PATH}/replay", json.dumps(asked))
    assert response.status == 200, body
    return body


async def test_what_was_given_up_is_listed_the_last_first(api: Api) -> None:
    assert await listed(api, "") == []
    ids = await buried(api, 3)
    review = await reviewed(api)
    everything = [review, *reversed(ids)]
    for limit in (1, 2, 3, 4, 100):
        assert await listed(api, f"limit={limit}") == everything
        assert await listed(api, f"limit={limit}&order=descending") == everything
        assert await listed(api, f"limit={limit}&order=ascending") == everything[::-1]
    response, body = await get(api, f"{PATH}?limit=2")
    assert response.headers["Link"].startswith(f"<{PATH}?limit=2&after=")
    letter = body["dead_letters"][1]
    assert set(letter) == {"dead_at", "provider_key", "payment"}
    assert (letter["provider_key"], letter["payment"]["last_error"]) == (ids[2], "HTTP 503")


async def test_the_filters_find_their_own(api: Api) -> None:
    dollars = await buried(api, 2)
    euros = await buried(api, 1, currency="EUR", amount=50_000)
    review = await reviewed(api)
    past = quote((datetime.now(UTC) - timedelta(hours=1)).isoformat())
    _, body = await get(api, PATH)
    newest = body["dead_letters"][0]["dead_at"]
    for query, ids in {
        "status=needs_review": [review],
        "status=failed_final": [*euros, *reversed(dollars)],
        "status=failed_final&status=needs_review&limit=1": [review, *euros, *reversed(dollars)],
        "currency=EUR": euros,
        "lane=critical": euros,
        "lane=nowhere": [],
        f"dead_after={past}": [review, *euros, *reversed(dollars)],
        f"dead_before={past}": [],
        f"dead_after={newest}": [review],
        f"dead_before={newest}": [*euros, *reversed(dollars)],
        f"dead_before={newest}&limit=1": [*euros, *reversed(dollars)],
    }.items():
        assert await listed(api, query) == ids, query
        assert await listed(api, f"order=ascending&{query}") == ids[::-1], query


@pytest.mark.parametrize("window", [1, 2, 3, 100])
async def test_a_page_looks_at_so_many_and_says_where_it_stopped(
    api: Api, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(dead_module, "WINDOW", window)
    euros = await buried(api, 2, currency="EUR")
    dollars = await buried(api, 5)
    for limit in (1, 2, 10):
        assert await listed(api, f"currency=EUR&limit={limit}") == euros[::-1]
        assert await listed(api, f"currency=USD&limit={limit}") == dollars[::-1]
        assert await listed(api, f"currency=EUR&order=ascending&limit={limit}") == euros
        assert await listed(api, f"currency=USD&order=ascending&limit={limit}") == dollars


async def test_a_letter_that_leaves_the_list_moves_no_page(api: Api) -> None:
    ids = await buried(api, 3)
    _, body = await get(api, f"{PATH}?limit=1")
    await replayed(api, filter={"payment_ids": [ids[2]]})
    assert await listed(api, f"limit=5&after={body['after']}") == [ids[1], ids[0]]
    _, body = await get(api, f"{PATH}?limit=1&order=ascending")
    await replayed(api, filter={"payment_ids": [ids[0]]})
    assert await listed(api, f"limit=5&order=ascending&after={body['after']}") == [ids[1]]


async def test_any_cursor_of_the_right_form_is_a_place(api: Api) -> None:
    """The document's pattern and the API agree: one that is too far away is at the end, or at the beginning."""
    ids = await buried(api, 1)
    assert await listed(api, f"after={'_' * 32}") == ids
    assert await listed(api, f"order=ascending&after={'_' * 32}") == []
    assert await listed(api, f"after={'A' * 32}") == []
    assert await listed(api, f"order=ascending&after={'A' * 32}") == ids


@pytest.mark.parametrize(
    "query",
    ["colour=red", "limit=0", "after=x", "after=AAAA", "after=%00", "order=up", "status=x", "dead_after=x", "lane=%00"],
)
async def test_a_bad_query_is_refused(api: Api, query: str) -> None:
    response, problem = await get(api, f"{PATH}?{query}")
    assert (response.status, problem["code"]) == (400, "query_invalid")


async def test_replay_tries_the_oldest_again(api: Api) -> None:
    ids = await buried(api, 3)
    seen = await replayed(api, limit=2, dry_run=True)
    assert seen == {"retried": ids[:2], "kept": [], "dry_run": True, "has_more": True}
    assert await listed(api, "") == ids[::-1]
    assert await replayed(api, limit=2) == seen | {"dry_run": False}
    assert await listed(api, "") == [ids[2]]
    for payment_id in ids[:2]:
        assert (await api.store.get(UUID(payment_id), account_id="default")).status is Status.PENDING
    assert await replayed(api) == {"retried": [ids[2]], "kept": [], "dry_run": False, "has_more": False}
    assert await replayed(api) == {"retried": [], "kept": [], "dry_run": False, "has_more": False}


async def test_replay_keeps_what_needs_a_review_and_goes_by_its_filter(api: Api) -> None:
    review = await reviewed(api)
    euros = await buried(api, 1, currency="EUR")
    dollars = await buried(api, 1)
    assert (await replayed(api, dry_run=True))["retried"] == [*euros, *dollars]
    named = await replayed(api, filter={"payment_ids": [review, *dollars, str(UUID(int=1))]}, dry_run=True)
    assert (named["retried"], named["kept"]) == (dollars, [review])
    assert (await replayed(api, filter={"currency": "EUR"}))["retried"] == euros
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert (await replayed(api, filter={"dead_after": future}))["retried"] == []
    named = await replayed(api, filter={"payment_ids": [review, *dollars], "dead_before": future})
    assert (named["retried"], named["kept"]) == (dollars, [review])
    assert await listed(api, "") == [review]


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ("", 400, None),
        ("[]", 400, None),
        ('{"limit": 0}', 422, "/limit"),
        (f'{{"limit": {MAX_REPLAY + 1}}}', 422, "/limit"),
        ('{"limit": "5"}', 422, "/limit"),
        ('{"dry_run": 1}', 422, "/dry_run"),
        ('{"filters": {}}', 422, "/filters"),
        ('{"filter": {"colour": "red"}}', 422, "/filter/colour"),
        ('{"filter": {"payment_ids": []}}', 422, "/filter/payment_ids"),
        ('{"filter": {"payment_ids": ["x"]}}', 422, "/filter/payment_ids/0"),
        ('{"filter": {"dead_after": "yesterday"}}', 422, "/filter/dead_after"),
        ('{"filter": {"dead_after": 5}}', 422, "/filter/dead_after"),
    ],
)
async def test_a_bad_replay_is_refused_and_changes_nothing(
    api: Api, body: str, status: int, pointer: str | None
) -> None:
    [payment_id] = await buried(api, 1)
    response, problem = await post(api, f"{PATH}/replay", body)
    assert response.status == status
    assert pointer is None or [one["pointer"] for one in problem["errors"]] == [pointer]
    assert await listed(api, "") == [payment_id]


async def test_only_the_accounts_own_are_listed_and_replayed(api: Api, database_url: str) -> None:
    await buried(api, 1)
    dead = DeadLetterStore(database_url)
    for account_id, count in (("default", 1), ("other", 0)):
        wanted = DeadLetterFilter(account_id=account_id)
        assert len((await dead.search(wanted, limit=5)).letters) == count
        assert len(await dead.oldest(5, wanted)) == count
    await dead.aclose()
