"""The ids of payments and operations: made for new ones, with the number of their cell, and read from texts and bytes."""

from __future__ import annotations

import re
from uuid import UUID, SafeUUID

import uuid_utils

# okane's spelling (a UUID) and the older queue's (`pay_` and 32 digits).
PATTERN = r"(pay_)?([0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})"
_ID = re.compile(PATTERN)
_write = object.__setattr__  # UUID forbids assignment

CELLS = 1024
_CELL_SHIFT = 8  # the last byte stays random, for spreading ids evenly
_NO_CELL = ~((CELLS - 1) << _CELL_SHIFT)


class PaymentId(UUID):
    """A new id: a UUID of version 7 (RFC 9562), so that rows are stored in the order of time, with its text. Its bits 8 to 17
    are the number of the cell (docs/scale.md) whose payment or operation it is.

    Accepting a payment uses the text three times. A UUID would format it each time, which takes as long as rendering the
    answer around it.
    """

    __slots__ = ("_text",)
    _text: str

    def __init__(self, cell: int = 0) -> None:
        number = uuid_utils.uuid7().int & _NO_CELL | cell << _CELL_SHIFT
        _write(self, "int", number)
        _write(self, "is_safe", SafeUUID.unknown)
        _write(self, "_text", str(uuid_utils.UUID(int=number)))

    def __str__(self) -> str:
        return self._text

    def __reduce__(self) -> tuple[type[UUID], tuple[str]]:
        return UUID, (self._text,)


def read_id(data: bytes) -> UUID:
    """Return the id of these 16 bytes. `UUID(bytes=data)` is the same after checks that take as long again."""
    made = UUID.__new__(UUID)
    _write(made, "int", int.from_bytes(data))
    _write(made, "is_safe", SafeUUID.unknown)
    return made


def cell_of(payment_id: UUID) -> int:
    """Return the number of the cell that has made this id."""
    return payment_id.int >> _CELL_SHIFT & CELLS - 1


def parse_id(text: str) -> UUID | None:
    """Return the id that a text spells, or None. (`UUID` itself accepts braces, a urn, and any script's digits.)"""
    return UUID(text.removeprefix("pay_")) if _ID.fullmatch(text) else None
