"""The id of a new payment: a UUID of version 7 (RFC 9562), so that rows are stored in the order of time."""

from __future__ import annotations

from uuid import UUID, SafeUUID

import uuid_utils

_write = object.__setattr__  # UUID forbids assignment


class PaymentId(UUID):
    """A new id with its text. Accepting a payment uses the text three times, and a UUID would format it each time, which
    takes as long as rendering the answer around it."""

    __slots__ = ("_text",)
    _text: str

    def __init__(self) -> None:
        made = uuid_utils.uuid7()
        _write(self, "int", made.int)
        _write(self, "is_safe", SafeUUID.unknown)
        _write(self, "_text", str(made))

    def __str__(self) -> str:
        return self._text

    def __reduce__(self) -> tuple[type[UUID], tuple[str]]:
        return UUID, (self._text,)
