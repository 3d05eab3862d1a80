"""Payments in table partitions: keys stay unique whatever the clocks say, and plans stay those of one table."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock
from uuid import UUID

import psycopg
import pytest
from structlog.testing import capture_logs

from okane.errors import IdempotencyKeyReused, StoreUnavailable
from okane.payment_id import PaymentId
from okane.store import AcceptedRow, Claim, PaymentLists, PaymentStore, SweepStore, payment_keys, payment_layout
from okane.store.due_parts import DueParts
from okane.store.lists import PaymentFilter
from okane.store.operations import OperationStore
from okane.store.partition_bounds import DAY, TABLES, lowest_id, time_of
from okane.store.partition_conversion import convert, revert
from okane.store.partition_making import read_parts
from okane.store.session import INDEX_ONLY
from tests.okane.stored_operations import asked, assert_books_agree, charged
from tests.okane.stored_payments import GRACE, LEASE, accept_one, claimed, new, settlement

PARTS = 4


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as one:
        yield one


def into_parts(connection: psycopg.Connection[Any], parts: int = PARTS) -> datetime:
    """Convert the database; return the end of the first part."""
    return convert(connection, every=DAY, ahead=(parts - 1) * DAY, pause_s=0.01).end


def made_at(*at: datetime, in_module: str = "payments") -> Any:
    """Let ids be made by clocks that show these times, of cell 0 and so on."""

    def make(cell: int = 0) -> UUID:
        return UUID(int=lowest_id(at[cell]).int | PaymentId().int & (1 << 80) - 1)

    return mock.patch(f"okane.store.{in_module}.PaymentId", make)


def store_of(url: str, *, cell: int = 0) -> PaymentStore:
    return PaymentStore(url, actor="w1", lease=LEASE, grace=GRACE, cell=cell)


async def test_a_process_notices_the_conversion_by_its_next_statement(
    payments: PaymentStore, connection: psycopg.Connection[Any]
) -> None:
    before = (await accept_one(payments, new("before"))).payment
    into_parts(connection)
    after = (await accept_one(payments, new("after"))).payment
    for payment, key in ((before, "before"), (after, "after")):
        repeated = await accept_one(payments, new(key))
        assert (repeated.payment.id, repeated.created) == (payment.id, False)
        found = await payments.find(new(key))
        assert found is not None
        assert found.id == payment.id
    assert connection.execute("SELECT count(*) FROM payment_keys").fetchone() == (1,)  # of the other, the index has it
    with pytest.raises(IdempotencyKeyReused):
        await accept_one(payments, new("before", fingerprint=b"g" * 32))


async def test_a_process_notices_the_way_back(payments: PaymentStore, connection: psycopg.Connection[Any]) -> None:
    into_parts(connection)
    made = (await accept_one(payments, new("meanwhile"))).payment
    assert isinstance(await payments.claim(made.id), Claim)
    revert(connection)
    with pytest.raises(StoreUnavailable):  # of the first statement on a table that is gone, which its caller repeats
        await payments.get(made.id, account_id="default")
    assert (await payments.get(made.id, account_id="default")).status == "processing"
    again = await accept_one(payments, new("meanwhile"))
    assert (again.payment.id, again.created) == (made.id, False)


async def test_a_payment_goes_its_way_in_a_later_part(
    payments: PaymentStore, connection: psycopg.Connection[Any]
) -> None:
    end = into_parts(connection)
    with made_at(end + timedelta(hours=1)):
        accepted = await accept_one(payments, new("k"))
    claim = await claimed(payments, accepted.payment.id)
    assert await payments.renew(accepted.payment.id, claim.payment.attempts)
    assert await payments.settle(settlement(claim.payment)) is not None
    assert await payments.settle(settlement(claim.payment)) is not None  # as after a lost reply
    assert (await payments.get(accepted.payment.id, account_id="default")).status == "success"
    part = read_parts(connection)[1]
    for table, rows in (("payments", 1), ("payment_events", 2)):
        assert connection.execute(f"SELECT count(*) FROM {part.table(table)}").fetchone() == (rows,)


async def test_one_batch_of_payments_in_several_parts(
    payments: PaymentStore, connection: psycopg.Connection[Any]
) -> None:
    end = into_parts(connection)
    ids = []
    for number in range(PARTS):
        with made_at(end + (number - 1) * DAY):
            ids.append((await accept_one(payments, new(str(number)))).payment.id)
    claims = await asyncio.gather(*map(payments.claim, ids))
    assert all(isinstance(one, Claim) for one in claims)
    ages = await asyncio.gather(*(payments.settle(settlement(one.payment)) for one in claims if isinstance(one, Claim)))
    assert None not in ages


@pytest.mark.parametrize("apart", [timedelta(milliseconds=1), timedelta(minutes=5), timedelta(days=1, hours=12)])
async def test_equal_requests_race_at_a_bound_with_clocks_that_differ(
    database_url: str, connection: psycopg.Connection[Any], apart: timedelta
) -> None:
    end = into_parts(connection)
    early, late = store_of(database_url), store_of(database_url, cell=1)
    keys = [str(number) for number in range(20)]
    made: list[AcceptedRow] = []
    try:
        with made_at(end - apart / 2, end + apart / 2):
            await asyncio.gather(
                accept_one(early, new("warm 1")), accept_one(late, new("warm 2"))
            )  # connects, prepares
            for key in keys:
                made += await asyncio.gather(accept_one(early, new(key)), accept_one(late, new(key)))
    finally:
        await early.aclose()
        await late.aclose()
    assert connection.execute("SELECT count(*) FROM payments").fetchone() == (len(keys) + 2,)
    assert len({one.payment.id for one in made}) == sum(one.created for one in made) == len(keys)
    in_parts = [connection.execute(f"SELECT FROM {one.table('payments')}").rowcount for one in read_parts(connection)]
    assert sum(rows > 0 for rows in in_parts) == 2


async def test_a_request_waits_for_an_equal_one_in_another_part(
    database_url: str, payments: PaymentStore, connection: psycopg.Connection[Any]
) -> None:
    """The other has inserted and not committed, for however long."""
    end = into_parts(connection)
    await accept_one(payments, new("warm"))
    digest = payment_keys.digest("default", "k")
    an_id = lowest_id(end - timedelta(hours=1))
    with psycopg.connect(database_url) as other:
        other.execute("INSERT INTO payment_keys VALUES (%s, %s)", (digest, an_id))
        other.execute(
            "INSERT INTO payments (id, account_id, idempotency_key, fingerprint, amount_minor, currency, lane, provider_key)"
            " VALUES (%s, 'default', 'k', %s, 440, 'USD', 'low', 'k')",
            (an_id, new("k").fingerprint),
        )
        with made_at(end + timedelta(hours=1)), pytest.raises(StoreUnavailable):  # its lock timeout
            await accept_one(payments, new("k"))
        other.commit()
    with made_at(end + timedelta(hours=1)):
        row = await accept_one(payments, new("k"))
    assert (row.payment.id, row.created) == (an_id, False)


async def test_a_key_of_before_the_conversion_is_found_from_every_part(
    payments: PaymentStore, connection: psycopg.Connection[Any], database_url: str
) -> None:
    old = (await accept_one(payments, new("k"))).payment
    end = into_parts(connection)
    with made_at(end + DAY):
        row = await accept_one(payments, new("k"))
        mixed = await payments.accept_many([new("k"), new("fresh"), new("k", fingerprint=b"g" * 32)], wakes=3)
    assert (row.payment.id, row.created) == (old.id, False)
    again, fresh, refused = mixed
    assert isinstance(again, AcceptedRow)
    assert isinstance(fresh, AcceptedRow)
    assert (again.payment.id, fresh.created, type(refused)) == (old.id, True, IdempotencyKeyReused)
    lists = PaymentLists(database_url)
    for key, payment in (("k", old), ("fresh", fresh.payment)):
        page = await lists.page(PaymentFilter(idempotency_key=key), account_id="default", limit=2)
        assert [one.id for one in page.payments] == [payment.id]
        other = await lists.page(PaymentFilter(idempotency_key=key), account_id="other", limit=2)
        assert not other.payments
    await lists.aclose()


async def test_a_look_up_by_key_notices_that_the_first_part_is_gone(
    payments: PaymentStore, connection: psycopg.Connection[Any], database_url: str
) -> None:
    into_parts(connection)
    lists, wanted = PaymentLists(database_url), PaymentFilter(idempotency_key="k")
    assert await payments.find(new("k")) is None
    assert not (await lists.page(wanted, account_id="default", limit=1)).payments
    for table in TABLES:
        connection.execute(f"DROP TABLE {table}_first")
    with pytest.raises(StoreUnavailable):
        await payments.find(new("k"))
    with pytest.raises(StoreUnavailable):
        await lists.page(wanted, account_id="default", limit=1)
    assert await payments.find(new("k")) is None
    assert not (await lists.page(wanted, account_id="default", limit=1)).payments
    await lists.aclose()


async def test_without_a_part_for_its_time_a_payment_is_refused_and_its_key_is_free(
    payments: PaymentStore, connection: psycopg.Connection[Any]
) -> None:
    end = into_parts(connection)
    with capture_logs() as logs, made_at(end + 10 * DAY):
        for _ in range(2):
            with pytest.raises(
                StoreUnavailable, match=f"the time {end + 10 * DAY:%Y-%m-%d}.*okane partitions --create"
            ):
                await accept_one(payments, new("k"))
    assert [line["log_level"] for line in logs if line["event"] == "payments_refused"] == ["error"]
    assert (await accept_one(payments, new("k"))).created


async def test_without_a_part_for_its_time_a_refund_is_refused_and_its_key_is_free(
    payments: PaymentStore, connection: psycopg.Connection[Any], database_url: str
) -> None:
    end = into_parts(connection)
    payment = await charged(payments)
    store = OperationStore(database_url, actor="w1", lease=LEASE, grace=GRACE)
    late = made_at(end + 10 * DAY, in_module="operation_requests")
    with late, pytest.raises(StoreUnavailable, match="okane partitions --create"):
        await store.request(asked(payment.id))
    assert (await store.request(asked(payment.id))).created
    await store.aclose()
    await assert_books_agree(database_url)


async def test_the_check_of_a_dead_conversion_is_named(
    payments: PaymentStore, connection: psycopg.Connection[Any]
) -> None:
    connection.execute(
        f"ALTER TABLE payments ADD CONSTRAINT okane_first_part CHECK (id < '{lowest_id(datetime.now(UTC))}')"
    )
    with pytest.raises(StoreUnavailable, match="--undo"):
        await accept_one(payments, new("k"))


async def test_one_table_is_addressed_as_before(payments: PaymentStore, connection: psycopg.Connection[Any]) -> None:
    sent: list[bytes] = []
    original = payment_layout.PaymentLayout.session_for

    async def session_for(layout: Any, session: Any, ids: Sequence[UUID]) -> Any:
        ours = await original(layout, session, ids)
        assert ours is session
        sent.append(b"one table")
        return ours

    with mock.patch.object(payment_layout.PaymentLayout, "session_for", session_for):
        claim = await claimed(payments, (await accept_one(payments, new("k"))).payment.id)
        await payments.settle(settlement(claim.payment))
    assert len(sent) == 2


def scans_of(connection: psycopg.Connection[Any], statement: Any) -> Mapping[str, set[str]]:
    """Return how each table is read by the plan that a worker's connection makes once, for all parameters."""
    with connection.transaction(force_rollback=True):
        for name, value in INDEX_ONLY.items():
            connection.execute(f"SET LOCAL {name} = '{value}'")
        connection.execute(b"PREPARE one AS " + statement.text)
        literals = ", ".join("NULL" for _ in statement.encoders)
        row = connection.execute(f"EXPLAIN (FORMAT JSON) EXECUTE one ({literals})").fetchone()
        connection.execute("DEALLOCATE one")
    assert row is not None
    found: dict[str, set[str]] = defaultdict(set)
    nodes = [row[0][0]["Plan"]]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", ())
        found[node.get("Relation Name", "")].add(node["Node Type"])
    return found


