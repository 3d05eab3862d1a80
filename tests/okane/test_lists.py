"""Lists of payments: every filter, every page, and what a page costs in a table of 200,000."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import psycopg
import pytest
from yarl import URL

from okane.api import query_parameters
from okane.payment import RARE_STATUSES, Payment, Status
from okane.store import PaymentFilter, PaymentLists, PaymentStore
from okane.store import lists as lists_module
from tests.okane.api_requests import get, post, settle
from tests.okane.served_api import Api
from tests.okane.stored_payments import GRACE, LEASE, accept_one, claimed, new, settlement

MANY = 200_000
FILL = """
INSERT INTO payments (id, account_id, idempotency_key, fingerprint, amount_minor, currency, metadata, lane, provider_key,
                      status, rare_status, provider_ref, created_at, updated_at)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(n), 19, '0'))::uuid,
       CASE WHEN n %% 1000 = 7 THEN 'small' ELSE 'default' END, 'key-' || n, '\\x00', 440 + n %% 7, 'USD',
       jsonb_build_object('n', n::text), 'low', n::text,
       coalesce(rare, 'success'), rare, 'ref-' || n, at, at
FROM (SELECT n, timestamptz '2026-01-01' + n * interval '1 second' AS at,
             CASE WHEN n %% 20000 = 11 THEN 'needs_review' WHEN n %% 100 = 12 THEN 'failed_final' END AS rare
      FROM generate_series(0, %s) AS n) AS many
