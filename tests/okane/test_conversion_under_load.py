"""Payments go on while a database is converted, gets its next table partitions, and loses its oldest to the archive."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from okane.archive.archive import archive
from okane.errors import StoreUnavailable
from okane.payment_id import PaymentId
from okane.store import Claim, PaymentStore, table_partitions
from okane.store.partition_bounds import DAY, WEEK, lowest_id
from okane.store.partition_conversion import convert
from tests.okane.stored_payments import GRACE, LEASE, accept_one, new, settlement

PAYERS = 6
NOW = datetime.now(UTC)


class Payers:
    """Clients that pay until they are told to stop, each request twice, and repeat what was not answered."""

    def __init__(self, url: str) -> None:
        self.stores = [PaymentStore(url, actor=f"w{number}", lease=LEASE, grace=GRACE) for number in range(2)]
        self.settled: dict[str, UUID] = {}
        self.errors: list[str] = []
        self.stop = asyncio.Event()

    async def run(self, name: int) -> None:
        number = 0
        while not self.stop.is_set():
            number += 1
            key = f"{name}-{number}"
            rows = await asyncio.gather(*(self._patiently(accept_one, store, new(key)) for store in self.stores))
            [payment_id] = {row.payment.id for row in rows}
            assert sum(row.created for row in rows) <= 1  # none, if the reply of the first was lost
            store = self.stores[number % 2]
            claim = await self._patiently(store.claim, payment_id)
            assert isinstance(claim, Claim), claim
            assert await self._patiently(store.settle, settlement(claim.payment)) is not None
            self.settled[key] = payment_id

    async def _patiently(self, call: Any, *arguments: Any) -> Any:
        while True:
            try:
                return await call(*arguments)
            except StoreUnavailable as error:
                self.errors.append(str(error))
                await asyncio.sleep(0.01)

    async def have_settled(self, more: int) -> None:
        """Wait until so many more payments have been settled."""
        wanted = len(self.settled) + more
        while len(self.settled) < wanted:
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def paying(url: str) -> AsyncIterator[Payers]:
    """Pay inside the block, and compare the books at its end."""
    payers = Payers(url)
    try:
        async with asyncio.TaskGroup() as group:
            for name in range(PAYERS):
                group.create_task(payers.run(name))
            await payers.have_settled(30)
            yield payers
            await payers.have_settled(30)
            payers.stop.set()
    finally:
        for store in payers.stores:
            await store.aclose()
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute("SELECT id, idempotency_key, status FROM payments").fetchall()
        events = connection.execute("SELECT count(*) FROM payment_events").fetchone()
    assert {key: an_id for an_id, key, _ in rows} == payers.settled
    assert len(rows) == len(payers.settled)
    assert {status for *_, status in rows} == {"success"}
    assert events == (2 * len(rows),)
    # A process may find a table gone once for each of its connections.
    assert len(payers.errors) < 10 * PAYERS, payers.errors


async def test_payments_go_on_during_the_conversion_and_its_way_back(database_url: str) -> None:
    async with paying(database_url) as payers:
        assert await table_partitions.convert(database_url, every=DAY)
        await payers.have_settled(30)
        assert await table_partitions.revert(database_url)
        await payers.have_settled(30)
        assert await table_partitions.convert(database_url, every=WEEK)


async def test_payments_go_on_while_parts_are_made_and_archived(database_url: str, tmp_path: Path) -> None:
    old = UUID(int=lowest_id(NOW - 90 * DAY).int | PaymentId().int & (1 << 80) - 1)
    with psycopg.connect(database_url, autocommit=True) as connection:
        convert(connection, every=40 * DAY, ahead=120 * DAY, now=NOW - 80 * DAY)
        connection.execute(
            "INSERT INTO payments (id, account_id, idempotency_key, fingerprint, amount_minor, currency, lane, provider_key,"
            " status, created_at) VALUES (%s, 'default', 'old', 'f', 440, 'USD', 'low', 'k', 'success', %s)",
            (old, NOW - 90 * DAY),
        )
    async with paying(database_url) as payers:
        assert await table_partitions.make_parts(database_url, every=200 * DAY)
        await payers.have_settled(30)
        [gone] = (
            await table_partitions.run_locked(
                database_url,
                partial(archive, folder=tmp_path, before=NOW - 30 * DAY),
                wait=timedelta(seconds=60),
                report=lambda _line: None,
            )
        ).manifests
        assert gone.tables["payments"].rows == 1
