"""The two statements of a claim: the quick one claims what the other would, or nothing, and leaves it where a route leads
past its first candidate."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from okane.errors import StoreUnavailable
from okane.payment_id import PaymentId
from okane.store import Claim, PaymentStore, sql_files
from okane.store.claims import ONLY_HTTP, ClaimStatements
from okane.store.session import Session
from tests.okane.stored_payments import GRACE, LEASE, accept_one, new

SQL = sql_files.load_statements("payments.sql")
STATUSES = (
    "pending",
    "processing",
    "failed_retryable",
    "unknown",
    "requires_action",
    "submitted",
    "success",
    "canceled",
)
PROVIDERS = (None, "first", "second")
USABLE: Sequence[Sequence[tuple[str, bool]]] = (
    [],
    [("first", True)],
    [("first", True), ("second", True)],
    [("second", False), ("first", True)],
    [("second", False)],
)
CANDIDATES = (None, ["second"], ["first", "second"], ["second", "first"])
SWITCHES = ("mode = 'drain'", "mode = 'off'", "open_until = now() + interval '1 minute'")


async def rows_of_routes(url: str) -> Sequence[UUID]:
    """Return payments of every status, provider, pin and list of candidates, all of them due."""
    store = PaymentStore(url, actor="w1", lease=LEASE, grace=GRACE)
    ids: list[UUID] = []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for status, provider, candidates, pinned in itertools.product(STATUSES, PROVIDERS, CANDIDATES, (None, True)):
            accepted = await accept_one(store, dataclasses.replace(new(str(len(ids))), candidates=candidates))
            ids.append(accepted.payment.id)
            await connection.execute(
                """UPDATE payments SET status = %s, rare_status = NULL, provider = %s, pinned = %s,
                   attempts = (%s::text IS NOT NULL)::integer, retry_at = now(), lease_until = now() WHERE id = %s""",
                (status, provider, pinned, provider, ids[-1]),
            )
    await store.aclose()
    return ids


async def rows_of_all_kinds(url: str) -> Sequence[UUID]:
    """Return payments of every status, provider, requested provider and pin, all of them due."""
    store = PaymentStore(url, actor="w1", lease=LEASE, grace=GRACE)
    ids: list[UUID] = []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for status, provider, requested, pinned in itertools.product(STATUSES, PROVIDERS, PROVIDERS, (None, True)):
            payment = (await accept_one(store, new(str(len(ids))))).payment
            ids.append(payment.id)
            await connection.execute(
                """UPDATE payments SET status = %s, rare_status = NULL, provider = %s, requested_provider = %s, pinned = %s,
                   attempts = (%s::text IS NOT NULL)::integer, retry_at = now(), lease_until = now() WHERE id = %s""",
                (status, provider, requested, pinned, provider, payment.id),
            )
    await store.aclose()
    return ids


async def claimed(
    connection: psycopg.AsyncConnection[Any], name: str, ids: Sequence[UUID], usable: Sequence[tuple[str, bool]]
) -> Sequence[tuple[Any, ...]]:
    """Return the rows that a statement claims, and take its claims back."""
    defaults = [one for one, is_default in usable if is_default]
    parameters = {
        "ids": ids,
        "usable": [one for one, _ in usable],
        "defaults": [is_default for _, is_default in usable],
        "first_default": defaults[0] if defaults else None,
        "actor": "w1",
        "lease_ms": 30_000,
        "grace_ms": 5_000,
    }
    async with connection.transaction(force_rollback=True):
        cursor = await connection.execute(SQL[name], parameters)
        return sorted((await cursor.fetchall()), key=lambda row: row[0])


@pytest.mark.parametrize("usable", USABLE)
async def test_both_claim_the_same_for_the_same_providers_while_all_may_be_called(
    database_url: str, usable: Sequence[tuple[str, bool]]
) -> None:
    ids = await rows_of_all_kinds(database_url)
    async with await psycopg.AsyncConnection.connect(database_url) as connection:  # in one transaction, with one now()
        await connection.execute("INSERT INTO providers (name) VALUES ('first')")  # switched on again
        quick = await claimed(connection, "claim", ids, usable)
        assert quick == await claimed(connection, "claim_and_choose", ids, usable)
    assert bool(quick) == bool(usable)


@pytest.mark.parametrize("usable", USABLE)
async def test_what_the_quick_one_claims_of_routed_payments_the_other_claims_as_well(
    database_url: str, usable: Sequence[tuple[str, bool]]
) -> None:
    ids = await rows_of_routes(database_url)
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("SELECT now()")  # of both, like the transaction
        quick = await claimed(connection, "claim", ids, usable)
        whole = await claimed(connection, "claim_and_choose", ids, usable)
    assert {row[0]: row for row in quick}.items() <= {row[0]: row for row in whole}.items()
    assert bool(quick) == bool(whole) == bool(usable)


@pytest.mark.parametrize("switched", SWITCHES)
async def test_the_quick_one_claims_nothing_while_one_provider_may_not_be_called(
    database_url: str, switched: str
) -> None:
    ids = await rows_of_all_kinds(database_url)
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("INSERT INTO providers (name) VALUES ('third')")
        await connection.execute(f"UPDATE providers SET {switched}")
        assert await claimed(connection, "claim", ids, USABLE[1]) == []
        assert len(await claimed(connection, "claim_and_choose", ids, USABLE[1])) > 0


async def test_what_the_quick_one_has_claimed_is_granted_although_the_other_failed(database_url: str) -> None:
    store = PaymentStore(database_url, actor="w1", lease=LEASE, grace=GRACE)
    due = (await accept_one(store, new("due"))).payment.id
    await store.aclose()
    session = CutOff(database_url, name="claim", timeout=timedelta(seconds=5))
    claims = ClaimStatements(actor="w1", lease=LEASE, grace=GRACE, usable=lambda: ONLY_HTTP)
    granted, error = await claims.claim(session, [due, PaymentId()])
    assert isinstance(granted, Claim)
    assert isinstance(error, StoreUnavailable)
    await session.aclose()


class CutOff(Session):
    """A session whose connection is lost after its first statement."""

    answered = 0

    async def fetch(self, *arguments: Any, **more: Any) -> Sequence[Any]:
        self.answered += 1
        if self.answered > 1:
            raise StoreUnavailable("cut")
        return await super().fetch(*arguments, **more)
