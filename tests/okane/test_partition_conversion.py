"""Converting a database to table partitions, killed at each of its statements, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock
from uuid import UUID

import psycopg
import pytest

from okane.errors import SetupError
from okane.payment_id import PaymentId
from okane.store import schema, table_partitions
from okane.store.partition_bounds import DAY, MAX_PARTS, TABLES, WEEK, Part, lowest_id
from okane.store.partition_conversion import convert, drop_checks, read_left_checks, revert
from okane.store.partition_making import make_part, read_parts
from tests.okane.mortal_connection import Killed, Mortal

NOW = datetime.now(UTC)
INSERT = """INSERT INTO payments (id, account_id, idempotency_key, fingerprint, amount_minor, currency, lane, provider_key)
            VALUES (%(id)s, 'a', %(key)s, 'f', 440, 'USD', 'low', 'k')"""
EVENT = """INSERT INTO payment_events (payment_id, version, event, status, attempt, actor)
           VALUES (%(id)s, 1, 'claimed', 'processing', 1, 'w')"""
FILES = "SELECT relfilenode FROM pg_class WHERE oid = to_regclass(%(table)s)"
# The table of payments as everything sees it, but for the bounds.
INDEXES = """SELECT regexp_replace(pg_get_indexdef(indexrelid), ' ON (ONLY )?', ' ON '), indisvalid FROM pg_index
             WHERE indrelid = 'payments'::regclass ORDER BY 1"""


@pytest.fixture
def connection(database_url: str) -> Iterator[Mortal]:
    with Mortal.connect(database_url, autocommit=True) as one:
        assert isinstance(one, Mortal)
        yield one


def pay(connection: psycopg.Connection[Any], key: str, at: datetime | None = None) -> UUID:
    """Insert a payment with an event."""
    an_id = PaymentId() if at is None else lowest_id(at)
    connection.execute(INSERT, {"id": an_id, "key": key})
    connection.execute(EVENT, {"id": an_id})
    return UUID(int=an_id.int)


def plan(connection: psycopg.Connection[Any], **more: Any) -> Part:
    return convert(connection, **{"every": WEEK, "ahead": 2 * WEEK, "pause_s": 0.01, **more})


def test_todays_tables_become_the_first_part_without_copying(connection: Mortal) -> None:
    paid = pay(connection, "k")
    indexes = connection.execute(INDEXES).fetchall()
    before = {table: connection.execute(FILES, {"table": table}).fetchone() for table in TABLES}
    first = plan(connection)
    assert {table: connection.execute(FILES, {"table": first.table(table)}).fetchone() for table in TABLES} == before
    assert connection.execute("SELECT id FROM payments").fetchall() == [(paid,)]
    assert connection.execute("SELECT payment_id FROM payment_events").fetchall() == [(paid,)]
    after = connection.execute(INDEXES).fetchall()
    assert after == [one for one in indexes if "payments_idempotency_key" not in one[0]]
    assert all(is_valid for _, is_valid in after)
    assert not read_left_checks(connection)


def test_the_optional_index_on_metadata_is_taken_over(connection: Mortal) -> None:
    connection.execute("CREATE INDEX payments_metadata ON payments USING gin (metadata jsonb_path_ops)")
    plan(connection)
    is_valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'payments_metadata'::regclass"
    assert connection.execute(is_valid).fetchone() == (True,)
    on_all = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'payments_metadata'::regclass"
    assert connection.execute(on_all).fetchone() == (3,)


def test_payments_of_every_time_find_their_part(connection: Mortal) -> None:
    first = plan(connection)
    parts = read_parts(connection)
    assert [part.begin for part in parts] == [None, first.end, first.end + WEEK]
    at = (NOW - 400 * DAY, NOW, first.end - timedelta(milliseconds=1), first.end, first.end + 2 * WEEK - DAY)
    for number, one in enumerate(at):
        pay(connection, str(number), one)
    counts = [connection.execute(f"SELECT count(*) FROM {part.table('payments')}").fetchone() for part in parts]
    assert counts == [(3,), (1,), (1,)]
    with pytest.raises(psycopg.errors.CheckViolation, match="no partition"):
        pay(connection, "late", first.end + 2 * WEEK)


def test_the_parts_have_room_for_updates_and_the_rights_of_their_table(connection: Mortal) -> None:
    connection.execute("DROP ROLE IF EXISTS reader_of_parts")
    connection.execute("CREATE ROLE reader_of_parts")
    try:
        connection.execute("GRANT SELECT ON payments TO reader_of_parts")
        first = plan(connection)
        second = read_parts(connection)[1]
        for table in ("payments", first.table("payments"), second.table("payments"), "payment_keys"):
            asked = "SELECT has_table_privilege('reader_of_parts', %(table)s, 'SELECT')"
            assert connection.execute(asked, {"table": table}).fetchone() == (True,), table
        options = "SELECT reloptions FROM pg_class WHERE oid = to_regclass(%(table)s)"
        assert connection.execute(options, {"table": second.table("payments")}).fetchone() == (["fillfactor=42"],)
        assert connection.execute(options, {"table": second.table("operations")}).fetchone() == (["fillfactor=50"],)
    finally:
        connection.execute("DROP OWNED BY reader_of_parts")
        connection.execute("DROP ROLE reader_of_parts")


# All of those outside of the transaction, and some in it.
@pytest.mark.parametrize("dies_before", [*range(8, 27), 60, 100])
def test_killed_before_a_statement_it_takes_payments_and_goes_on(database_url: str, dies_before: int) -> None:
    with Mortal.connect(database_url, autocommit=True) as connection:
        assert isinstance(connection, Mortal)
        paid = pay(connection, "before")
        connection.left = dies_before
        with pytest.raises(Killed):
            plan(connection)
    with Mortal.connect(database_url, autocommit=True) as connection:
        also_paid = pay(connection, "between")
        assert connection.execute("SELECT id FROM payments ORDER BY id").fetchall() == [(paid,), (also_paid,)]
        assert not read_parts(connection)
        plan(connection)
        assert not read_left_checks(connection)
        assert len(read_parts(connection)) == 3
        assert connection.execute("SELECT id FROM payments ORDER BY id").fetchall() == [(paid,), (also_paid,)]


def test_an_error_takes_the_checks_back(connection: Mortal) -> None:
    pay(connection, "of a wrong clock", NOW + 60 * DAY)
    with pytest.raises(psycopg.errors.CheckViolation):
        plan(connection)
    assert not read_left_checks(connection)
    pay(connection, "later", NOW + 61 * DAY)


def test_checks_whose_bound_has_come_near_are_replaced(connection: Mortal, database_url: str) -> None:
    connection.left = 20
    with pytest.raises(Killed):
        plan(connection, now=NOW - 20 * DAY)
    with psycopg.connect(database_url, autocommit=True) as again:
        [end] = {one.end for one in read_left_checks(again)}
        assert end < NOW
        first = plan(again)
        assert first.end >= NOW + DAY - timedelta(minutes=1)


def test_one_table_waits_for_a_lock_and_others_do_not_wait_for_it(connection: Mortal, database_url: str) -> None:
    connection.execute("SET lock_timeout = '50ms'")
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT FROM payments")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            plan(connection, pause_s=0)
        reader.rollback()
    assert not read_left_checks(connection)
    plan(connection)


def test_each_change_waits_for_its_lock_and_tries_again(connection: Mortal, database_url: str) -> None:
    """Another session, such as an autovacuum that does not yield, holds what VALIDATE needs."""
    connection.execute("SET lock_timeout = '50ms'")
    with psycopg.connect(database_url) as other:

        def lock(line: str) -> None:
            if line == "checking the ids of operations":
                other.execute("LOCK TABLE operations IN SHARE UPDATE EXCLUSIVE MODE")

        with mock.patch("time.sleep", side_effect=lambda _pause_s: other.rollback()) as pauses:
            plan(connection, report=lock)
    pauses.assert_called_once_with(0.01)
    assert len(read_parts(connection)) == 3


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE VIEW v AS SELECT id FROM payments", "view or rule on it: v"),
        ("CREATE TABLE t (id uuid REFERENCES payments)", "foreign key"),
        ("CREATE POLICY mine ON operations USING (true)", "policy mine"),
        ("CREATE PUBLICATION all_payments FOR TABLE payments", "publication all_payments"),
        ("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'payments_dead_at'::regclass", "payments_dead_at"),
    ],
)
def test_an_obstacle_is_named_before_anything_changes(connection: Mortal, statement: str, named: str) -> None:
    connection.execute(statement)
    with pytest.raises(SetupError, match=named):
        plan(connection)
    assert not read_left_checks(connection)


def test_the_way_back_leads_to_the_same_tables(connection: Mortal) -> None:
    before = connection.execute(INDEXES).fetchall()
    plan(connection)
    paid = pay(connection, "meanwhile")
    revert(connection)
    assert connection.execute(INDEXES).fetchall() == before
    assert connection.execute("SELECT id FROM payments").fetchall() == [(paid,)]
    with pytest.raises(psycopg.errors.UniqueViolation):
        pay(connection, "meanwhile")
    plan(connection)


def test_there_is_no_way_back_once_a_later_part_has_rows(connection: Mortal) -> None:
    first = plan(connection)
    pay(connection, "later", first.end)
    with pytest.raises(SetupError, match="has rows already"):
        revert(connection)
    assert len(read_parts(connection)) == 3


async def test_the_next_parts_are_made_once(database_url: str) -> None:
    with pytest.raises(SetupError, match="in one table"):
        await table_partitions.make_parts(database_url)
    assert await table_partitions.convert(database_url, every=DAY)
    assert not await table_partitions.convert(database_url, every=DAY)
    assert not await table_partitions.make_parts(database_url)
    found = await table_partitions.read_partitioning(database_url)
    assert len(found.parts) == 3
    assert not found.is_short
    assert dataclasses.replace(found, now=found.now + 4 * DAY).is_short
    with psycopg.connect(database_url, autocommit=True) as connection:
        newest = max(read_parts(connection))
        for table in TABLES:
            connection.execute(f"DROP TABLE {newest.table(table)}")
        [*_, last] = read_parts(connection)
        assert newest not in read_parts(connection)
    assert last == max(one.part for one in found.parts[:-1])


async def test_a_conversion_that_was_killed_is_shown_and_taken_back(database_url: str) -> None:
    with Mortal.connect(database_url, autocommit=True) as connection:
        assert isinstance(connection, Mortal)
        connection.left = 20
        with pytest.raises(Killed):
            plan(connection)
    found = await table_partitions.read_partitioning(database_url)
    assert found.left_end is not None
    assert not found.parts
    assert await table_partitions.revert(database_url)
    assert (await table_partitions.read_partitioning(database_url)).left_end is None
    assert not await table_partitions.revert(database_url)


def test_64_parts_can_be_attached(connection: Mortal) -> None:
    plan(connection, every=DAY, ahead=(MAX_PARTS - 1) * DAY)
    assert len(read_parts(connection)) == MAX_PARTS
    assert schema.VERSION
    drop_checks(connection)
    last = max(read_parts(connection))
    make_part(connection, Part(last.end + DAY, last.end), like=last)
