"""The page of a payment that was archived."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg

from okane.api_key import Scope
from okane.store.partition_bounds import DAY, TABLES, lowest_id
from okane.store.partition_conversion import convert
from tests.console.served_console import Console, text_of


async def test_a_payment_of_an_archived_time_has_a_page_that_says_so(console: Console, database_url: str) -> None:
    long_ago = datetime.now(UTC) - 100 * DAY
    with psycopg.connect(database_url, autocommit=True) as connection:
        first = convert(connection, every=50 * DAY, ahead=150 * DAY, now=long_ago, pause_s=0.01)
        for table in TABLES:
            connection.execute(f"DROP TABLE {first.table(table)}".encode())
    browser = await console.logged_in(Scope.READ)
    archived = lowest_id(long_ago)
    for path in (f"/payments/{archived}", f"/payments?q={archived}"):
        page = await browser.get(path)
        assert page.status == 410, path
        assert "Payments of this time were archived" in text_of(page.text)
    assert (await browser.get(f"/payments/{lowest_id(datetime.now(UTC))}")).status == 404
