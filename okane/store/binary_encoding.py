"""Parameters in Postgres' binary format, by the name of their type: whole columns of a batch, packed by hand.

A general adapter asks every element what it is. Here the statement has said it already (`%(ids)s::uuid[]`), and that makes
a batch several times cheaper.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

Encoder = Callable[[Any], bytes | None]

UNFIT = (UnicodeEncodeError, struct.error)  # what an encoder raises for a value that its type does not hold

_MOMENT = struct.Struct(">iq")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # where Postgres counts from
_MICROSECOND = timedelta(microseconds=1)
_TWO_FACED = (float, datetime)  # 0.0 and -0.0, or the two hours in which clocks are put back, are equal
_NULL = struct.pack(">i", -1)
_ARRAY = struct.Struct(">iiIii")  # dimensions, may hold NULL, the elements' type, how many, the first one's number


def _text(value: str) -> bytes:
    data = value.encode()
    return len(data).to_bytes(4, "big") + data


def _bytea(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def _jsonb(value: str) -> bytes:
    """Takes the text of a document."""
    data = value.encode()
    return (len(data) + 1).to_bytes(4, "big") + b"\x01" + data  # the format's version comes first


def _uuid(value: UUID) -> bytes:
    return b"\x00\x00\x00\x10" + value.bytes


def _timestamptz(value: datetime) -> bytes:
    return _MOMENT.pack(8, (value - _EPOCH) // _MICROSECOND)


# The type's number (pg_type.oid, the same in every server), and how an element is written, its length first.
_ELEMENTS: Mapping[str, tuple[int, Callable[[Any], bytes]]] = {
    "boolean": (16, partial(struct.Struct(">i?").pack, 1)),
    "bytea": (17, _bytea),
    "bigint": (20, partial(struct.Struct(">iq").pack, 8)),
    "integer": (23, partial(struct.Struct(">ii").pack, 4)),
    "text": (25, _text),
    "float8": (701, partial(struct.Struct(">id").pack, 8)),
    "timestamptz": (1184, _timestamptz),
    "uuid": (2950, _uuid),
    "jsonb": (3802, _jsonb),
}


def encoder(type_name: str) -> Encoder:
    """How values of this type are written; `integer[]` takes a sequence. None is NULL, also as an element."""
    oid, element = _ELEMENTS[type_name.removesuffix("[]")]
    return partial(_array, oid, element) if type_name.endswith("[]") else partial(_scalar, element)


def _array(oid: int, element: Callable[[Any], bytes], values: Sequence[Any]) -> bytes:
    head = _ARRAY.pack(1, 1, oid, len(values), 1)
    if values and _is_one(values):  # as in most columns
        return head + (_NULL if values[0] is None else element(values[0])) * len(values)
    return head + b"".join([_NULL if value is None else element(value) for value in values])


def _is_one(values: Sequence[Any]) -> bool:
    """Whether all of them are certain to be written the same."""
    first = values[0]
    return first == values[-1] and not isinstance(first, _TWO_FACED) and values.count(first) == len(values)


def _scalar(element: Callable[[Any], bytes], value: Any) -> bytes | None:
    return None if value is None else element(value)[4:]
