"""Bugs planted on purpose in the statements of events. The tests of those statements must notice each of them.

The bugs of the queues are in tests/simulation: these need a real Postgres, since no model has its snapshots.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from unittest.mock import patch
from uuid import uuid4

import psycopg
import pytest

from okane.store import webhook_endpoints, webhook_events, webhook_queues
from okane.store.prepared_statements import PreparedStatement
from okane.store.webhook_events import WebhookEventStore
from tests.okane import test_webhook_endpoints, test_webhook_events, test_webhook_results
from tests.okane.webhook_desk import Desk, make_desk  # noqa: F401 - a fixture

Check = Callable[[str], Awaitable[None]]


@dataclass(frozen=True)
class Mutant:
    """A statement with some places replaced, and the test that must fail."""

    statements: Mapping[str, str] | Mapping[str, PreparedStatement]
    name: str
    places: Mapping[str, str]
    check: Check

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        """The product is wrong in this way inside the block."""
        statement = self.statements[self.name]
        text = statement if isinstance(statement, str) else statement.text.decode()
        for old, new in self.places.items():
            assert text.count(old) == 1, f"{self.name} has changed: this mutant needs another place"
            text = text.replace(old, new)
        wrong = text if isinstance(statement, str) else dataclasses.replace(statement, text=text.encode())
        with patch.dict(self.statements, {self.name: wrong}):
            yield


def with_store(check: Callable[[WebhookEventStore, str], Awaitable[None]]) -> Check:
    async def checked(url: str) -> None:
        store = WebhookEventStore(url)
        try:
            await check(store, url)
        finally:
            await store.aclose()

    return checked


IN_PROGRESS_THEN = "o.xid = ANY (ARRAY(SELECT pg_snapshot_xip(s.seen) FROM s))"
NOT_BEGUN_THEN = "o.xid >= (SELECT pg_snapshot_xmax(s.seen) FROM s)"
# As the sweep does: nothing is taken while an older transaction is open.
OLDEST = {IN_PROGRESS_THEN: "false", NOT_BEGUN_THEN: "o.xid < pg_snapshot_xmin(pg_current_snapshot())"}


async def order_beside_an_open_transaction(store: WebhookEventStore, url: str) -> None:
    """Between the ids of two changes of one payment is that of a transaction which stays open; the later change has the lower
    id. Whatever is taken at once is in the order of versions: only what is taken too early breaks it."""
    payment_id = uuid4()
    async with (
        await psycopg.AsyncConnection.connect(url) as later,
        await psycopg.AsyncConnection.connect(url) as open_one,
        await psycopg.AsyncConnection.connect(url) as earlier,
    ):
        for connection in (later, open_one):
            await connection.execute("SELECT pg_current_xact_id()")
        for connection, version in ((earlier, 2), (later, 3)):
            await connection.execute(test_webhook_events.WRITE, [payment_id, version, "default"])
            await connection.commit()
        await store.sequence()
        await open_one.rollback()
    await store.sequence()
    assert [row[2] for row in await test_webhook_events.positions(url)] == [2, 3]


MUTANTS = {
    "what was in progress at the last run is never taken": Mutant(
        webhook_events.SQL,
        "sequence",
        {IN_PROGRESS_THEN: "false"},
        with_store(test_webhook_events.test_an_open_transaction_delays_no_other_event_and_its_own_come_later),
    ),
    "an open transaction delays all": Mutant(
        webhook_events.SQL,
        "sequence",
        OLDEST,
        with_store(test_webhook_events.test_an_open_transaction_delays_no_other_event_and_its_own_come_later),
    ),
    "an open transaction breaks the order": Mutant(
        webhook_events.SQL,
        "sequence",
        OLDEST,
        with_store(order_beside_an_open_transaction),
    ),
    "the first endpoint does not wait": Mutant(
        webhook_endpoints.SQL,
        "lock_outbox",
        {"LOCK TABLE webhook_outbox IN SHARE MODE": "SELECT true"},
        test_webhook_endpoints.test_a_change_that_does_not_end_refuses_the_first_endpoint_and_nothing_is_stored,
    ),
}


async def test_a_payment_is_in_order_beside_an_open_transaction(database_url: str) -> None:
    await with_store(order_beside_an_open_transaction)(database_url)


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
async def test_a_planted_bug_is_caught(database_url: str, mutant: Mutant) -> None:
    with mutant.planted(), pytest.raises(AssertionError):
        await mutant.check(database_url)


async def test_a_statement_without_the_epoch_is_caught(desk: Desk) -> None:
    """Any dispatcher may write results then. The model of the tables has the same bug in tests/simulation."""
    text, fence = webhook_queues.SQL["write"], " AND q.epoch = n.epoch AND q.owner = %(owner)s::text"
    assert text.count(fence) == 1, "write has changed: this mutant needs another place"
    broken = PreparedStatement.of("write", text.replace(fence, ""))
    with patch.dict(webhook_queues.BATCHED, {"write": broken}), pytest.raises(AssertionError):
        await test_webhook_results.test_a_stale_owner_writes_nothing(desk)