"""


async def execute(url: str, statement: str, parameters: Sequence[object] = ()) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(statement, parameters)


async def made(api: Api, key: str, **members: object) -> dict[str, Any]:
    response, body = await post(api, "/v1/payments", json.dumps({"amount": 440, "idempotency_key": key} | members))
    assert response.status == 202
    payment: dict[str, Any] = body["payment"]
    return payment


async def listed(api: Api, query: str) -> list[str]:
    """Return the keys of the payments on all pages, in order."""
    keys: list[str] = []
    path: str | None = f"/v1/payments?{query}"
    async with asyncio.timeout(60):
        while path is not None:
            async with api.client.get(URL(path, encoded=True)) as response:
                body = await response.json()
                assert response.status == 200, body
                keys += [one["idempotency_key"] for one in body["payments"]]
                link = response.links.get("next")
            assert body["has_more"] == (body["after"] is not None) == (link is not None)
            path = None if link is None else str(URL(link["url"]).relative())
    return keys


async def test_a_list_begins_with_the_newest_and_ends(api: Api) -> None:
    for number in range(5):
        await made(api, f"k{number}")
    assert await listed(api, "") == ["k4", "k3", "k2", "k1", "k0"]
    assert await listed(api, "limit=2") == ["k4", "k3", "k2", "k1", "k0"]
    response, body = await get(api, "/v1/payments?limit=2")
    assert [one["idempotency_key"] for one in body["payments"]] == ["k4", "k3"]
    assert body["has_more"]
    assert set(body) == {"payments", "has_more", "after"}
    assert response.headers["Link"] == f'</v1/payments?limit=2&after={body["after"]}>; rel="next"'


async def test_a_list_may_begin_with_the_oldest(api: Api) -> None:
    for number in range(5):
        await made(api, f"k{number}")
    ascending = ["k0", "k1", "k2", "k3", "k4"]
    for limit in (1, 2, 5, 100):
        assert await listed(api, f"order=ascending&limit={limit}") == ascending
        assert await listed(api, f"order=descending&limit={limit}") == ascending[::-1]
    response, body = await get(api, "/v1/payments?order=ascending&limit=2")
    assert response.headers["Link"] == f'</v1/payments?order=ascending&limit=2&after={body["after"]}>; rel="next"'
    await made(api, "k5")  # it comes at the end
    assert await listed(api, f"order=ascending&after={body['after']}") == ["k2", "k3", "k4", "k5"]
    # A cursor is a position for lists in both directions.
    assert await listed(api, f"after={body['after']}") == ["k0"]
    assert await listed(api, f"order=ascending&after={query_parameters.cursor(UUID(int=2**128 - 1))}") == []
    assert await listed(api, f"order=ascending&after={query_parameters.cursor(UUID(int=0))}") == [*ascending, "k5"]


async def test_a_payment_that_comes_meanwhile_moves_nothing(api: Api) -> None:
    for number in range(4):
        await made(api, f"k{number}")
    _, body = await get(api, "/v1/payments?limit=2")
    await made(api, "late")
    assert await listed(api, f"limit=2&after={body['after']}") == ["k1", "k0"]


async def test_an_empty_list_says_so(api: Api) -> None:
    response, body = await get(api, "/v1/payments")
    assert (response.status, body) == (200, {"payments": [], "has_more": False, "after": None})
    assert "Link" not in response.headers
    for status in Status:
        assert await listed(api, f"status={status.value}") == []


async def test_every_filter_finds_its_own(api: Api) -> None:
    before = datetime.now(UTC) - timedelta(seconds=60)
    made_with: Mapping[str, dict[str, Any]] = {
        "euro": {"currency": "EUR"},
        "small": {"amount": 5},
        "tagged": {"metadata": {"order": "7", "shop": "a&b=c"}},
        "plain": {},
        "paid": {},
        "failed": {},
        "declined": {},
    }
    payment: dict[str, Any] = {}
    for key, members in made_with.items():
        payment = await made(api, key, **members)
        if key == "paid":
            await settle(api, payment["id"], Status.SUCCESS, provider_ref="ref-9")
        if key == "failed":
            await settle(api, payment["id"], Status.FAILED_RETRYABLE, delay=timedelta(hours=1), provider="other")
        if key == "declined":
            await settle(api, payment["id"], Status.FAILED_FINAL, decline_code="card_declined")
    everything = ["declined", "failed", "paid", "plain", "tagged", "small", "euro"]
    _, body = await get(api, f"/v1/payments/{payment['id']}")
    created, updated = body["payment"]["created_at"], body["payment"]["updated_at"]
    past = quote(before.isoformat())
    expected = {
        "currency=EUR": ["euro"],
        "amount_max=439": ["small"],
        "amount_min=440&currency=EUR": ["euro"],
        "amount_min=441": [],
        "metadata[order]=7": ["tagged"],
        "metadata[shop]=a%26b%3Dc&metadata[order]=7": ["tagged"],
        "metadata[order]=8": [],
        "metadata[order]=": [],
        "idempotency_key=plain": ["plain"],
        "idempotency_key=plain&currency=EUR": [],
        "provider_ref=ref-9": ["paid"],
        "provider=other": ["failed"],
        "provider=test": ["declined", "paid"],
        "status=success": ["paid"],
        "status=failed_final": ["declined"],
        "status=failed_final&status=failed_retryable": ["declined", "failed"],
        "status=failed_final&status=failed_retryable&amount_min=441": [],
        "status=failed_final&provider=test&limit=1": ["declined"],
        "status=success&status=failed_final": ["declined", "paid"],
        "status=pending": ["plain", "tagged", "small", "euro"],
        f"created_after={past}": everything,
        f"created_before={past}": [],
        f"created_after={created}": ["declined"],
        f"created_before={created}": everything[1:],
        f"created_after={created}&status=failed_final": ["declined"],
        f"created_before={created}&status=failed_final": [],
        f"updated_after={updated}": ["declined"],
        f"updated_before={past}": [],
        f"updated_after={past}": everything,
    }
    for query, keys in expected.items():
        assert await listed(api, query) == keys, query
        assert await listed(api, f"{query}&limit=1".replace("&limit=1&limit=1", "&limit=1")) == keys, query
        assert await listed(api, f"order=ascending&{query}") == keys[::-1], query


@pytest.mark.parametrize(
    ("query", "parameter", "code"),
    [
        ("colour=red", "colour", "unknown_parameter"),
        ("limit=0", "limit", "greater_than_equal"),
        ("limit=101", "limit", "less_than_equal"),
        ("limit=ten", "limit", "value_error"),
        ("limit=1_0", "limit", "value_error"),
        ("limit=%D9%A1", "limit", "value_error"),
        ("limit=1&limit=2", "limit", "repeated"),
        ("limit=", "limit", "value_error"),
        ("after=nonsense", "after", "value_error"),
        ("after=", "after", "value_error"),
        ("after=AAAA", "after", "value_error"),
        ("after=%00", "after", "value_error"),
        ("after=AAAAAAAAAAAAAAAAAAAAAB", "after", "value_error"),  # another encoding of AAAAAAAAAAAAAAAAAAAAAA
        ("after=AAAAAAAAAAAAAAAAAAAAAA%3D%3D", "after", "value_error"),
        ("order=up", "order", "literal_error"),
        ("order=", "order", "literal_error"),
        ("order=ascending&order=ascending", "order", "repeated"),
        ("idempotency_key=a+b", "idempotency_key", "value_error"),
        ("status=paid", "status", "enum"),
        ("status=success&status=paid", "status", "enum"),
        ("currency=usd", "currency", "value_error"),
        ("amount_min=-1", "amount_min", "value_error"),
        ("amount_min=1.5", "amount_min", "value_error"),
        ("amount_min=9007199254740992", "amount_min", "amount_unsafe_integer"),
        ("amount_max=9223372036854775808", "amount_max", "amount_unsafe_integer"),
        ("created_after=yesterday", "created_after", "value_error"),
        ("created_after=2026-01-01", "created_after", "value_error"),
        ("created_after=2026-01-01T00:00:00", "created_after", "value_error"),
        ("created_after=2026-13-01T00:00:00Z", "created_after", "value_error"),
        ("created_after=1767225600", "created_after", "value_error"),
        ("created_before=0001-01-01T00:00:00%2B01:00", "created_before", "value_error"),
        ("metadata=7", "metadata", "name_missing"),
        ("metadata[]=7", "metadata[]", "string_too_short"),
        ("metadata[a]=1&metadata[a]=2", "metadata[a]", "repeated"),
        ("metadata[a]=%00", "metadata[a]", "value_error"),
        ("provider_ref=%00", "provider_ref", "value_error"),
        ("provider_ref=", "provider_ref", "string_too_short"),
        ("idempotency_key=%00", "idempotency_key", "value_error"),
        ("colour[a]=red", "colour[a]", "unknown_parameter"),
    ],
)
async def test_a_bad_query_is_a_problem_that_names_the_parameter(
    api: Api, query: str, parameter: str, code: str
) -> None:
    async with api.client.get(URL(f"/v1/payments?{query}", encoded=True)) as response:
        problem = await response.json(content_type=None)
        assert (response.status, problem["code"]) == (400, "query_invalid"), problem
    assert {(one["parameter"], one["code"]) for one in problem["errors"]} == {(parameter, code)}


async def test_a_plus_that_was_read_as_a_space_is_explained(api: Api) -> None:
    for query in ("created_after=2026-01-01T00:00:00+01:00", "idempotency_key=a+b"):
        async with api.client.get(URL(f"/v1/payments?{query}", encoded=True)) as response:
            problem = await response.json(content_type=None)
            assert (response.status, problem["code"]) == (400, "query_invalid")
        assert "write it as %2B" in problem["errors"][0]["detail"], query
    async with api.client.get(URL("/v1/payments?created_after=2026-01-01T00:00:00%2B01:00", encoded=True)) as response:
        assert response.status == 200


async def test_bytes_that_are_no_text_find_nothing_and_break_nothing(api: Api) -> None:
    async with api.client.get(URL("/v1/payments?provider_ref=%FF&metadata[%FF]=%FF", encoded=True)) as response:
        assert response.status in (200, 400)


async def test_only_the_accounts_own_are_listed(database_url: str) -> None:
    store = PaymentStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    lists = PaymentLists(database_url)
    ours = (await accept_one(store, new("k"))).payment
    await store.settle(settlement((await claimed(store, ours.id)).payment, Status.FAILED_FINAL, decline_code="no"))
    for wanted in (
        PaymentFilter(),
        PaymentFilter(statuses=frozenset({Status.FAILED_FINAL})),
        PaymentFilter(idempotency_key="k"),
    ):
        assert [one.id for one in (await lists.page(wanted, account_id="default", limit=5)).payments] == [ours.id]
        for other in ("defaul", "default1", "defaulu", ""):
            assert (await lists.page(wanted, account_id=other, limit=5)).payments == []
    await lists.aclose()
    await store.aclose()


async def pages(
    lists: PaymentLists, wanted: PaymentFilter, *, limit: int, account_id: str = "default"
) -> list[list[Payment]]:
    found: list[list[Payment]] = []
    after: UUID | None = None
    while True:
        page = await lists.page(wanted, account_id=account_id, limit=limit, after=after)
        found.append(list(page.payments))
        after = page.after
        if after is None:
            return found


@pytest.mark.parametrize("window", [3, 4, 7, 1000])
async def test_no_page_boundary_loses_or_repeats_a_payment(
    database_url: str, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    """For every window, and every place where a page is cut off."""
    monkeypatch.setattr(lists_module, "WINDOW", window)
    monkeypatch.setattr(lists_module, "RARE_WINDOW", window)
    await execute(database_url, FILL.replace("%% 20000", "%% 5").replace("%% 100 ", "%% 13 "), [60])
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute("SELECT id, status, amount_minor FROM payments WHERE account_id = 'default'")
        table = sorted(await cursor.fetchall(), reverse=True)
    both = frozenset({Status.NEEDS_REVIEW, Status.FAILED_FINAL})
    fits: Sequence[tuple[PaymentFilter, Callable[[str, int], bool]]] = (
        (PaymentFilter(), lambda _status, _amount: True),
        (PaymentFilter(amount_max=440), lambda _status, amount: amount == 440),
        (PaymentFilter(amount_max=1), lambda _status, amount: amount <= 1),
        (PaymentFilter(statuses=both), lambda status, _amount: status in both),
        (PaymentFilter(statuses=both, amount_max=442), lambda status, amount: status in both and amount <= 442),
        (PaymentFilter(statuses=both | {Status.SUCCESS}), lambda _status, _amount: True),
    )
    lists = PaymentLists(database_url)
    for (wanted, fit), limit, upwards in itertools.product(fits, (1, 2, 5, 100), (False, True)):
        asked = replace(wanted, ascending=upwards)
        found = [one.id for page in await pages(lists, asked, limit=limit) for one in page]
        expected = [id_ for id_, status, amount in table if fit(status, amount)]
        assert found == (expected[::-1] if upwards else expected), (asked, limit)
    await lists.aclose()


LOOKED_AT = """
SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'payments')
     + (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'payments')