@pytest.mark.parametrize("parts", [1, 8, 64])
async def test_claim_and_settle_touch_one_table_partition(
    database_url: str, connection: psycopg.Connection[Any], parts: int
) -> None:
    payments = store_of(database_url)
    if parts > 1:
        into_parts(connection, parts)
    ran: list[Any] = []
    original = payment_layout._OnePart._on_part

    def on_part(one: Any, statement: Any) -> Any:
        ran.append(original(one, statement))
        return ran[-1]

    with mock.patch.object(payment_layout._OnePart, "_on_part", on_part):
        claim = await claimed(payments, (await accept_one(payments, new("k"))).payment.id)
        await payments.renew(claim.payment.id, claim.payment.attempts)
        await payments.settle(settlement(claim.payment))
        await payments.get(claim.payment.id, account_id="default")
    await payments.aclose()
    assert len(ran) == (4 if parts > 1 else 0)
    for statement in ran:
        scans = scans_of(connection, statement)
        tables = {table for table in scans if table.startswith(("payments", "payment_events"))}
        assert tables <= {"payments_first", "payment_events_first"}
        assert scans["payments_first"] <= {"Index Scan", "ModifyTable"}


async def test_the_sweep_looks_into_the_parts_that_have_something_due(
    database_url: str, payments: PaymentStore, connection: psycopg.Connection[Any]
) -> None:
    """None of them waits for the backlog of another."""
    end = into_parts(connection)
    ids = []
    for number in range(4):
        with made_at(end + timedelta(hours=1) if number % 2 else datetime.now(UTC)):
            [row] = await payments.accept_many([new(str(number))], wakes=0)
        assert isinstance(row, AcceptedRow)
        ids.append(row.payment.id)
    clock_s = [0.0]
    sweep = SweepStore(database_url, grace=GRACE)
    sweep._parts = DueParts(clock=lambda: clock_s[0])
    lanes: Mapping[str, timedelta | None] = {"low": None}
    taken = [await sweep.take_due(lanes, limit=1) for _ in range(3)]
    assert [len(one) for one in taken] == [1, 1, 1]
    assert {time_of(one.payment_id) >= end for [one] in taken} == {True, False}
    rest = await sweep.take_due(lanes, limit=10)
    assert {one.payment_id for one in [*rest, *(one for [one] in taken)]} == set(ids)
    assert await sweep.take_due(lanes, limit=10) == []
    # One of an old part that becomes due is found by the next look at all of them.
    with made_at(end - 30 * DAY):
        [old] = await payments.accept_many([new("old")], wakes=1)
        [far] = await payments.accept_many([new("far")], wakes=1)
    assert isinstance(old, AcceptedRow)
    assert isinstance(far, AcceptedRow)
    connection.execute("UPDATE payments SET sweep_at = NULL")
    clock_s[0] += 11
    assert await sweep.take_due(lanes, limit=10) == []
    connection.execute("UPDATE payments SET sweep_at = now() WHERE id = %s", (ids[1],))
    assert await sweep.take_due(lanes, limit=10) == []
    clock_s[0] += 11
    assert [one.payment_id for one in await sweep.take_due(lanes, limit=10)] == [ids[1]]
    await sweep.aclose()


