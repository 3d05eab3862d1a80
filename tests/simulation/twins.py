"""The real store and the model of it, on one clock that only the test moves.

A schema in front of `pg_catalog` overrides Postgres's own clock, so that times are equal to the microsecond and leases end
exactly on their edge.
"""

from __future__ import annotations

import dataclasses
import inspect
import operator
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import psycopg

from okane.errors import OkaneError, OperationRefused
from okane.payment import LATE_LOOK_UPS
from okane.store import (
    Claim,
    ClaimRefusal,
    Event,
    PaymentStore,
    ProviderEventStore,
    SweepStore,
    UsableProvider,
)
from okane.store.operation_records import OperationClaim, OperationEvent, OperationRefusal, OperationSettlement
from okane.store.operations import OperationStore
from okane.store.provider_events import ProviderEvent
from okane.store.sweep import MarkResult
from tests.okane.stored_payments import accept_one
from tests.simulation.notices import MemoryProviderEventStore
from tests.simulation.operations.tables import MemoryOperationStore, OperationRow, OperationTables
from tests.simulation.store import (
    MemoryDatabase,
    MemoryPaymentStore,
    MemorySweepStore,
    PaymentRow,
    ProviderRow,
    StoredNotice,
)

LEASE = timedelta(seconds=30)
GRACE = timedelta(seconds=10)
START = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = 3
NOBODY = UUID(int=7 << 76)

Row = tuple[Any, ...]
COLUMNS = tuple(column.name for column in dataclasses.fields(PaymentRow))
EVENT_COLUMNS = tuple(column.name for column in dataclasses.fields(Event))
OPERATION_COLUMNS = tuple(column.name for column in dataclasses.fields(OperationRow))
OPERATION_EVENT_COLUMNS = tuple(column.name for column in dataclasses.fields(OperationEvent))
read_payment = operator.attrgetter(*COLUMNS)
read_event = operator.attrgetter(*EVENT_COLUMNS)
read_operation = operator.attrgetter(*OPERATION_COLUMNS)
read_operation_event = operator.attrgetter(*OPERATION_EVENT_COLUMNS)
# Each table: what is compared of its rows, the key first, and of how many columns the key is.
TABLES = {
    "payments": (", ".join(COLUMNS), 1),
    "payment_events": (", ".join(EVENT_COLUMNS), 2),
    "operations": (", ".join(OPERATION_COLUMNS), 1),
    "operation_events": (", ".join(OPERATION_EVENT_COLUMNS), 2),
    "providers": ("name, mode, open_until", 1),
    "provider_events": ("provider, event_id, payment_id, provider_ref, received_at, done_at", 2),
    "sweep_cursors": ("lane, passed", 1),
    "sweep_horizon": ("nullif(proven_at, '-infinity'), seen_at", 0),
}

VIRTUAL_CLOCK = """
CREATE SCHEMA virtual;
CREATE TABLE virtual.clock (at timestamptz NOT NULL);
INSERT INTO virtual.clock SELECT pg_catalog.now();
CREATE FUNCTION virtual.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM virtual.clock';
CREATE FUNCTION virtual.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM virtual.clock';
ALTER TABLE payments ALTER created_at SET DEFAULT virtual.now(), ALTER updated_at SET DEFAULT virtual.now();
ALTER TABLE operations ALTER created_at SET DEFAULT virtual.now(), ALTER updated_at SET DEFAULT virtual.now();
ALTER TABLE operation_events ALTER at SET DEFAULT virtual.now();
ALTER TABLE provider_events ALTER received_at SET DEFAULT virtual.now();
ALTER TABLE payment_events ALTER at SET DEFAULT virtual.now();
"""


