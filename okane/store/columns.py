"""The columns that the store writes from `NewPayment`, and reads into `Payment` and `Event`.

Derived from the fields of these classes: a field has the name of its column, so a new one changes no statement.
"""

from __future__ import annotations

import dataclasses
import json
import operator
from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

from okane.operation import Operation, OperationKind, OperationStatus
from okane.payment import NewPayment, NextAction, Payment, Status
from okane.store.operation_records import OperationEvent
from okane.store.prepared_statements import Row
from okane.store.records import Event
from okane.time_slice import TimeSlice

LARGE_METADATA = 1_000  # characters: shorter metadata takes no longer to read than the rest of a row
INT = operator.attrgetter("int")  # sorts ids six times as fast as comparing UUIDs, which is Python code
STATUSES = {status.value: status for status in Status}  # ten times as fast as Status(...), for every row

_PAYMENT = [field.name for field in dataclasses.fields(Payment)]
_EVENT = [field.name for field in dataclasses.fields(Event)]
_OPERATION = [field.name for field in dataclasses.fields(Operation)]
_STATUS, _METADATA, _NEXT_ACTION = map(_PAYMENT.index, ("status", "metadata", "next_action"))
_KIND, _OPERATION_STATUS, _OPERATION_METADATA = map(_OPERATION.index, ("kind", "status", "metadata"))
_OPERATION_EVENT = [field.name for field in dataclasses.fields(OperationEvent)]
_OPERATION_EVENT_STATUS = _OPERATION_EVENT.index("status")
_EVENT_STATUS = _EVENT.index("status")
WIDTH = len(_PAYMENT)  # where the other columns of a statement that returns payments begin
OPERATION_WIDTH = len(_OPERATION)

_TYPES = {
    "str": "text",
    "int": "bigint",
    "bool": "boolean",
    "bytes": "bytea",
    "datetime": "timestamptz",
    "Mapping[str, str]": "jsonb",
    "Sequence[str]": "text",  # joined: Postgres has no arrays of arrays of different lengths
}
_NEW = {field.name: _TYPES[str(field.type).removesuffix(" | None")] for field in dataclasses.fields(NewPayment)}
_PLAIN = [name for name in _NEW if name not in ("metadata", "candidates")]

METADATA = "p.metadata::text"
_AS_TEXT = {"metadata": METADATA, "next_action": "p.next_action::text"}
# Lists of columns, by the name that statements give in braces.
LISTS: Mapping[str, LiteralString] = {
    "payment": ", ".join(_AS_TEXT.get(name, f"p.{name}") for name in _PAYMENT),
    "event": ", ".join(f"e.{name}" for name in _EVENT),
    "operation": ", ".join("o.metadata::text" if name == "metadata" else f"o.{name}" for name in _OPERATION),
    "operation_event": ", ".join(f"e.{name}" for name in _OPERATION_EVENT),
    "new": ", ".join(_NEW),
    "new_values": ", ".join(f"w.{name}" for name in _NEW).replace("w.candidates", "string_to_array(w.candidates, ',')"),
    "new_arrays": ", ".join(f"%({name})s::{type_name}[]" for name, type_name in _NEW.items()),
}


def new_columns(news: Sequence[NewPayment]) -> dict[str, Any]:
    """Return the parameters of `{new_arrays}`: a list for each column."""
    columns: dict[str, Any] = {name: [getattr(new, name) for new in news] for name in _PLAIN}
    columns["candidates"] = [None if new.candidates is None else ",".join(new.candidates) for new in news]
    columns["metadata"] = [json.dumps(dict(new.metadata)) if new.metadata else "{}" for new in news]
    return columns


def read_payment(row: Row) -> Payment:
    """Return the payment in the first columns of a row."""
    columns = [*row[:WIDTH]]
    columns[_STATUS] = STATUSES[columns[_STATUS]]
    metadata = columns[_METADATA]
    columns[_METADATA] = {} if metadata == "{}" else json.loads(metadata)
    if columns[_NEXT_ACTION] is not None:
        columns[_NEXT_ACTION] = NextAction(**json.loads(columns[_NEXT_ACTION]))
    return Payment(*columns)


async def read_payments(rows: Sequence[Row]) -> Sequence[Payment]:
    """Return the payments in these rows. Long metadata takes long to parse: other tasks run in between."""
    time_slice, payments = TimeSlice(), []
    for row in rows:
        payments.append(read_payment(row))
        if len(row[_METADATA]) > LARGE_METADATA:
            await time_slice.end_if_spent()
    return payments


def read_event(row: Row) -> Event:
    """Return the event in a row of the columns `{event}`."""
    columns = [*row]
    columns[_EVENT_STATUS] = STATUSES[columns[_EVENT_STATUS]]
    return Event(*columns)


def read_operation(row: Row) -> Operation:
    """Return the operation in the first columns of a row."""
    columns = [*row[:OPERATION_WIDTH]]
    columns[_KIND] = OperationKind(columns[_KIND])
    columns[_OPERATION_STATUS] = OperationStatus(columns[_OPERATION_STATUS])
    metadata = columns[_OPERATION_METADATA]
    columns[_OPERATION_METADATA] = {} if metadata == "{}" else json.loads(metadata)
    return Operation(*columns)


def read_operation_event(row: Row) -> OperationEvent:
    """Return the event in a row of the columns `{operation_event}`."""
    columns = [*row]
    columns[_OPERATION_EVENT_STATUS] = OperationStatus(columns[_OPERATION_EVENT_STATUS])
    return OperationEvent(*columns)
