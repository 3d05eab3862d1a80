"""Encode parameters in Postgres' binary format, by the name of their type: whole columns of a batch at once.

A general adapter looks up the type of every element. Here the cast in the statement gives it (`%(ids)s::uuid[]`), which
makes a batch several times cheaper.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

Encoder = Callable[[Any], bytes | None]

UNFIT = (UnicodeEncodeError, struct.error)  # raised by an encoder for a value outside of its type

_MOMENT = struct.Struct(">iq")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # where Postgres counts from
_MICROSECOND = timedelta(microseconds=1)
_EQUAL_BUT_DIFFERENT = (float, datetime)  # 0.0 == -0.0, and both hours when clocks are put back are equal
_NULL = struct.pack(">i", -1)
_ARRAY = struct.Struct(">iiIii")  # dimensions, may hold NULL, the elements' type, how many, the first one's number


def _text(value: str) -> bytes:
    data = value.encode()
    return len(data).to_bytes(4, "big") + data


def _bytea(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def _jsonb(value: str) -> bytes:
    """Encode the text of a JSON document."""
    data = value.encode()
    return (len(data) + 1).to_bytes(4, "big") + b"\x01" + data  # the format's version comes first


def _uuid(value: UUID) -> bytes:
    return b"\x00\x00\x00\x10" + value.bytes


def _timestamptz(value: datetime) -> bytes:
    return _MOMENT.pack(8, (value - _EPOCH) // _MICROSECOND)


# The type's number (pg_type.oid, the same in every server), and the encoder of an element, its length first.
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
    """Return the encoder of a type; that of `integer[]` takes a sequence. None is NULL, also as an element."""
    oid, element = _ELEMENTS[type_name.removesuffix("[]")]
    return partial(_array, oid, element) if type_name.endswith("[]") else partial(_scalar, element)


def _array(oid: int, element: Callable[[Any], bytes], values: Sequence[Any]) -> bytes:
    head = _ARRAY.pack(1, 1, oid, len(values), 1)
    if values and _are_identical(values):  # as in most columns
        return head + (_NULL if values[0] is None else element(values[0])) * len(values)
    return head + b"".join([_NULL if value is None else element(value) for value in values])


def _are_identical(values: Sequence[Any]) -> bool:
    """Return True if all elements certainly have the same encoding."""
    first = values[0]
    return first == values[-1] and not isinstance(first, _EQUAL_BUT_DIFFERENT) and values.count(first) == len(values)


def _scalar(element: Callable[[Any], bytes], value: Any) -> bytes | None:
    return None if value is None else element(value)[4:]