async def test_the_cursor_of_the_sweep_goes_over_a_bound(
    database_url: str, payments: PaymentStore, connection: psycopg.Connection[Any]
) -> None:
    end = into_parts(connection)
    lost = []
    for at in (end - timedelta(hours=30), end + timedelta(hours=1)):
        with made_at(at):
            lost.append((await accept_one(payments, new(str(at)))).payment.id)
    connection.execute("UPDATE payments SET sweep_at = NULL")
    with mock.patch("okane.store.sweep.first_id", return_value=lowest_id(end + timedelta(hours=2))) as bound:
        sweep = SweepStore(database_url, grace=timedelta(0))
        assert (await sweep.mark_lost("low", None)).lost == 2
        with made_at(end + timedelta(hours=3)):
            lost.append((await accept_one(payments, new("in one part"))).payment.id)
        connection.execute("UPDATE payments SET sweep_at = NULL WHERE id = %s", (lost[-1],))
        bound.return_value = lowest_id(end + timedelta(hours=4))
        assert (await sweep.mark_lost("low", None)).lost == 1
        await sweep.aclose()
    marked = connection.execute("SELECT id FROM payments WHERE sweep_at IS NOT NULL ORDER BY id").fetchall()
    assert [row[0] for row in marked] == sorted(lost, key=lambda one: one.int)
