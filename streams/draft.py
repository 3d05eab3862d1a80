"""A message to publish, and the check of its limits before it shares a batch with others.

Guarantee: the server takes every message that passes, so that none fails its batch. `Producer` and `MemoryQueue` use the
same check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Final

from streams.entry import to_fields
from streams.keys import Stream
from streams.values import value

MAX_BYTES: Final = 16 * 1024 * 1024  # of a message: its body, and the names and values of its headers
# Twice as many fields travel in one script call, which takes some thousands at most (see `scripts.MAX_ARGUMENTS`).
MAX_HEADERS: Final = 256

Packed = tuple[str, list[str | bytes | int]]  # lane, fields


@value
class Draft:
    """A message to publish. `lane` None means the first lane."""

    body: bytes
    lane: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Packer:
    """Checks the messages for one stream, and converts them to fields."""

    def __init__(self, stream: Stream) -> None:
        self._name = stream.name
        self._lanes = frozenset(stream.lane_names)
        self._first_lane = stream.lanes[0].name

    def pack(self, body: bytes, lane: str | None, headers: Mapping[str, str] | None) -> Packed:
        """Return the message's lane and fields. Raises TypeError or ValueError with the limit in its text."""
        if not isinstance(body, bytes):
            advice = "; encode it" if isinstance(body, str) else ""
            raise TypeError(f"a body is bytes, not {type(body).__name__}{advice}")
        if lane is None:
            lane = self._first_lane
        elif not isinstance(lane, str):
            raise TypeError(f"a lane is given by its name, a str, not {type(lane).__name__}")
        elif lane not in self._lanes:
            raise ValueError(f"no lane {lane!r} in stream {self._name!r}")
        if headers is None or headers == {}:  # the fast way for most messages
            fields: list[str | bytes | int] = ["b", body]
            size = len(body)
        else:
            _check_headers(headers)
            fields = to_fields(body, headers)
            size = fields_size(fields)
        if size > MAX_BYTES:
            raise ValueError(f"a message has at most {MAX_BYTES:,} bytes, headers included; this one has {size:,}")
        return lane, fields


def fields_size(fields: list[str | bytes | int]) -> int:
    """Return the bytes of an entry's names and values."""
    if len(fields) == 2:
        return len(fields[1])  # type: ignore[arg-type] # the second field is the body, bytes
    return sum(len(part) if isinstance(part, bytes) else len(str(part)) for part in fields)


def _check_headers(headers: object) -> None:
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers are a mapping, not {type(headers).__name__}")
    if len(headers) > MAX_HEADERS:
        raise ValueError(f"a message has at most {MAX_HEADERS} headers; this one has {len(headers):,}")
    for name, text in headers.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError(f"headers map str to str, not {type(name).__name__} to {type(text).__name__}")
        if not name:
            raise ValueError("a header has a name")