class Twins:
    """The real store and the model on one clock. `same` asks both, and fails unless they agree in word and deed."""

    def __init__(self, connection: psycopg.AsyncConnection[Row], url: str) -> None:
        self.now = START
        self.next_id = NOBODY  # what both call the next payment
        self.seen: set[str] = set()  # which method gave which kind of answer
        self.db = MemoryDatabase(self._clock)
        self.real = PaymentStore(url, actor="twin", lease=LEASE, grace=GRACE)
        self.model = MemoryPaymentStore(self.db, actor="twin", lease=LEASE, grace=GRACE, new_id=lambda: self.next_id)
        self.real_sweeps = SweepStore(url, grace=GRACE)
        self.model_sweeps = MemorySweepStore(self.db, grace=GRACE, window=WINDOW)
        self.real_events = ProviderEventStore(url, grace=GRACE)
        self.model_events = MemoryProviderEventStore(self.db, grace=GRACE)
        self.tables = OperationTables(self.db)
        self.real_operations = OperationStore(url, actor="twin", lease=LEASE, grace=GRACE)
        self.model_operations = MemoryOperationStore(
            self.tables,
            actor="twin",
            lease=LEASE,
            grace=GRACE,
            late_look_ups=LATE_LOOK_UPS,
            new_id=lambda: self.next_id,
        )
        self._connection = connection
        self._rows: dict[str, dict[Row, Row]] = {table: {} for table in TABLES}
        self._read_up_to = 0  # the transactions before this one
        self._events: dict[str, dict[Row, Row]] = defaultdict(dict)
        self._lengths: dict[UUID, int] = defaultdict(int)
        self.usable: Sequence[UsableProvider] = (UsableProvider("http"),)
        self.real.usable_providers = self.model.usable_providers = lambda: self.usable
        self.real_operations.usable_providers = self.model_operations.usable_providers = lambda: self.usable

    def _clock(self) -> float:
        return self.now.timestamp()

    async def aclose(self) -> None:
        await self.real.aclose()
        await self.real_sweeps.aclose()
        await self.real_events.aclose()
        await self.real_operations.aclose()

    async def advance(self, by: timedelta) -> None:
        self.now += by
        await self._connection.execute("UPDATE virtual.clock SET at = %s", [self.now])

    async def switch(self, name: str, mode: str, open_until: datetime | None) -> None:
        """Write the row of a provider on both sides."""
        await self._connection.execute(
            "INSERT INTO providers (name, mode, open_until) VALUES (%s, %s, %s)"
            " ON CONFLICT (name) DO UPDATE SET mode = excluded.mode, open_until = excluded.open_until",
            [name, mode, open_until],
        )
        self.db.providers[name] = ProviderRow(mode, open_until)

    async def same(self, method: str, *arguments: object, **named: object) -> None:
        """Call a method on both sides; `accept` is `accept_many` of one."""
        real: object = self.real
        model: object = self.model
        if hasattr(SweepStore, method):
            real, model = self.real_sweeps, self.model_sweeps
        if hasattr(ProviderEventStore, method):
            real, model = self.real_events, self.model_events
        await self._same(method, real, model, arguments, named)

    async def same_operation(self, method: str, *arguments: object, **named: object) -> None:
        """Call a method of the stores of operations on both sides."""
        await self._same(method, self.real_operations, self.model_operations, arguments, named)

    async def same_notice(self, event: ProviderEvent) -> None:
        """Take a notice about an operation that is not in work on both sides."""
        assert event.operation_id is not None
        await self.real_events.take("http", [event])
        self.tables.notice(event.operation_id, is_refusal=event.is_refusal, grace=GRACE)
        self.db.notices["http", event.event_id] = StoredNotice(event.payment_id, event.provider_ref, self.now, self.now)
        await self.compare_tables(f"a notice {event}")
        self.seen.add("notice")

    async def same_settled_together(self, settlements: Sequence[OperationSettlement]) -> None:
        """Settle several in one statement of the real store; the model settles them in the order of their ids."""
        store = self.real_operations
        ages = await store._settle(store._rare, settlements)
        for age, settlement in sorted(zip(ages, settlements, strict=True), key=lambda one: one[1].operation_id):
            assert await self.model_operations.settle(settlement) == age, settlement
        await self.compare_tables(f"settle together {settlements}")
        self.seen.add("settle: together")

    async def compare_tables(self, asked: str) -> None:
        """Fail unless all rows are equal."""
        await self._read_changes()
        for table, rows in self._rows.items():
            model = self._of_the_model(table)
            if model != rows:
                raise AssertionError(f"{asked}: {_differences(table, model, rows)}")

    async def _same(
        self, method: str, real: object, model: object, arguments: Sequence[object], named: dict[str, object]
    ) -> None:
        asked = f"{method}{arguments} {named}"
        expected = await outcome(_method(real, method), arguments, named)
        answer = await outcome(_method(model, method), arguments, named)
        assert answer == expected, f"{asked}: the model answers {answer}, the store {expected}"
        await self.compare_tables(asked)
        self.seen.add(f"{method}: {kind(expected)}")

    async def columns(self, table: str) -> set[str]:
        """Return the columns of the real table."""
        cursor = await self._connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            [table],
        )
        return {row[0] for row in await cursor.fetchall()}

    async def _read_changes(self) -> None:
        """Read the rows written since the last time: reading all of them each time would take most of the test."""
        connection, since = self._connection, self._read_up_to
        async with connection.pipeline():
            now = await connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
            found = {
                table: await connection.execute(
                    f"SELECT {columns} FROM {table} WHERE xmin::text::bigint >= {since}".encode()
                )
                for table, (columns, _) in TABLES.items()
            }
        [(self._read_up_to,)] = await now.fetchall()
        for table, cursor in found.items():
            width = TABLES[table][1]
            self._rows[table] |= {row[:width]: row for row in await cursor.fetchall()}

    def _of_the_model(self, table: str) -> Mapping[Row, Row]:
        db = self.db
        match table:
            case "payments":
                return {(row.id,): read_payment(row) for row in db.payments.values()}
            case "payment_events":
                return self._add_events(table, db.events, read_event)
            case "operations":
                return {(row.id,): read_operation(row) for row in self.tables.rows.values()}
            case "operation_events":
                return self._add_events(table, self.tables.events, read_operation_event)
            case "providers":
                return {(name,): (name, row.mode, row.open_until) for name, row in db.providers.items()}
            case "provider_events":
                return {
                    key: (*key, one.payment_id, one.provider_ref, one.received_at, one.done_at)
                    for key, one in db.notices.items()
                }
            case "sweep_cursors":
                return {(lane,): (lane, passed) for lane, passed in db.sweep_cursors.items()}
            case _:
                return {(): (db.horizon.proven_at, db.horizon.seen_at)}

    def _add_events(
        self, table: str, timelines: Mapping[UUID, Sequence[Any]], read: Callable[[Any], Row]
    ) -> Mapping[Row, Row]:
        """Return the events of the model. They never change, so only new ones are read."""
        known = self._events[table]
        for subject, timeline in timelines.items():
            for event in timeline[self._lengths[subject] :]:
                row = read(event)
                known[row[:2]] = row
            self._lengths[subject] = len(timeline)
        return known


