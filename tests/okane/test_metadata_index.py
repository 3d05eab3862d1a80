"""The optional index on metadata: built and dropped on request, and what a search by it reads."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from okane.api_key import ACCOUNT
from okane.payment import Status
from okane.store import PaymentFilter, metadata_index
from okane.store.lists import metadata_statement
from okane.store.metadata_index import MetadataSearch, set_metadata_index
from okane.store.session import BITMAP_ONLY
from tests.okane.test_webhook_deliveries import nodes
from tests.okane.webhook_rows import fetch

WAIT = timedelta(seconds=30)
ONE = PaymentFilter(metadata={"order": "A-70"})
FILL = """
INSERT INTO payments (id, account_id, idempotency_key, fingerprint, amount_minor, currency, lane, status, provider_key,
                      metadata)
SELECT lpad(to_hex(n), 32, '0')::uuid, CASE WHEN mod(n, 2) = 0 THEN 'default' ELSE 'other' END, 'k' || n, ''::bytea, 100,
       'USD', 'low', 'success', 'p' || n,
       jsonb_build_object('order', 'A-' || n, 'shop', 'one', 'third', mod(n, 3)::text)
FROM generate_series(1, 3000) n"""


async def built(url: str, *, wanted: bool = True) -> bool:
    return await set_metadata_index(url, wanted=wanted, wait=WAIT)


async def find(url: str, wanted: PaymentFilter, *, limit: int = 50, account: str = ACCOUNT) -> list[str] | None:
    """Return the keys of all pages, or None where the index does not help."""
    search = MetadataSearch(url, timeout=WAIT)
    found: list[str] = []
    after = None
    try:
        while True:
            page = await search.page(wanted, account_id=account, limit=limit, after=after)
            if page is None:
                return None
            found += [one.idempotency_key for one in page.payments]
            after = page.after
            if after is None:
                return found
    finally:
        await search.aclose()


async def test_the_index_is_built_used_and_dropped(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await fetch(database_url, FILL)
    assert await find(database_url, ONE) is None
    assert [await built(database_url), await built(database_url)] == [True, False]
    assert await find(database_url, ONE) == ["k70"]
    assert await find(database_url, ONE, account="other") == []
    assert (
        await find(database_url, PaymentFilter(metadata={"order": "A-70"}, statuses=frozenset({Status.PENDING}))) == []
    )
    thirds = await find(database_url, PaymentFilter(metadata={"third": "1"}), limit=499)
    assert thirds == [f"k{number}" for number in range(3000, 0, -1) if number % 3 == 1 and number % 2 == 0]
    assert await find(database_url, PaymentFilter(metadata={"shop": "one"})) is None  # too many have it
    assert [await built(database_url, wanted=False), await built(database_url, wanted=False)] == [True, False]
    assert await find(database_url, ONE) is None


async def test_an_index_whose_building_was_interrupted_is_built_anew(database_url: str) -> None:
    await built(database_url)
    await fetch(database_url, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'payments_metadata'::regclass")
    assert await find(database_url, ONE) is None
    assert await built(database_url)
    assert await find(database_url, ONE) == []


async def test_a_search_reads_the_payments_that_have_the_pair_and_no_others(database_url: str) -> None:
    await fetch(database_url, FILL)
    await built(database_url)
    for pairs, most in (({"order": "A-70"}, 1), ({"shop": "one"}, metadata_index.MATCHES + 1)):
        assert 1 <= await rows_read(database_url, PaymentFilter(metadata=pairs)) <= 2 * most


async def rows_read(url: str, wanted: PaymentFilter) -> int:
    """Return how many rows of payments a search reads: those with the pair, and the found ones once more."""
    statement, parameters = metadata_statement(wanted, ACCOUNT, before=None)
    parameters |= {"limit": 51, "window": metadata_index.MATCHES + 1}
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for setting, text in BITMAP_ONLY.items():
            await connection.execute(f"SET {setting} = '{text}'".encode())
        cursor = await connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".encode(), parameters)
        row = await cursor.fetchone()
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"]
    assert "payments_metadata" in json.dumps(plan)
    found = [node for node in nodes(plan) if node.get("Relation Name") == "payments"]
    assert {node["Node Type"] for node in found} == {"Bitmap Heap Scan"}
    return sum(int(node["Actual Rows"] * node["Actual Loops"]) for node in found)
