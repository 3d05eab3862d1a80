"""The fields of a stream entry, written and read only here.

`b` is the body, `a` the attempt (absent for the first), `g` the group that it comes back for (absent for all groups),
`h:<name>` a header. A dead letter has four more: `lane`, `id` (of the original entry), `deliveries` and `reason`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from streams.message import Message

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_REASON_LIMIT = 1_000  # characters: a chain of wrapped errors must not fill the server


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that was given up, with the reason, the group, and the time by the server's clock."""

    id: str
    lane: str
    reason: str
    body: bytes
    headers: Mapping[str, str]
    attempt: int
    deliveries: int
    original_id: str
    buried_at: datetime
    group: str | None = None


def to_fields(
    body: bytes, headers: Mapping[str, str], *, attempt: int = 1, group: str | None = None
) -> list[str | bytes | int]:
    """Return the entry's fields for XADD: name, value, name, value."""
    fields: list[str | bytes | int] = ["b", body]
    if attempt > 1:
        fields += ("a", attempt)
    if group is not None:
        fields += ("g", group)
    for name, value in headers.items():
        # Encoded here, so that text that UTF-8 cannot write is an error of its message, not of the batch.
        fields += (b"h:" + name.encode(), value.encode())
    return fields


def to_dead_fields(message: Message, reason: str, *, group: str) -> list[str | bytes | int]:
    """Return the fields of a dead letter of this group."""
    fields = to_fields(message.body, message.headers, attempt=message.attempt, group=group)
    fields += ("lane", message.lane, "id", message.id, "deliveries", message.deliveries)
    # An error's text may have characters that UTF-8 cannot write (of a file name, say): they must not fail the batch.
    fields += ("reason", reason[:_REASON_LIMIT].encode(errors="replace"))
    return fields


def to_message(entry_id: bytes, fields: Sequence[bytes], *, lane: str, deliveries: int = 1) -> Message:
    """Read an entry. Unknown fields are ignored, so that newer producers may add some."""
    if len(fields) == 2 and fields[0] == b"b":  # most entries have nothing else
        return Message(entry_id.decode(), lane, fields[1], {}, 1, deliveries)
    values = _pairs(fields)
    return Message(
        entry_id.decode(),
        lane,
        values.get(b"b", b""),
        _headers(values),
        _count(values.get(b"a"), 1) or 1,
        deliveries,
        _group(values),
    )


def to_dead_letter(entry_id: bytes, values: Mapping[bytes, bytes]) -> DeadLetter:
    """Read a dead letter. In one that another program wrote, missing parts are empty."""
    text = entry_id.decode()
    return DeadLetter(
        id=text,
        lane=_text(values.get(b"lane")),
        reason=_text(values.get(b"reason")),
        body=values.get(b"b", b""),
        headers=_headers(values),
        attempt=_count(values.get(b"a"), 1),
        deliveries=_count(values.get(b"deliveries"), 0),
        original_id=_text(values.get(b"id")),
        buried_at=_EPOCH + timedelta(milliseconds=timestamp_ms(text)),
        group=_group(values),
    )


def timestamp_ms(entry_id: str) -> int:
    """Return the time at which the server created the entry, in ms since the epoch."""
    return int(entry_id.partition("-")[0])


def checked_id(text: str) -> str:
    """Return `text` if it is an entry's id. Raises TypeError or ValueError otherwise: to the server it might be a range,
    or an error that fails a whole batch."""
    if not isinstance(text, str):
        raise TypeError(f"an entry's id is a str, not {type(text).__name__}")
    if not _ID.fullmatch(text) or any(int(part) >> 64 for part in text.split("-")):
        raise ValueError(f"not an entry's id (two numbers, as in 1700000000000-0): {text[:60]!r}")
    return text


def is_outermost(entry_id: str, end: Literal["first", "last"]) -> bool:
    """Tell whether no id can come before (`first`) or after (`last`) this one: the server refuses a range beyond it."""
    return all(int(part) == (0 if end == "first" else 2**64 - 1) for part in entry_id.split("-"))


def _pairs(fields: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))


def _headers(values: Mapping[bytes, bytes]) -> dict[str, str]:
    return {_text(name[2:]): _text(value) for name, value in values.items() if name.startswith(b"h:")}


def _group(values: Mapping[bytes, bytes]) -> str | None:
    return _text(values[b"g"]) if b"g" in values else None


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode("utf-8", "replace")


def _count(value: bytes | None, default: int) -> int:
    return int(value) if value is not None and value.isdigit() and len(value) < 10 else default


def flatten(values: Mapping[bytes, bytes]) -> list[bytes]:
    """Return a reply as the list it was, which redis-py has converted to a mapping."""
    return [part for pair in values.items() for part in pair]