"""


async def looked_at(lists: PaymentLists) -> int:
    """Return how many rows of the table this session has read, with and without an index. The other sessions are idle."""
    async with lists._sessions.lend("default") as session:
        await session.fetch("SELECT pg_stat_force_next_flush()")
        await session.fetch("SELECT pg_stat_clear_snapshot()")
        return int((await session.fetch(LOOKED_AT))[0][0])


@pytest.mark.parametrize("analyzed", [False, True])
async def test_a_page_costs_a_bounded_number_of_rows_however_many_there_are(database_url: str, analyzed: bool) -> None:
    await execute(database_url, FILL, [MANY])
    if analyzed:
        await execute(database_url, "ANALYZE payments")
    lists = PaymentLists(database_url)
    middle = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=MANY / 2)
    rare = frozenset({Status.NEEDS_REVIEW})
    bound = 2 * lists_module.WINDOW
    cases: Sequence[tuple[PaymentFilter, str, int, int]] = (
        # filter, account, payments found, rows that may be read
        (PaymentFilter(), "default", 20, 21),
        (PaymentFilter(), "small", 20, 21),
        (PaymentFilter(created_before=middle), "default", 20, 30),
        (PaymentFilter(created_from=middle, created_before=middle + timedelta(seconds=5)), "default", 5, 50),
        (PaymentFilter(statuses=frozenset({Status.SUCCESS})), "default", 20, 30),
        (PaymentFilter(statuses=rare), "default", 10, 50),
        (PaymentFilter(statuses=RARE_STATUSES), "default", 20, 200),
        (PaymentFilter(statuses=rare, currency="EUR"), "default", 0, 50),
        (PaymentFilter(statuses=frozenset({Status.FAILED_FINAL}), currency="EUR"), "default", 0, 2 * 2_000),
        (PaymentFilter(statuses=frozenset({Status.PENDING})), "default", 0, bound),
        (PaymentFilter(currency="EUR"), "default", 0, bound),
        (PaymentFilter(provider="unused"), "default", 0, bound),
        (PaymentFilter(metadata={"n": str(MANY // 2)}), "default", 0, bound),
        (PaymentFilter(provider_ref="ref-5"), "small", 0, 1000),
        (PaymentFilter(idempotency_key="key-5"), "default", 1, 1),
    )
    for (asked, account_id, count, most), upwards in itertools.product(cases, (False, True)):
        wanted = replace(asked, ascending=upwards)
        before = await looked_at(lists)
        page = await lists.page(wanted, account_id=account_id, limit=20)
        assert len(page.payments) == count, wanted
        assert 0 < await looked_at(lists) - before <= most, wanted
        if most == bound:
            assert page.after is not None  # the page is empty, and the list is not at its end
    await lists.aclose()
