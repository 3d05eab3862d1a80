"""The statements that insert payments, and find them by their keys: in one table, or in table partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg

from okane.errors import StoreUnavailable
from okane.payment import MAX_SCHEDULE_AHEAD, NewPayment, Payment
from okane.store import columns, payment_keys, sql_files
from okane.store.part_refusals import PartRefusals
from okane.store.payment_layout import PaymentLayout
from okane.store.prepared_statements import PreparedStatement, Row
from okane.store.session import Fetching

SQL = sql_files.load_statements("payments.sql")
ONE_TABLE = sql_files.prepare_statements("payments.sql", "accept", "by_key")
PARTS = sql_files.prepare_statements("payments.sql", "by_digest", "by_key_in_first")
ACCEPT_KEYED = PreparedStatement.of("accept_keyed", SQL["accept_keyed"].replace("{untaken_in_first}", ""))
ACCEPT_BESIDE_FIRST = PreparedStatement.of(
    "accept_beside_first", SQL["accept_keyed"].replace("{untaken_in_first}", f" AND {SQL['untaken']}")
)


class AcceptStatements:
    """The statements of one store, as the tables are now."""

    def __init__(self, layout: PaymentLayout, *, grace: timedelta) -> None:
        self._layout = layout
        self._grace = grace
        self._refusals = PartRefusals()

    async def insert(
        self, session: Fetching, ids: Sequence[UUID], batch: Sequence[tuple[NewPayment, bool]]
    ) -> Sequence[Row]:
        """Insert those whose keys are new; return the account, the key and the time of each. `batch` has no key twice."""
        # May run twice: a row that the first run committed without a reply is found by its key, and has our id.
        parameters = columns.new_columns([new for new, _ in batch]) | {
            "id": ids,
            "wake": [wake for _, wake in batch],
            "clock_s": (ids[0].int >> 80) / 1000,  # RFC 9562: the id's time in ms comes first
            "grace_s": self._grace.total_seconds(),
            "farthest_s": MAX_SCHEDULE_AHEAD.total_seconds(),
        }
        await self._layout.look(session)
        try:
            return await self._insert(session, parameters)
        except psycopg.errors.UndefinedObject:  # the constraint of one table: there are table partitions since
            if not await self._layout.read(session):
                raise
        except StoreUnavailable:  # perhaps the first table partition is gone
            if not self._layout.is_partitioned or not await self._layout.read(session):
                raise
        return await self._insert(session, parameters)

    async def _insert(self, session: Fetching, parameters: Mapping[str, Any]) -> Sequence[Row]:
        statement = ONE_TABLE["accept"]
        if self._layout.is_partitioned:
            statement = ACCEPT_BESIDE_FIRST if self._layout.has_first else ACCEPT_KEYED
            accounts_and_keys = zip(parameters["account_id"], parameters["idempotency_key"], strict=True)
            parameters = {**parameters, "digests": [payment_keys.digest(*one) for one in accounts_and_keys]}
        try:
            return await session.fetch_repeatable(statement, parameters)
        except psycopg.errors.CheckViolation as error:
            if (refused := self._refusals.unavailable(error, parameters["id"][0])) is not None:
                raise refused from error
            raise

    async def by_key(
        self, session: Fetching, keys: Sequence[tuple[str, str]]
    ) -> Mapping[tuple[str, str], tuple[Payment, bytes]]:
        """Return payments with their fingerprints, by account and idempotency key."""
        await self._layout.look(session)
        parameters = {"account_ids": [account_id for account_id, _ in keys], "keys": [key for _, key in keys]}
        if not self._layout.is_partitioned:
            read = await session.fetch(ONE_TABLE["by_key"], parameters)
        else:
            try:
                read = await self._by_digest(session, keys, parameters)
            except StoreUnavailable:
                self._layout.expire()  # perhaps the first table partition is gone
                raise
        payments = await columns.read_payments(read)
        return {(row[1], row[2]): (payment, row[columns.WIDTH]) for row, payment in zip(read, payments, strict=True)}

    async def _by_digest(
        self, session: Fetching, keys: Sequence[tuple[str, str]], parameters: Mapping[str, Any]
    ) -> Sequence[Row]:
        digests = [payment_keys.digest(*key) for key in keys]
        read = await session.fetch(PARTS["by_digest"], {**parameters, "digests": digests})
        if self._layout.has_first and len(read) < len(keys):
            return [*read, *await session.fetch(PARTS["by_key_in_first"], parameters)]
        return read
