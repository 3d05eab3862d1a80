"""Long days: 100,000 charges are compared within seconds, and the memory holds pages and not the day."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from okane.providers.listing import ProviderRecord
from okane.reconcile.day import DayComparison, DayResult
from okane.reconcile.look_up import LookUps
from okane.reconcile.seen import SeenRecords
from okane.store.movements import MovementStore
from tests.okane.money_days import DAY, uuid7

PAGE = 1_000
WRONG = {7, 3_333, 9_999}
COLUMNS = (
    "id, account_id, idempotency_key, fingerprint, amount_minor, currency, lane, provider_key, provider_ref, provider"
)


class LongList:
    """A list of the payments that made it, as a provider would send it: page after page, newest last."""

    name = "http"

    def __init__(self, ids: Sequence[UUID]) -> None:
        self._ids = ids

    async def list_records(self, begin: datetime, end: datetime) -> AsyncIterator[Sequence[ProviderRecord]]:
        for first in range(0, len(self._ids), PAGE):
            yield [self._record(number) for number in range(first, first + PAGE)]

    async def aclose(self) -> None:
        pass

    def _record(self, number: int) -> ProviderRecord:
        return ProviderRecord(
            kind="charge",
            at=DAY + number * timedelta(days=1) / len(self._ids),
            provider_ref=f"ch_{number}",
            status="succeeded",
            amount_minor=2 if number in WRONG else 1,
            currency="USD",
            payment_id=self._ids[number],
        )


async def never(*given: Any) -> Any:
    raise AssertionError("everything is in the list: nothing is looked up")


async def fill(url: str, ids: Sequence[UUID]) -> None:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        async with connection.cursor().copy(f"COPY payments ({COLUMNS}, status) FROM STDIN") as copy:
            for number, id_ in enumerate(ids):
                text = str(id_)
                await copy.write_row((text, "a", text, "f", 1, "USD", "low", text, f"ch_{number}", "http", "success"))
        await connection.execute(
            "INSERT INTO payment_events (payment_id, version, at, event, status, attempt, actor) SELECT id, 1, "
            "%s + split_part(provider_ref, '_', 2)::int * 86400.0 / %s * interval '1 second', 'success', 'success', 1, 'w' "
            "FROM payments ORDER BY id",
            [DAY, len(ids)],
        )


async def compared(url: str, ids: Sequence[UUID]) -> DayResult:
    movements = MovementStore(url)
    comparison = DayComparison(
        movements=movements,
        listing=LongList(ids),
        look_ups=LookUps(None),  # type: ignore[arg-type] # it is never asked
        find_payment=never,
        find_operation=never,
        progress=lambda text: None,
    )
    try:
        return await comparison.run(DAY, DAY + timedelta(days=1))
    finally:
        await movements.aclose()


@pytest.mark.parametrize(("charges", "is_traced"), [(100_000, False), (20_000, True)])
async def test_a_long_day_is_compared_page_by_page(database_url: str, charges: int, is_traced: bool) -> None:
    ids = [uuid7(DAY + number * timedelta(days=1) / charges) for number in range(charges)]
    await fill(database_url, ids)
    if is_traced:
        tracemalloc.start(1)
    try:
        result = await compared(database_url, ids)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (result.listed, result.compared) == (charges, charges)
    assert [one.provider_ref for one in result.differences] == [f"ch_{number}" for number in sorted(WRONG)]
    assert peak_bytes < 8 * 1024 * 1024  # the rows alone would be over 20 MB


def test_a_set_of_records_knows_its_pairs_of_id_and_name_alone() -> None:
    seen = SeenRecords()
    ids = [uuid4() for _ in range(66_000)]  # more than a chunk
    for id_ in ids:
        seen.add(id_, "ch_1")
    assert all(seen.has(id_, "ch_1") for id_ in ids)
    assert not any(seen.has(id_, "ch_2") for id_ in ids)
    assert not seen.has(ids[0], None)