def _differences(table: str, model: Mapping[Row, Row], real: Mapping[Row, Row]) -> Sequence[str]:
    """Describe the rows that differ."""
    names, found = TABLES[table][0].split(", "), []
    for key in {**model, **real}:
        mine, its = model.get(key), real.get(key)
        if mine is None or its is None:
            found.append(f"{table} {key}: the model has {mine}, the store {its}")
        elif mine != its:
            columns = zip(names, mine, its, strict=False)
            found += [
                f"{table} {key}: {name} is {one!r}, in the store {other!r}"
                for name, one, other in columns
                if one != other
            ]
    return found


def _method(store: Any, name: str) -> Callable[..., Awaitable[object]]:
    return partial(accept_one, store) if name == "accept" else getattr(store, name)


async def outcome(
    call: Callable[..., Awaitable[object]], arguments: Sequence[object], named: dict[str, object]
) -> object:
    """Return what a call returns or raises, in a form that compares."""
    started_s = time.monotonic()
    try:
        answer = await call(*arguments, **named)
    except OperationRefused as error:
        return type(error), error.code, error.limit
    except OkaneError as error:
        return type(error), error.args
    except psycopg.Error as error:
        return type(error)
    if isinstance(answer, Claim | OperationClaim):
        length_s = answer.valid_until_s - LEASE.total_seconds()
        assert started_s <= length_s <= time.monotonic()
        return dataclasses.replace(answer, valid_until_s=0.0)
    # Of equally overdue payments, Postgres answers in any order.
    any_order = getattr(call, "__name__", "") in ("take_due", "wake_noticed", "due")
    return sorted(answer, key=repr) if isinstance(answer, list) and any_order else answer


def kind(answer: object) -> str:
    """A word for an answer, to count by."""
    match answer:
        case (type() as error, _):
            return error.__name__
        case (type(), str() as code, _):
            return code
        case type():
            return answer.__name__
        case None | bool():
            return str(answer)
        case Claim() | OperationClaim():
            return "look up first" if answer.look_up_first else "charge"
        case ClaimRefusal(no_provider=True) | OperationRefusal(no_provider=True):
            return "no provider"
        case MarkResult():
            return "some" if answer.lost else "none"
        case list():
            return "some" if answer else "none"
        case _:
            return type(answer).__name__


def signatures(store: type) -> dict[str, inspect.Signature]:
    """The public methods."""
    methods = inspect.getmembers(store, inspect.isfunction)
    return {name: inspect.signature(method) for name, method in methods if not name.startswith("_")}
